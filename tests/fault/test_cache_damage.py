"""Damage to a folder of the teacher cache: every changed byte is found, its file is named, and no answer is read."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stillroom.cache.identity import Keys, entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache
from stillroom.cache.store import Store
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, answers_of, encoded, newest_manifest, shard_files, texts, write_folder

FLIPS = 1000
"""Bytes that are changed, one at a time."""
STORES = 60
"""Stores that lose a shard each."""
ENTRIES, PER_SHARD = 30, 10
KEYS = entry_keys(texts(ENTRIES))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A teacher's folder of three shards; whole again at the end of a test, or the test proves nothing."""
    folder = tmp_path / "answers"
    write_folder(folder, ENTRIES, PER_SHARD)
    assert read_everything(folder) == []
    yield folder
    assert read_everything(folder) == []


def read_everything(folder: Path) -> list[InputError]:
    """Open a folder and read every answer of every signal, a shard at a time; the errors that are raised.

    An answer that is handed out must be the right one.
    """
    try:
        reader = Reader.open(folder)
    except InputError as error:
        return [error]
    errors = []
    positions = reader.find(KEYS)
    for rows in np.array_split(np.arange(ENTRIES), ENTRIES // PER_SHARD):
        known = rows[positions[rows] >= 0]
        for signal, values in answers_of(KEYS[known]).items():
            try:
                found = reader.read(signal, positions[known])
            except InputError as error:
                errors.append(error)
            else:
                np.testing.assert_array_equal(found, values)
    return errors


def refused(folder: Path, damaged: Path, content: bytes | None) -> None:
    """With other bytes in a file, opening or the first reading is refused in one line that names the file."""
    original = damaged.read_bytes()
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    try:
        errors = read_everything(folder)
        if errors and damaged.suffix != ".json":
            check_whole(folder, errors[0])
    finally:
        damaged.write_bytes(original)
    assert errors, damaged
    for error in errors:
        assert isinstance(error, DamagedCache)
        assert str(damaged) in str(error)
        assert "\n" not in str(error)


def check_whole(folder: Path, expected: InputError) -> None:
    """`verify` refuses what reading refuses, with the same words."""
    with pytest.raises(DamagedCache) as caught:
        Reader.open(folder).verify()
    assert str(caught.value) == str(expected)


def flipped(content: bytes, place: int, generator: np.random.Generator) -> bytes:
    """With any other value for one byte."""
    changed = bytearray(content)
    changed[place] ^= int(generator.integers(1, 256))
    return bytes(changed)


def bounds(shard: bytes) -> dict[str, tuple[int, int]]:
    """Where the parts of a shard begin and end."""
    header = 8 + int.from_bytes(shard[:8], "little")
    keys = header + 16 * PER_SHARD
    return {"header": (0, header), "keys": (header, keys), "answers": (keys, len(shard))}


def test_every_flipped_byte_is_found(folder: Path) -> None:
    generator = np.random.default_rng(20)
    shards, manifest = shard_files(folder), newest_manifest(folder)
    parts = [
        *((path, *span) for path in shards for span in bounds(path.read_bytes()).values()),
        *[(manifest, 0, manifest.stat().st_size)] * len(shards),
    ]
    for number in range(FLIPS):
        damaged, start, end = parts[number % len(parts)]
        place = int(generator.integers(start, end))
        refused(folder, damaged, flipped(damaged.read_bytes(), place, generator))


def test_every_byte_of_the_header_of_a_shard_counts(folder: Path) -> None:
    damaged = shard_files(folder)[1]
    whole = damaged.read_bytes()
    for place in range(bounds(whole)["header"][1]):
        content = bytearray(whole)
        content[place] ^= 0xFF
        refused(folder, damaged, bytes(content))


def test_damage_to_the_answers_of_a_shard_leaves_the_other_shards_readable(folder: Path) -> None:
    damaged = shard_files(folder)[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(flipped(whole, len(whole) - 1, np.random.default_rng(22)))
    reader = Reader.open(folder)
    lost = slice(PER_SHARD, 2 * PER_SHARD)
    with pytest.raises(DamagedCache, match=damaged.name):
        reader.read("logits", reader.find(KEYS[lost]))
    kept = np.delete(KEYS, lost, axis=0)
    np.testing.assert_array_equal(reader.read("logits", reader.find(kept)), answers_of(kept)["logits"])
    damaged.write_bytes(whole)


def test_files_cut_grown_emptied_and_lost_are_found(folder: Path) -> None:
    for damaged in (newest_manifest(folder), *shard_files(folder)):
        whole = damaged.read_bytes()
        for content in (whole[:-2], whole[: len(whole) // 2], whole[:8], b"", b"\0" * len(whole), whole + b"\0"):
            refused(folder, damaged, content)
        if damaged.suffix != ".json":
            refused(folder, damaged, None)


def test_a_lost_manifest_is_no_cache(folder: Path) -> None:
    manifest = newest_manifest(folder)
    whole = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(InputError, match="holds no manifests/, so it is no cache of a teacher's answers"):
        Reader.open(folder)
    manifest.write_bytes(whole)


def test_shards_that_changed_places_are_found(folder: Path) -> None:
    one, other = shard_files(folder)[:2]
    refused(folder, one, other.read_bytes())


def test_a_manifest_of_another_snapshot_is_found(folder: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "other", ENTRIES + 1, PER_SHARD)
    lost = shard_files(tmp_path / "other")[-1].name
    whole = newest_manifest(folder).read_bytes()
    newest_manifest(folder).write_bytes(newest_manifest(tmp_path / "other").read_bytes())
    with pytest.raises(DamagedCache, match=f"{lost}: no such file, though the manifest lists it"):
        Reader.open(folder)
    newest_manifest(folder).write_bytes(whole)


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[], Store]:
    """`stores()`: a store of three shards in a folder of its own."""
    whole = Store(tmp_path / "whole", FIELDS)
    assert whole.reader() is None
    for rows in np.array_split(np.arange(ENTRIES), ENTRIES // PER_SHARD):
        whole.add(KEYS[rows], encoded(answers_of(KEYS[rows])))

    def another() -> Store:
        root = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tmp_path / "whole", root)
        return Store(root, FIELDS)

    return another


def lost(store: Store) -> list[int]:
    """The rows without an answer; every other answer is the right one, and stays so when the store is read again."""
    reader = store.reader()
    assert reader is not None
    rows: NDArray[np.bool_] = reader.find(KEYS) < 0
    right(reader, KEYS[~rows])
    right(Reader.open(store.folder), KEYS[~rows])
    return np.flatnonzero(rows).tolist()


def right(reader: Reader, keys: Keys) -> None:
    for signal, values in answers_of(keys).items():
        np.testing.assert_array_equal(reader.read(signal, reader.locate(keys, "texts")), values)


def test_a_store_loses_the_shard_that_was_damaged_and_nothing_else(stores: Callable[[], Store]) -> None:
    generator = np.random.default_rng(21)
    for number in range(STORES):
        store = stores()
        chosen = number % (ENTRIES // PER_SHARD)
        damaged = shard_files(store.folder)[chosen]
        content = damaged.read_bytes()
        if number < STORES - 3:
            damaged.write_bytes(flipped(content, int(generator.integers(len(content))), generator))
        else:
            damaged.unlink()
        gone = list(range(PER_SHARD * chosen, PER_SHARD * (chosen + 1)))
        assert lost(store) == gone
        store.add(KEYS[gone], encoded(answers_of(KEYS[gone])))
        assert lost(store) == []


def test_a_store_loses_nothing_when_its_manifest_is_damaged(stores: Callable[[], Store]) -> None:
    generator = np.random.default_rng(23)
    for number in range(STORES):
        store = stores()
        damaged = newest_manifest(store.folder)
        content = damaged.read_bytes()
        cut = int(generator.integers(len(content)))
        damaged.write_bytes(flipped(content, cut, generator) if number % 2 else content[:cut])
        assert lost(store) == []
        assert newest_manifest(store.folder) > damaged, "a manifest that is whole counts from now on"
        assert lost(store) == []


def test_a_store_whose_manifest_is_anothers_makes_it_again(stores: Callable[[], Store], tmp_path: Path) -> None:
    other = Store(tmp_path / "other", {**FIELDS, "weights": "v" * 64})
    assert other.reader() is None
    other.add(KEYS, encoded(answers_of(KEYS)))
    store = stores()
    newest_manifest(store.folder).write_bytes(newest_manifest(other.folder).read_bytes())
    assert lost(store) == []


def test_damage_to_manifest_and_shard_at_once_loses_the_shard_alone(stores: Callable[[], Store]) -> None:
    store = stores()
    damaged = shard_files(store.folder)[2]
    for path in (damaged, newest_manifest(store.folder)):
        path.write_bytes(path.read_bytes()[:-1])
    assert lost(store) == list(range(2 * PER_SHARD, 3 * PER_SHARD))
