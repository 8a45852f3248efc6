import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.shards import (
    MANIFEST,
    SHARDS,
    DamagedCache,
    Manifest,
    Shard,
    folder_of,
    map_shard,
    read_manifest,
    write_manifest,
    write_shard,
)
from stillroom.errors import InputError
from stillroom.files import sha256_file
from tests.cache.answers import FIELDS, WIDTHS, answers_of, texts, write_folder


def relist(folder: Path, **changes: Any) -> Manifest:
    """Write the manifest anew with changes and a digest that fits: what a forger would do."""
    manifest = Manifest.model_construct(**dict(read_manifest(folder)) | changes)
    write_manifest(folder, manifest)
    return manifest


def replaced(folder: Path, content: bytes) -> Path:
    """Put other bytes in the place of the first shard, with name, size and digests that fit."""
    manifest = read_manifest(folder)
    digest = hashlib.sha256(content).hexdigest()
    path = folder / SHARDS / f"{digest[:16]}.safetensors"
    path.write_bytes(content)
    entries = manifest.shards[0].entries
    shard = Shard(name=path.name, sha256=digest, entries=entries, bytes=len(content))
    relist(folder, shards=(shard, *manifest.shards[1:]))
    return path


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    keys = entry_keys(texts(7))
    shard = write_shard(tmp_path, keys, answers_of(keys))
    path = tmp_path / SHARDS / shard.name
    assert (shard.entries, shard.bytes, shard.sha256) == (7, path.stat().st_size, sha256_file(path))
    assert shard.name == f"{shard.sha256[:16]}.safetensors"
    found, signals = map_shard(tmp_path, shard, WIDTHS)
    np.testing.assert_array_equal(found, keys)
    for name, values in answers_of(keys).items():
        assert signals[name].dtype == np.float16
        np.testing.assert_array_equal(signals[name], values.astype(np.float16))


