import os
from pathlib import Path

import pytest

from stillroom.data.sources import listing
from stillroom.data.sources.listing import read_listing
from stillroom.files import sha256_file, tree_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    for name in ("b.json", "a/c.json", "a.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_digests_are_those_of_tree_digest(folder: Path, tmp_path: Path) -> None:
    found = read_listing(folder, tmp_path / "seen")
    assert found.digest == tree_digest(folder)
    assert set(found.files) == {"b.json", "a/c.json", "a.json"}
    single = read_listing(folder / "b.json", tmp_path / "seen")
    assert (single.digest, single.files) == (tree_digest(folder / "b.json"), {"b.json": single.digest})


def test_unchanged_files_are_read_once_and_changed_ones_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(listing, "_RACY_NS", -(10**18))
    monkeypatch.setattr(listing, "sha256_file", lambda path: (read.append(path.name), sha256_file(path))[1])
    first = read_listing(folder, tmp_path / "seen")
    assert sorted(read) == ["a.json", "b.json", "c.json"]
    assert read_listing(folder, tmp_path / "seen") == first
    assert len(read) == 3
    before = (folder / "b.json").stat()
    (folder / "b.json").write_text("B.JSON")
    os.utime(folder / "b.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_listing(folder, tmp_path / "seen").digest == tree_digest(folder) != first.digest
    assert read[3:] == ["b.json"], "same size and time of change, other inode change time"


def test_a_file_just_written_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    read_listing(folder, tmp_path / "seen")
    (folder / "b.json").write_text("B.JSON")
    assert read_listing(folder, tmp_path / "seen").digest == tree_digest(folder)


def test_a_damaged_memory_costs_time_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_RACY_NS", -(10**18))
    read_listing(folder, tmp_path / "seen")
    for content in ("", "[]", '{"files": {"b.json": 3}}'):
        for record in (tmp_path / "seen").iterdir():
            record.write_text(content)
        assert read_listing(folder, tmp_path / "seen").digest == tree_digest(folder)
