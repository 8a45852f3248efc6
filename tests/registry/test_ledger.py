"""The ledger: gapless, chained, written once, and one winner per entry."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillroom.errors import InputError
from stillroom.registry import ledger
from stillroom.registry.ledger import Entry, FileStore


def write(store: FileStore, version: int, model: str = "toy") -> Entry | None:
    """Append one entry after what the ledger holds."""
    return ledger.append(
        model,
        store,
        ledger.read(model, store),
        to_version=version,
        actor="tester",
        reason="a test – ü",
        gate_report_sha256="a" * 64,
        package_digest="b" * 64,
        time="2026-01-01T00:00:00+00:00",
    )


def test_entries_follow_each_other(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for version in (1, 2, 1):
        assert write(store, version)
    entries = ledger.read("toy", store)
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert [(entry.from_version, entry.to_version) for entry in entries] == [(None, 1), (1, 2), (2, 1)]
    assert entries[0].previous is None
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "00000001.json",
        "00000002.json",
        "00000003.json",
    ]


def test_models_have_ledgers_of_their_own(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    write(store, 1, "a")
    write(store, 7, "a.b")
    assert [entry.to_version for entry in ledger.read("a", store)] == [1]
    assert [entry.to_version for entry in ledger.read("a.b", store)] == [7]
    assert ledger.read("c", store) == []


def test_second_writer_of_an_entry_loses(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    stale = ledger.read("toy", store)
    assert write(store, 1)
    kept = (tmp_path / "toy/00000001.json").read_bytes()
    lost = ledger.append(
        "toy",
        store,
        stale,
        to_version=2,
        actor="late",
        reason="late",
        gate_report_sha256="a",
        package_digest="b",
        time="2026-01-01T00:00:00+00:00",
    )
    assert lost is None
    assert (tmp_path / "toy/00000001.json").read_bytes() == kept


def test_create_never_replaces_and_leaves_no_litter(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    assert store.create("m/x", b"first")
    assert not store.create("m/x", b"second")
    assert store.read("m/x") == b"first"
    assert store.names("m") == ["x"]


@pytest.mark.parametrize("model", ["", "..", "../toy", "a/b", "/toy", ".hidden"])
def test_model_name_cannot_leave_its_folder(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match="no model name"):
        write(FileStore(tmp_path / "ledger"), 1, model)
    assert list(tmp_path.rglob("*.json")) == []


def test_unfinished_temporary_files_are_no_entries(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    write(store, 1)
    (tmp_path / "toy/.00000002.json.deadbeef.tmp").write_bytes(b"{")
    assert [entry.to_version for entry in ledger.read("toy", store)] == [1]


@pytest.mark.parametrize("removed", [1, 2])
def test_removed_entry_is_noticed(tmp_path: Path, removed: int) -> None:
    store = FileStore(tmp_path)
    for version in (1, 2, 3):
        write(store, version)
    (tmp_path / f"toy/{removed:08d}.json").unlink()
    with pytest.raises(InputError, match="does not follow"):
        ledger.read("toy", store)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_followed_entry_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    store = FileStore(folder)
    for version in (1, 2):
        write(store, version)
    path = folder / "toy/00000001.json"
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(InputError, match="ledger toy/0000000"):
        ledger.read("toy", store)


def test_reformatted_entry_is_noticed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    write(store, 1)
    path = tmp_path / "toy/00000001.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(InputError, match="does not follow"):
        ledger.read("toy", store)


WRITER = """
import sys
from pathlib import Path
from stillroom.registry import ledger
store = ledger.FileStore(Path(sys.argv[1]))
won = 0
while won < 15:
    entry = ledger.append(
        "toy",
        store,
        ledger.read("toy", store),
        to_version=1,
        actor=sys.argv[2],
        reason="race",
        gate_report_sha256="a",
        package_digest="b",
        time="2026-01-01T00:00:00+00:00",
    )
    won += entry is not None
"""


def test_racing_processes_leave_a_gapless_chain_with_one_winner_each(tmp_path: Path) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)]) for number in (1, 2, 3)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0]
    entries = ledger.read("toy", FileStore(tmp_path))
    assert [entry.sequence for entry in entries] == list(range(1, 46))
    assert sorted(entry.actor for entry in entries) == sorted(["1", "2", "3"] * 15)
