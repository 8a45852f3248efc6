import json
from pathlib import Path

import pytest

from stillroom.cache.audit import audit
from stillroom.cache.identity import folder_name
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, newest_manifest, shard_files, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 answers in three shards, below the root of a store."""
    write_folder(tmp_path / folder_name(FIELDS), 30, 10)
    return tmp_path / folder_name(FIELDS)


def test_a_whole_folder(folder: Path) -> None:
    found = audit(str(folder))
    assert (found.entries, found.shards, found.damaged, found.manifests) == (30, 3, (), ())
    assert found.fingerprint == FIELDS


def test_every_damaged_shard_is_named(folder: Path) -> None:
    first, second, third = shard_files(folder)
    first.write_bytes(first.read_bytes()[:-1])
    third.unlink()
    found = audit(str(folder))
    assert found.entries == 10
    assert [str(path) in line for path, line in zip((first, third), found.damaged, strict=True)] == [True, True]
    assert not any(second.name in line for line in found.damaged)


def test_a_damaged_manifest_is_named_and_so_are_the_shards_it_told_of(folder: Path) -> None:
    path = newest_manifest(folder)
    path.write_bytes(path.read_bytes().replace(b"w", b"v", 1))
    shard = min((folder / "shards").iterdir())
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    found = audit(str(folder))
    assert found.manifests == (f"manifests/{path.name}",)
    assert [name in line for name, line in zip((path.name, shard.name), found.damaged, strict=True)] == [True, True]
    assert found.fingerprint is None


def test_shards_without_a_manifest_are_no_whole_cache(folder: Path) -> None:
    newest_manifest(folder).unlink()
    assert audit(str(folder)).damaged == (f"{folder}: its manifest is missing",)


def test_a_folder_under_another_name_is_found(folder: Path) -> None:
    other = folder.rename(folder.with_name("0" * 32))
    assert audit(str(other)).damaged == (f"{other}: its manifest is of the teacher {folder_name(FIELDS)}",)


def test_a_codec_of_another_version_is_told_with_the_file(folder: Path) -> None:
    from stillroom.cache.manifest import Kept, Manifests, encode
    from stillroom.storage import Folder

    manifest = Manifests(Folder(folder)).latest()
    kept = {**manifest.signals, "logits": Kept(codec="fp16/9", width=3)}
    path = newest_manifest(folder)
    path.write_bytes(encode(manifest.model_copy(update={"signals": kept})))
    assert json.loads(path.read_text())["signals"]["logits"]["codec"] == "fp16/9"
    [line] = audit(str(folder)).damaged
    assert line.startswith(f"{path}: the signal logits is stored by the codec 'fp16/9'; this version reads")


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="so it is no cache"):
        audit(str(tmp_path))
