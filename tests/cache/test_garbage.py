import os
import time
from pathlib import Path

import pytest

from stillroom.cache.garbage import GRACE_S, collect, unlisted
from stillroom.cache.identity import entry_keys, folder_name
from stillroom.cache.manifest import Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache, write_shard
from stillroom.cache.store import Store
from stillroom.errors import Absent
from stillroom.storage import Folder
from tests.cache.answers import (
    FIELDS,
    add,
    answers_of,
    encoded,
    holds,
    newest_manifest,
    read,
    shard_files,
    texts,
    write_folder,
)


def age(path: Path, seconds: float = 2 * GRACE_S) -> Path:
    written = time.time() - seconds
    os.utime(path, (written, written))
    return path


def age_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        age(path)


def left_over(folder: Path, first: int = 100) -> Path:
    """A shard that its writer did not come to list."""
    keys = entry_keys(texts(3, first))
    return folder / write_shard(folder, folder_name(FIELDS), keys, encoded(answers_of(keys))).name


def collected(folder: Path, grace_s: float = GRACE_S) -> dict[str, int]:
    return collect(Folder(folder), Manifests(Folder(folder)), grace_s)


def test_what_is_listed_stays_however_old_it_is(tmp_path: Path) -> None:
    write_folder(tmp_path, 9, 3)
    age_all(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert collected(tmp_path) == {}
    assert sorted(tmp_path.rglob("*")) == before
    Reader.open(tmp_path).verify()


def test_what_is_not_listed_goes_when_it_is_old(tmp_path: Path) -> None:
    write_folder(tmp_path, 9, 3)
    age_all(tmp_path)
    old, young = age(left_over(tmp_path)), age(left_over(tmp_path, 200), GRACE_S - 60)
    size = old.stat().st_size
    assert unlisted(Folder(tmp_path), Manifests(Folder(tmp_path)), GRACE_S) == {f"shards/{old.name}": size}
    assert old.exists(), "who only looks removes nothing"
    assert collected(tmp_path) == {f"shards/{old.name}": size}
    assert not old.exists()
    assert young.exists()
    assert list(collected(tmp_path, GRACE_S - 120)) == [f"shards/{young.name}"]
    assert len(Reader.open(tmp_path)) == 9


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    left = [
        tmp_path / folder / f".{name}.0a1b2c3d.tmp"
        for folder, name in (("shards", shard_files(tmp_path)[0].name), ("manifests", "00000002.json"))
    ]
    for path in left:
        path.write_bytes(b"half of it")
    assert collected(tmp_path) == {}
    assert all(path.exists() for path in left)
    for path in left:
        age(path)
    collected(tmp_path)
    assert not any(path.exists() for path in left)
    assert len(Reader.open(tmp_path)) == 3


def test_what_a_writer_lists_meanwhile_stays(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    path = age(left_over(tmp_path))
    keys = entry_keys(texts(3, 100))

    class Overtaken(Folder):
        def modified(self, name: str) -> float:
            found = super().modified(name)
            if name.endswith(path.name):
                shard = write_shard(tmp_path, folder_name(FIELDS), keys, encoded(answers_of(keys)))
                Manifests(Folder(tmp_path)).change(lambda latest: latest.with_shards(shard))
            return found

    assert collect(Overtaken(tmp_path), Manifests(Folder(tmp_path))) == {}
    assert len(Reader.open(tmp_path)) == 6


def test_what_another_collector_removes_meanwhile_is_no_error(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    age(left_over(tmp_path))

    class Overtaken(Folder):
        def modified(self, name: str) -> float:
            self.remove(name)
            raise Absent(name)

    assert collect(Overtaken(tmp_path), Manifests(Folder(tmp_path))) == {}


def test_a_temporary_that_its_writer_finishes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, 3, 3)
    temporary = tmp_path / "shards" / ".name.0a1b2c3d.tmp"
    temporary.touch()
    stat = Path.stat

    def finished(self: Path, **options: bool) -> os.stat_result:
        if self == temporary:
            temporary.unlink(missing_ok=True)
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", finished)
    assert collected(tmp_path) == {}


def test_nothing_is_removed_while_the_manifest_is_not_what_was_written(tmp_path: Path) -> None:
    write_folder(tmp_path, 6, 3)
    left_over(tmp_path)
    age_all(tmp_path)
    newest = newest_manifest(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-3])
    with pytest.raises(DamagedCache, match=newest.name):
        collected(tmp_path)
    assert len(list((tmp_path / "shards").iterdir())) == 3


def test_merged_shards_go_when_they_are_old_and_no_manifest_that_is_kept_lists_them(tmp_path: Path) -> None:
    store = Store(tmp_path, FIELDS)
    for first in range(0, 12, 2):
        add(store, *texts(2, first))
    small = shard_files(store.folder)
    store.compact(100)
    assert len(shard_files(store.folder)) == 1
    age_all(store.folder)
    store.collect()
    assert all(path.exists() for path in small), "a reader may have the manifest before in hand"
    for first in range(12, 20):
        add(store, *texts(1, first))
    for path in small[1:]:
        age(path)
    age(small[0], 60)
    store.collect()
    assert [path.exists() for path in small] == [True, *[False] * 5]
    holds(read(store), 20)
