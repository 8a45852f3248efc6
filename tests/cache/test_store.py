import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.cache.identity import entry_keys
from stillroom.cache.manifest import Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import write_shard
from stillroom.cache.store import Store, absent, snapshot
from stillroom.errors import InputError, TryAgain
from stillroom.files import file_digests
from stillroom.storage import Folder
from tests.cache.answers import (
    FIELDS,
    SIGNALS,
    add,
    answers_of,
    encoded,
    entries,
    filled,
    flip,
    holds,
    newest_manifest,
    read,
    shard_files,
    texts,
)


def test_what_was_added_is_there_and_nothing_else(tmp_path: Path) -> None:
    reader = read(filled(tmp_path, texts(3), texts(2, first=3)))
    holds(reader, 5)
    assert absent(reader, entry_keys(texts(6))).tolist() == [False] * 5 + [True]


def test_in_an_empty_store_everything_is_absent(tmp_path: Path) -> None:
    assert absent(Store(tmp_path, FIELDS).reader(), entry_keys(texts(2))).tolist() == [True, True]
    assert list(tmp_path.iterdir()) == [], "who only looks leaves nothing"


def test_teachers_do_not_share_answers(tmp_path: Path) -> None:
    filled(tmp_path, texts(3))
    assert Store(tmp_path, FIELDS | {"precision": "bf16"}).reader() is None
    assert Store(tmp_path, dict(reversed(FIELDS.items()))).reader() is not None


def test_what_another_writer_added_meanwhile_is_left_out(tmp_path: Path) -> None:
    one, other = filled(tmp_path), filled(tmp_path)
    add(one, *texts(4))
    add(other, *texts(4, first=2))
    add(one, *texts(6))
    add(other, *texts(6))
    assert entries(one.folder) == [4, 2]
    holds(read(one), 6)


