import itertools
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.shards import MANIFEST, SHARDS, read_manifest
from stillroom.cache.store import Store, absent, export
from stillroom.errors import InputError, TryAgain
from stillroom.files import file_digests
from tests.cache.answers import FIELDS, answers_of, texts


def add(store: Store, *examples: str) -> None:
    keys = entry_keys(examples)
    store.add(keys, answers_of(keys))


def filled(root: Path, *shards: list[str]) -> Store:
    """A store to which the shards were added one after the other."""
    store = Store(root, FIELDS)
    assert store.reader() is None
    for shard in shards:
        add(store, *shard)
    return store


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_was_added_is_there_and_nothing_else(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(3), texts(2, first=3))
    reader = store.reader()
    assert reader is not None
    asked = entry_keys(texts(6))
    assert absent(reader, asked).tolist() == [False] * 5 + [True]
    np.testing.assert_array_equal(reader.read("logits", reader.find(asked[:5])), answers_of(asked[:5])["logits"])


def test_in_an_empty_store_everything_is_absent(tmp_path: Path) -> None:
    assert absent(Store(tmp_path, FIELDS).reader(), entry_keys(texts(2))).tolist() == [True, True]


def test_teachers_do_not_share_answers(tmp_path: Path) -> None:
    filled(tmp_path, texts(3))
    assert Store(tmp_path, FIELDS | {"precision": "bf16"}).reader() is None
    assert Store(tmp_path, dict(FIELDS)).reader() is not None


def test_what_another_writer_added_meanwhile_is_left_out(tmp_path: Path) -> None:
    one, other = Store(tmp_path, FIELDS), Store(tmp_path, FIELDS)
    assert one.reader() is other.reader() is None
    add(one, *texts(4))
    add(other, *texts(4, first=2))
    add(one, *texts(6))
    add(other, *texts(6))
    manifest = read_manifest(one.folder)
    assert [shard.entries for shard in manifest.shards] == [4, 2]
    assert len(Reader.open(one.folder)) == 6


WRITER = """
import sys, time
from pathlib import Path
from stillroom.cache.identity import entry_keys
from stillroom.cache.store import Store
from tests.cache.answers import FIELDS, answers_of, texts

root, me, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = Store(root, FIELDS)
assert store.reader() is None
(root / f"ready-{me}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.01)
for start in range(first, first + 60, 3):
    keys = entry_keys(texts(3, start))
    store.add(keys, answers_of(keys))
"""


def test_two_processes_lose_nothing_and_duplicate_nothing(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name, str(first)], cwd=Path.cwd())
        for name, first in (("one", 0), ("other", 31))
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    reader = Store(tmp_path, FIELDS).reader()
    assert reader is not None
    assert len(reader) == 91
    keys = entry_keys(texts(91))
    np.testing.assert_array_equal(reader.read("embedding", reader.locate(keys, "texts")), answers_of(keys)["embedding"])


def test_a_lock_that_is_held_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.cache.store._LOCK_WAIT_S", 0.05)
    store = filled(tmp_path, texts(2))
    with FileLock(store.folder / "lock"):
        with pytest.raises(TryAgain, match="another capture holds its lock; run again"):
            add(store, *texts(2, first=2))
        with pytest.raises(TryAgain):
            store.reader()
    add(store, *texts(2, first=2))
    assert len(Reader.open(store.folder)) == 4


def test_a_damaged_shard_is_struck_and_the_others_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(tmp_path, texts(3), texts(3, first=3), texts(3, first=6))
    name = read_manifest(store.folder).shards[1].name
    flip(store.folder / SHARDS / name)
    with caplog.at_level(logging.WARNING, "stillroom"):
        reader = store.reader()
    assert reader is not None
    assert absent(reader, entry_keys(texts(9))).tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert name in caplog.text
    assert "its 3 entries are captured again" in caplog.text
    add(store, *texts(3, first=3))
    healed = store.reader()
    assert healed is not None
    assert len(healed) == 9


def test_a_store_whose_shards_are_all_damaged_is_empty_and_heals(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(3))
    flip(store.folder / SHARDS / read_manifest(store.folder).shards[0].name)
    assert store.reader() is None
    add(store, *texts(3))
    assert len(Reader.open(store.folder)) == 3


