"""The ledger: gapless, chained, written once, and one winner per entry."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillroom.errors import InputError
from stillroom.registry import ledger
from stillroom.registry.ledger import Entry
from stillroom.storage import Bucket, Folder, Storage, open_storage


def write(store: Storage, version: int, model: str = "toy") -> Entry | None:
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


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger."""
    if request.param == "folder":
        return str(tmp_path)
    _, bucket = request.getfixturevalue("s3")
    return f"s3://{bucket}/ledger"


def test_entries_follow_each_other(tmp_path: Path) -> None:
    store = Folder(tmp_path)
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


def test_the_environment_says_where_it_stands(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_STATE", str(tmp_path / "state"))
    assert ledger.default_store().where == str(tmp_path / "state" / "ledger")
    monkeypatch.setenv(ledger.LEDGER_VARIABLE, place)
    store = ledger.default_store()
    assert (store.where, isinstance(store, Bucket)) == (place, place.startswith("s3"))
    assert write(store, 3)
    assert [entry.to_version for entry in ledger.read("toy", store)] == [3]
    assert not (tmp_path / "state").exists()


def test_models_have_ledgers_of_their_own(place: str) -> None:
    store = open_storage(place)
    write(store, 1, "a")
    write(store, 7, "a.b")
    assert [entry.to_version for entry in ledger.read("a", store)] == [1]
    assert [entry.to_version for entry in ledger.read("a.b", store)] == [7]
    assert ledger.read("c", store) == []


def test_second_writer_of_an_entry_loses(place: str) -> None:
    store = open_storage(place)
    stale = ledger.read("toy", store)
    assert write(store, 1)
    kept = store.read("toy/00000001.json")
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
    assert store.read("toy/00000001.json") == kept


@pytest.mark.parametrize("model", ["", "..", "../toy", "a/b", "/toy", ".hidden"])
def test_model_name_cannot_leave_its_folder(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match="no model name"):
        write(Folder(tmp_path / "ledger"), 1, model)
    assert list(tmp_path.rglob("*.json")) == []


def test_unfinished_temporary_files_are_no_entries(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write(store, 1)
    (tmp_path / "toy/.00000002.json.deadbeef.tmp").write_bytes(b"{")
    assert [entry.to_version for entry in ledger.read("toy", store)] == [1]


def three_entries(place: str) -> tuple[Storage, list[str]]:
    """A ledger of three entries and their names."""
    store = open_storage(place)
    for version in (1, 2, 3):
        write(store, version)
    return store, store.names("toy")


def replace(store: Storage, name: str, content: bytes) -> None:
    store.remove(name)
    assert store.create(name, content)


@pytest.mark.parametrize("removed", [0, 1])
def test_removed_entry_is_noticed(place: str, removed: int) -> None:
    store, names = three_entries(place)
    store.remove(names[removed])
    with pytest.raises(InputError, match=f"ledger {names[removed + 1]}: does not follow"):
        ledger.read("toy", store)


@pytest.mark.parametrize("field", [field.name for field in fields(Entry)])
@pytest.mark.parametrize("edited", [0, 1])
def test_edited_field_of_a_followed_entry_is_noticed(tmp_path: Path, edited: int, field: str) -> None:
    store, names = three_entries(str(tmp_path))
    entry = ledger.read("toy", store)[edited]
    value = getattr(entry, field)
    change = {field: value + 1 if isinstance(value, int) else f"{value}x" if value else "0" * 64}
    if field == "from_version" and value is None:
        change = {field: 9}
    replace(store, names[edited], ledger.encoded(dataclasses.replace(entry, **change)))
    with pytest.raises(InputError, match=rf"ledger ({names[edited]}|{names[edited + 1]}): does not follow"):
        ledger.read("toy", store)


@pytest.mark.parametrize("field", ["sequence", "model", "from_version", "previous"])
def test_last_entry_must_follow_too(tmp_path: Path, field: str) -> None:
    store, names = three_entries(str(tmp_path))
    entry = ledger.read("toy", store)[-1]
    value = {"sequence": 4, "model": "other", "from_version": 1, "previous": "0" * 64}[field]
    replace(store, names[-1], ledger.encoded(dataclasses.replace(entry, **{field: value})))
    with pytest.raises(InputError, match=f"ledger {names[-1]}: does not follow"):
        ledger.read("toy", store)


def swap(store: Storage, names: list[str]) -> None:
    first, second = (store.read(name) for name in names[:2])
    replace(store, names[0], second)
    replace(store, names[1], first)


def close_the_gap(store: Storage, names: list[str]) -> None:
    replace(store, names[1], store.read(names[2]))
    store.remove(names[2])


def duplicate(store: Storage, names: list[str]) -> None:
    assert store.create("toy/00000004.json", store.read(names[2]))


def bring_a_foreign_one(store: Storage, names: list[str]) -> None:
    for version in (1, 2, 3, 4):
        write(store, version, "other")
    assert store.create("toy/00000004.json", store.read("other/00000004.json"))


@pytest.mark.parametrize(("tamper", "named"), [(swap, 1), (close_the_gap, 2), (duplicate, 4), (bring_a_foreign_one, 4)])
def test_entries_in_another_place_are_noticed(
    place: str, tamper: Callable[[Storage, list[str]], None], named: int
) -> None:
    store, names = three_entries(place)
    tamper(store, names)
    with pytest.raises(InputError, match=f"ledger toy/0000000{named}.json: does not follow"):
        ledger.read("toy", store)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_followed_entry_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    store = Folder(folder)
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
    store = Folder(tmp_path)
    write(store, 1)
    path = tmp_path / "toy/00000001.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(InputError, match="does not follow"):
        ledger.read("toy", store)


WRITER = """
import sys
from stillroom.registry import ledger
from stillroom.storage import open_storage
store = open_storage(sys.argv[1])
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


def test_racing_processes_leave_a_gapless_chain_with_one_winner_each(place: str) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", WRITER, place, str(number)]) for number in (1, 2, 3)]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0, 0]
    entries = ledger.read("toy", open_storage(place))
    assert [entry.sequence for entry in entries] == list(range(1, 46))
    assert sorted(entry.actor for entry in entries) == sorted(["1", "2", "3"] * 15)