WRITERS = """
import os, sys
from pathlib import Path
from stillroom.cache.store import Store
from tests.cache.answers import FIELDS, add, texts

start, begin = os.pipe()
children = []
for number in range(4):
    if not (child := os.fork()):
        os.close(begin)
        store = Store(Path(sys.argv[1]), FIELDS)
        assert store.reader() is None
        os.read(start, 1)
        for first in range(20 * number, 20 * number + 36, 3):
            add(store, *texts(3, first))
        store.compact(40)
        os._exit(0)
    children.append(child)
os.close(begin)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_processes_that_race_lose_and_spoil_nothing(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], timeout=120).returncode == 0
    reader = read(Store(tmp_path, FIELDS))
    reader.verify()
    holds(reader, 96)


KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from stillroom.cache.store import Store
from tests.cache.answers import FIELDS, add, texts

roots = Path(sys.argv[1])
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill_at(step, folder):
    steps = itertools.count()

    def hook(event, args):
        changes = event in ("os.mkdir", "os.rename", "os.link", "os.remove") or event == "open" and args[2] & WRITING
        if changes and str(args[0]).startswith(folder) and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


for first in range(0, 12, 3):
    add(Store(roots / "whole", FIELDS), *texts(3, first))
for step in itertools.count():
    root = shutil.copytree(roots / "whole", roots / str(step))
    if not (child := os.fork()):
        store = Store(root, FIELDS)
        kill_at(step, str(root))
        add(store, *texts(3, 12))
        store.compact(100)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_a_writer_that_is_killed_at_any_step_blocks_nobody_and_loses_its_shard_at_most(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120, check=True)
    roots = [tmp_path / str(step) for step in range(len(list(tmp_path.iterdir())) - 1)]
    lengths = []
    for root in roots:
        store = Store(root, FIELDS)
        reader = read(store)
        lengths.append(len(reader))
        holds(reader, lengths[-1])
        add(store, *texts(4, first=12))
        store.compact(100)
        holds(read(store), 16)
    assert len(roots) > 10
    assert lengths == sorted(lengths)
    assert set(lengths) == {12, 15}, "killed before its shard is listed, or after"


def test_a_damaged_shard_is_struck_and_the_others_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = filled(tmp_path, texts(3), texts(3, first=3), texts(3, first=6))
    damaged = shard_files(store.folder)[1]
    flip(damaged)
    with caplog.at_level(logging.WARNING, "stillroom"):
        reader = read(store)
    assert absent(reader, entry_keys(texts(9))).tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert damaged.name in caplog.text
    assert "its 3 entries are captured again" in caplog.text
    add(store, *texts(3, first=3))
    holds(read(store), 9)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_store_whose_shards_are_all_lost_is_empty_and_heals(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = filled(tmp_path, texts(3))
    damage(shard_files(store.folder)[0])
    assert store.reader() is None
    add(store, *texts(3))
    holds(read(store), 3)


def test_a_shard_that_was_damaged_after_it_was_read_is_found_by_the_next_reader(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(3), texts(3, first=3))
    read(store)
    flip(shard_files(store.folder)[0])
    holds(read(store), 3, first=3)


@pytest.mark.parametrize("lost", [lambda path: flip(path, 10), lambda path: path.write_bytes(b"")])
def test_a_damaged_manifest_is_made_again_from_the_shards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: Callable[[Path], None]
) -> None:
    store = filled(tmp_path, texts(3), texts(3, first=3))
    widths = Manifests(Folder(store.folder)).latest().signals
    lost(newest_manifest(store.folder))
    with caplog.at_level(logging.WARNING, "stillroom"):
        holds(read(store), 6)
    assert "it is made again from the shards" in caplog.text
    assert Manifests(Folder(store.folder)).latest().signals == widths
    add(store, *texts(3, first=6))
    holds(read(store), 9)


def test_a_manifest_made_again_lists_whole_shards_of_this_teacher_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(3), texts(3, first=3))
    other = Store(tmp_path, FIELDS | {"precision": "bf16"})
    add(other, *texts(5, first=20))
    foreign = shard_files(other.folder)[0]
    foreign.rename(store.folder / "shards" / foreign.name)
    flip(shard_files(store.folder)[1])
    flip(newest_manifest(store.folder), 10)
    holds(read(store), 3)


def test_a_manifest_that_is_damaged_while_a_writer_is_at_work_costs_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(3))
    flip(newest_manifest(store.folder), 10)
    add(store, *texts(3, first=3))
    holds(Reader.open(store.folder), 6)


def test_a_shard_that_is_damaged_while_two_writers_are_at_work_does_not_stop_them(tmp_path: Path) -> None:
    one, other = filled(tmp_path), filled(tmp_path)
    add(one, *texts(3))
    add(other, *texts(3, first=3))
    flip(shard_files(one.folder)[0])
    add(one, *texts(3, first=6))
    add(other, *texts(3, first=9))
    holds(read(Store(tmp_path, FIELDS)), 9, first=3)


def test_an_exception_between_shard_and_manifest_loses_that_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, texts(3))

    def full(*_: Any) -> bool:
        raise TryAgain("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "create", full)
        with pytest.raises(TryAgain, match="the disk is full"):
            add(store, *texts(3, first=3))
    holds(read(store), 3)
    add(store, *texts(3, first=3))
    holds(read(store), 6)


def test_small_shards_are_merged_and_large_ones_left(tmp_path: Path) -> None:
    store = filled(tmp_path, texts(10), *(texts(2, first) for first in range(10, 22, 2)))
    large = shard_files(store.folder)[0]
    keys = entry_keys(texts(22))
    before = {name: read(store).read(name, read(store).find(keys)) for name in ("logits", "embedding")}
    store.compact(8)
    assert entries(store.folder) == [10, 8, 4]
    assert shard_files(store.folder)[0] == large
    reader = read(store)
    holds(reader, 22)
    for name, values in before.items():
        np.testing.assert_array_equal(reader.read(name, reader.find(keys)), values)
    before_again = newest_manifest(store.folder)
    store.compact(8)
    assert newest_manifest(store.folder) == before_again, "few small shards stay as they are"


def test_merging_leaves_out_what_stands_twice_and_what_is_damaged(tmp_path: Path) -> None:
    store = filled(tmp_path, *(texts(2, first) for first in range(0, 8, 2)))
    keys = entry_keys(texts(3))
    again = write_shard(store.folder, store.teacher, keys, encoded(answers_of(keys)))
    Manifests(Folder(store.folder)).change(lambda latest: latest.with_shards(again))
    flip(shard_files(store.folder)[3])
    store.compact(100)
    assert entries(store.folder)[-1] == 6
    holds(read(store), 6)
    assert entries(store.folder) == [6]


def test_a_reader_of_merged_shards_goes_on(tmp_path: Path) -> None:
    store = filled(tmp_path, *(texts(2, first) for first in range(0, 12, 2)))
    reader = Reader.open(store.folder)
    store.compact(100)
    store.collect()
    holds(reader, 12)


def test_two_that_merge_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, *(texts(2, first) for first in range(0, 12, 2)))
    other = Store(tmp_path, FIELDS)
    create = Folder.create

    def overtaken(self: Folder, name: str, content: bytes) -> bool:
        monkeypatch.setattr(Folder, "create", create)
        add(other, *texts(2, first=12))
        other.compact(6)
        return create(self, name, content)

    monkeypatch.setattr(Folder, "create", overtaken)
    store.compact(100)
    holds(read(store), 14)
    assert sum(entries(store.folder)) == 14


def test_passes_are_remembered_one_a_line(tmp_path: Path) -> None:
    store = Store(tmp_path, FIELDS)
    store.record_pass(10, 0)
    store.record_pass(12, 10)
    lines = [json.loads(line) for line in (store.folder / "passes.jsonl").read_text().splitlines()]
    assert [(line["asked"], line["found"]) for line in lines] == [(10, 0), (12, 10)]
    assert all(isinstance(line["time"], int) for line in lines)
    assert store.reader() is None


def test_a_snapshot_is_byte_identical_whatever_the_history_of_the_store(tmp_path: Path) -> None:
    groups = [texts(4), texts(1, first=4), texts(3, first=5)]
    wanted = entry_keys(["text number 6", *texts(6), "text number 2"])
    digests = set()
    for number, order in enumerate(itertools.permutations(groups)):
        store = filled(tmp_path / f"store{number}", *order, texts(2, first=number + 50))
        if number % 2:
            store.compact(100)
        target = tmp_path / f"snapshot{number}"
        manifest = snapshot(read(store), np.random.default_rng(number).permutation(wanted), target, 3)
        digests.add(tuple(file_digests(target).items()))
        assert [shard.entries for shard in manifest.shards] == [3, 3, 1]
    assert len(digests) == 1


def test_a_snapshot_holds_each_wanted_answer_once_and_no_other(tmp_path: Path) -> None:
    keys = entry_keys([*texts(5), *texts(2)])
    snapshot(read(filled(tmp_path / "store", texts(9))), keys, tmp_path / "snapshot", 100)
    found = Reader.open(tmp_path / "snapshot")
    holds(found, 5)
    assert found.manifest.fingerprint == FIELDS
    assert list(found.signals.values()) == list(SIGNALS)
    assert sorted(path.name for path in (tmp_path / "snapshot").iterdir()) == ["manifests", "shards"]


def test_a_snapshot_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    reader = read(filled(tmp_path / "store", texts(2)))
    with pytest.raises(InputError, match="holds no answer for 1 of 3 texts"):
        snapshot(reader, entry_keys(texts(3)), tmp_path / "snapshot", 100)
    assert not (tmp_path / "snapshot").exists()


def test_a_snapshot_of_nothing_is_whole(tmp_path: Path) -> None:
    snapshot(read(filled(tmp_path / "store", texts(2))), entry_keys([]), tmp_path / "snapshot", 100)
    assert len(Reader.open(tmp_path / "snapshot")) == 0