def test_a_damaged_manifest_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(tmp_path, texts(3))
    flip(store.folder / MANIFEST, 10)
    content = (store.folder / MANIFEST).read_bytes()
    with caplog.at_level(logging.WARNING, "stillroom"):
        assert store.reader() is None
    assert "set aside" in caplog.text
    assert (store.folder / "manifest.damaged").read_bytes() == content
    add(store, *texts(3))
    assert len(Reader.open(store.folder)) == 3


def test_a_manifest_that_is_damaged_or_lost_while_a_writer_is_at_work_costs_answers_and_no_run(
    tmp_path: Path,
) -> None:
    store = filled(tmp_path, texts(3))
    flip(store.folder / MANIFEST, 10)
    add(store, *texts(3, first=3))
    assert len(Reader.open(store.folder)) == 3
    (store.folder / MANIFEST).unlink()
    add(store, *texts(3, first=6))
    assert len(Reader.open(store.folder)) == 3


def test_a_shard_that_is_damaged_while_two_writers_are_at_work_does_not_stop_them(tmp_path: Path) -> None:
    one, other = Store(tmp_path, FIELDS), Store(tmp_path, FIELDS)
    assert one.reader() is other.reader() is None
    add(one, *texts(3))
    add(other, *texts(3, first=3))
    flip(one.folder / SHARDS / read_manifest(one.folder).shards[0].name)
    add(one, *texts(3, first=6))
    reader = Store(tmp_path, FIELDS).reader()
    assert reader is not None
    assert absent(reader, entry_keys(texts(9))).tolist() == [True] * 3 + [False] * 6


def test_an_exception_between_shard_and_manifest_loses_that_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, texts(3))
    with monkeypatch.context() as patch:
        patch.setattr("stillroom.cache.store.write_manifest", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            add(store, *texts(3, first=3))
    reader = store.reader()
    assert reader is not None
    assert len(reader) == 3
    add(store, *texts(3, first=3))
    assert len(Reader.open(store.folder)) == 6


def test_a_snapshot_is_byte_identical_whatever_the_history_of_the_store(tmp_path: Path) -> None:
    groups = [texts(4), texts(1, first=4), texts(3, first=5)]
    wanted = entry_keys(["text number 6", *texts(6), "text number 2"])
    digests = set()
    for number, order in enumerate(itertools.permutations(groups)):
        store = filled(tmp_path / f"store{number}", *order, texts(2, first=number + 50))
        reader = store.reader()
        assert reader is not None
        target = tmp_path / f"snapshot{number}"
        manifest = export(reader, np.random.default_rng(number).permutation(wanted), target, 3)
        digests.add(tuple(file_digests(target).items()))
        assert [shard.entries for shard in manifest.shards] == [3, 3, 1]
    assert len(digests) == 1


def test_a_snapshot_holds_each_wanted_answer_once_and_no_other(tmp_path: Path) -> None:
    reader = filled(tmp_path / "store", texts(9)).reader()
    assert reader is not None
    keys = entry_keys([*texts(5), *texts(2)])
    export(reader, keys, tmp_path / "snapshot", 100)
    snapshot = Reader.open(tmp_path / "snapshot")
    assert len(snapshot) == 5
    assert snapshot.manifest.fingerprint == FIELDS
    np.testing.assert_array_equal(snapshot.read("logits", snapshot.locate(keys, "texts")), answers_of(keys)["logits"])


def test_a_snapshot_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    reader = filled(tmp_path / "store", texts(2)).reader()
    assert reader is not None
    with pytest.raises(InputError, match="holds no answer for 1 of 3 texts"):
        export(reader, entry_keys(texts(3)), tmp_path / "snapshot", 100)
    assert not (tmp_path / "snapshot").exists()


def test_a_snapshot_of_nothing_is_whole(tmp_path: Path) -> None:
    reader = filled(tmp_path / "store", texts(2)).reader()
    assert reader is not None
    export(reader, entry_keys([]), tmp_path / "snapshot", 100)
    assert len(Reader.open(tmp_path / "snapshot")) == 0