def test_a_mapped_shard_cannot_be_written_to(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    with pytest.raises(ValueError, match="read-only"):
        Reader.open(tmp_path).shards[0]["logits"][0] = 1


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    keys = entry_keys(texts(4))
    first = write_shard(tmp_path, keys, answers_of(keys))
    assert write_shard(tmp_path, keys, answers_of(keys)) == first
    assert [path.name for path in (tmp_path / SHARDS).iterdir()] == [first.name]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_are_not_stored(tmp_path: Path, bad: float) -> None:
    keys = entry_keys(texts(3))
    signals = answers_of(keys)
    signals["logits"][1, 2] = bad
    with pytest.raises(InputError, match="logits are not finite in 1 places"):
        write_shard(tmp_path, keys, signals)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_answers_beyond_fp16_are_not_stored(tmp_path: Path) -> None:
    keys = entry_keys(texts(3))
    signals = answers_of(keys)
    signals["embedding"][0, 0] = 7e4
    with pytest.raises(InputError, match="embedding exceed the range of fp16"):
        write_shard(tmp_path, keys, signals)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_their_keys_are_a_defect(tmp_path: Path) -> None:
    keys = entry_keys(texts(3))
    with pytest.raises(ValueError, match="logits has 2 rows for 3 keys"):
        write_shard(tmp_path, keys, {"logits": np.zeros((2, 3))})
    for wrong in (keys[:, :8], keys[:0], keys[0]):
        with pytest.raises(ValueError, match="expected"):
            write_shard(tmp_path, wrong, {})


def test_a_shard_that_no_manifest_lists_is_not_there(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    keys = entry_keys(texts(2, first=4))
    write_shard(tmp_path, keys, answers_of(keys))
    reader = Reader.open(tmp_path)
    assert len(reader) == 4
    assert (reader.find(keys) == -1).all()


def test_an_empty_folder_of_answers_is_whole(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest(fingerprint=FIELDS))
    reader = Reader.open(tmp_path)
    assert len(reader) == reader.manifest.entries == 0
    assert reader.find(entry_keys(["a"])).tolist() == [-1]


def test_folders_are_named_by_the_fingerprint(tmp_path: Path) -> None:
    one = folder_of(tmp_path, FIELDS)
    assert folder_of(tmp_path, dict(reversed(FIELDS.items()))) == one
    assert folder_of(tmp_path, FIELDS | {"precision": "bf16"}) != one
    assert one.parent == tmp_path


FIRST = {"name": "0" * 16 + ".safetensors", "sha256": "0" * 64, "entries": 2, "bytes": 10}


@pytest.mark.parametrize(
    "shard",
    [
        FIRST | {"name": "../../../etc/passwd"},
        FIRST | {"name": "../" + "0" * 16 + ".safetensors"},
        FIRST | {"name": "/etc/passwd"},
        FIRST | {"name": "0" * 16 + ".safetensors\n"},
        FIRST | {"name": "0" * 16 + ".pickle"},
        FIRST | {"name": ""},
        FIRST | {"sha256": "x"},
        FIRST | {"entries": 0},
        FIRST | {"entries": -1},
        FIRST | {"entries": 1.5},
        FIRST | {"bytes": -1},
        FIRST | {"more": 1},
        {"name": FIRST["name"]},
        None,
        "shard",
    ],
)
def test_a_manifest_with_a_hostile_shard_is_refused(tmp_path: Path, shard: Any) -> None:
    write_folder(tmp_path, 4, 2)
    raw = json.loads((tmp_path / MANIFEST).read_text())
    raw["shards"][0] = shard
    (tmp_path / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(DamagedCache, match=r"manifest\.json: not a cache manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "1", '"text"', "{}", '{"digest": "x"}', "[" * 100_000],
    ids=["list", "null", "number", "text", "empty", "digest alone", "deep"],
)
def test_json_that_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    write_folder(tmp_path, 4, 2)
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: not ") as caught:
        Reader.open(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["fingerprint"].update(precision="bf16"),
        lambda raw: raw["widths"].update(logits=4),
        lambda raw: raw["shards"].reverse(),
        lambda raw: raw["shards"].pop(),
        lambda raw: raw["shards"].append(raw["shards"][0]),
        lambda raw: raw["shards"][0].update(entries=3),
        lambda raw: raw.update(digest="0" * 64),
        lambda raw: raw.update(digest=None),
    ],
)
def test_a_manifest_that_was_edited_is_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    write_folder(tmp_path, 4, 2)
    raw = json.loads((tmp_path / MANIFEST).read_text())
    change(raw)
    (tmp_path / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(DamagedCache, match="do not match its digest"):
        read_manifest(tmp_path)


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    raw = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(raw | {"format": 2}))
    with pytest.raises(DamagedCache, match="not a cache manifest"):
        read_manifest(tmp_path)


def test_a_shard_behind_a_link_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    path = tmp_path / SHARDS / read_manifest(tmp_path).shards[1].name
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(DamagedCache, match=f"{path.name}: no such file"):
        Reader.open(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedCache, match=f"{path.name}: no such file"):
        Reader.open(tmp_path)


@pytest.mark.parametrize("entries", [1, 3, 2**40])
def test_a_count_of_entries_that_the_shard_does_not_hold_is_refused(tmp_path: Path, entries: int) -> None:
    write_folder(tmp_path, 4, 2)
    first, second = read_manifest(tmp_path).shards
    relist(tmp_path, shards=(first.model_copy(update={"entries": entries}), second))
    with pytest.raises(DamagedCache, match=first.name):
        Reader.open(tmp_path)


def test_widths_that_the_shard_does_not_hold_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    for widths in ({"logits": 3}, {**WIDTHS, "logits": 2**40}, {**WIDTHS, "hidden": 1}):
        relist(tmp_path, widths=widths)
        with pytest.raises(DamagedCache, match="the manifest promises"):
            Reader.open(tmp_path)


def test_the_same_shard_or_key_twice_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    shards = read_manifest(tmp_path).shards
    relist(tmp_path, shards=(*shards, shards[0]))
    with pytest.raises(DamagedCache, match="the same key stands twice"):
        Reader.open(tmp_path)


KEYS = entry_keys(texts(2))


def tensors(**changes: Any) -> bytes:
    arrays = {"keys": KEYS, **{name: value.astype(np.float16) for name, value in answers_of(KEYS).items()}}
    arrays |= changes
    return save({name: value for name, value in arrays.items() if value is not None})


def raw_header(header: Any, data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one_entry(**changes: Any) -> bytes:
    return raw_header({"keys": {"dtype": "U8", "shape": [2, 16], "data_offsets": [0, 32]} | changes})


FORGED = {
    "no keys": tensors(keys=None),
    "too few keys": tensors(keys=KEYS[:1]),
    "keys of another type": tensors(keys=KEYS.astype(np.float16)),
    "short keys": tensors(keys=np.zeros((2, 8), np.uint8)),
    "a signal lacks": tensors(logits=None),
    "a wide signal": tensors(logits=np.zeros((2, 4), np.float16)),
    "a signal of bytes": tensors(logits=np.zeros((2, 3), np.uint8)),
    "a signal of doubles": tensors(logits=np.zeros((2, 3), np.float64)),
    "NaN": tensors(logits=np.full((2, 3), np.nan, np.float16)),
    "infinity": tensors(logits=np.full((2, 3), -np.inf, np.float16)),
    "one more signal": tensors(more=np.zeros((2, 1), np.float16)),
    "a byte": b"x",
    "an empty header": raw_header({}),
    "a header that is a list": raw_header([]),
    "a header that is not JSON": raw_header(b"not json"),
    "a header that is not UTF-8": raw_header(b"\xff\xfe"),
    "an end beyond the file": one_entry(data_offsets=[0, 10**15]),
    "a start beyond the file": one_entry(data_offsets=[10**15, 10**15 + 32]),
    "a start before the data": one_entry(data_offsets=[-8, 24]),
    "an absurd shape": one_entry(shape=[2**40, 16]),
    "a negative shape": one_entry(shape=[-2, -16]),
    "an unknown type": one_entry(dtype="OBJ"),
    "half an entry": raw_header({"keys": {"shape": [2, 16]}}),
    "no entry": raw_header({"keys": None}),
    "an absurd header length": (2**63).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED.keys())
def test_a_forged_shard_that_fits_its_digest_is_still_refused(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path, 4, 2)
    path = replaced(tmp_path, content)
    with pytest.raises(DamagedCache, match=path.name) as caught:
        Reader.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_forger_can_write_a_shard_that_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    replaced(tmp_path, tensors())
    assert len(Reader.open(tmp_path)) == 4
