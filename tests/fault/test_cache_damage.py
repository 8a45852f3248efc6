"""Damage to a snapshot of the teacher cache: every changed byte is found, and its file is named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.shards import MANIFEST, SHARDS, DamagedCache, read_manifest
from stillroom.cache.store import Store
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, answers_of, texts, write_folder

FLIPS = 400


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Path]:
    """A snapshot of three shards; whole again at the end of a test, or the test proves nothing."""
    write_folder(tmp_path, 30, 10)
    assert len(Reader.open(tmp_path)) == 30
    yield tmp_path
    assert len(Reader.open(tmp_path)) == 30


def files(snapshot: Path) -> list[Path]:
    return [snapshot / MANIFEST, *sorted((snapshot / SHARDS).iterdir())]


def refused(snapshot: Path, damaged: Path, content: bytes | None) -> None:
    """Opening the snapshot with other bytes in a file is refused in one line that names the file."""
    original = damaged.read_bytes()
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    try:
        with pytest.raises(InputError) as caught:
            Reader.open(snapshot)
    finally:
        damaged.write_bytes(original)
    assert str(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)
    if damaged.name != MANIFEST:
        assert isinstance(caught.value, DamagedCache)


def test_every_flipped_bit_is_found(snapshot: Path) -> None:
    generator = np.random.default_rng(20)
    every = files(snapshot)
    for number in range(FLIPS):
        damaged = every[number % len(every)]
        content = bytearray(damaged.read_bytes())
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        refused(snapshot, damaged, bytes(content))


def test_every_byte_of_the_header_of_a_shard_counts(snapshot: Path) -> None:
    damaged = files(snapshot)[1]
    whole = damaged.read_bytes()
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        content = bytearray(whole)
        content[place] ^= 0xFF
        refused(snapshot, damaged, bytes(content))


def test_files_cut_grown_emptied_and_lost_are_found(snapshot: Path) -> None:
    for damaged in files(snapshot):
        whole = damaged.read_bytes()
        for content in (whole[:-2], whole[: len(whole) // 2], whole[:8], b"", b"\0" * len(whole), None):
            refused(snapshot, damaged, content)
        if damaged.name != MANIFEST:
            refused(snapshot, damaged, whole + b"\0")


def test_shards_that_changed_places_are_found(snapshot: Path) -> None:
    one, other = files(snapshot)[1:3]
    whole = one.read_bytes()
    one.write_bytes(other.read_bytes())
    with pytest.raises(DamagedCache, match=one.name):
        Reader.open(snapshot)
    one.write_bytes(whole)


def test_a_manifest_of_another_snapshot_is_found(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_folder(other, 31, 10)
    lost = read_manifest(other).shards[-1].name
    whole = (snapshot / MANIFEST).read_bytes()
    (snapshot / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    with pytest.raises(DamagedCache, match=f"{lost}: no such file, though the manifest lists it"):
        Reader.open(snapshot)
    (snapshot / MANIFEST).write_bytes(whole)


def test_a_store_loses_what_was_damaged_and_nothing_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(21)
    keys = entry_keys(texts(30))
    for number in range(20):
        store = Store(tmp_path / str(number), FIELDS)
        assert store.reader() is None
        for part in np.split(np.arange(30), 3):
            store.add(keys[part], answers_of(keys[part]))
        chosen = int(generator.integers(3))
        damaged = store.folder / SHARDS / read_manifest(store.folder).shards[chosen].name
        content = bytearray(damaged.read_bytes())
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        damaged.write_bytes(content)
        reader = store.reader()
        assert reader is not None
        lost = np.flatnonzero(reader.find(keys) < 0)
        assert lost.tolist() == list(range(10 * chosen, 10 * chosen + 10))
        kept = np.setdiff1d(np.arange(30), lost)
        np.testing.assert_array_equal(
            reader.read("logits", reader.locate(keys[kept], "texts")), answers_of(keys[kept])["logits"]
        )
