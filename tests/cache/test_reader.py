from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader, signals_at, unique_keys
from stillroom.cache.shards import DamagedCache, Manifest, write_manifest, write_shard
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, WIDTHS, answers_of, texts, write_folder

# keys that often share their first half, or differ in the last byte alone
crowded_keys = st.lists(
    st.tuples(st.sampled_from([0, 1, 255]), st.sampled_from([0, 1, 127, 128, 255])), min_size=1, max_size=12
).map(lambda pairs: np.array([[high] * 8 + [0] * 7 + [low] for high, low in pairs], np.uint8))


@given(stored=crowded_keys, asked=crowded_keys, cut=st.integers(1, 12))
def test_finding_equals_looking_up_in_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, stored: Any, asked: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    keys, _ = unique_keys(stored)
    keys = np.random.default_rng(0).permutation(keys)
    shards = tuple(write_shard(folder, part, answers_of(part)) for part in (keys[:cut], keys[cut:]) if len(part))
    write_manifest(folder, Manifest(fingerprint=FIELDS, widths=WIDTHS, shards=shards))
    places = {key.tobytes(): place for place, key in enumerate(keys)}
    found = Reader.open(folder).find(asked)
    assert found.tolist() == [places.get(key.tobytes(), -1) for key in asked]


@given(keys=crowded_keys)
def test_unique_keys_are_the_sorted_set_and_the_first_row_of_each(keys: Any) -> None:
    found, rows = unique_keys(keys)
    listed = [key.tobytes() for key in keys]
    assert [key.tobytes() for key in found] == sorted(set(listed))
    assert [listed.index(key.tobytes()) for key in found] == rows.tolist()


def test_unique_keys_of_nothing() -> None:
    found, rows = unique_keys(entry_keys([]))
    assert (found.shape, rows.shape) == ((0, 16), (0,))


@pytest.mark.parametrize("per_shard", [1, 7, 100])
def test_reading_in_any_order_equals_what_was_written(tmp_path: Path, per_shard: int) -> None:
    keys = write_folder(tmp_path, 40, per_shard)
    reader = Reader.open(tmp_path)
    assert len(reader) == 40
    generator = np.random.default_rng(1)
    for rows in (
        generator.permutation(40),
        generator.integers(0, 40, 100),
        np.array([39]),
        np.array([], int),
    ):
        signals = signals_at(reader, reader.locate(keys[rows], "rows"), list(WIDTHS))
        for name, values in answers_of(keys[rows]).items():
            assert signals[name].dtype == np.float32
            np.testing.assert_array_equal(signals[name], values)


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, 10, 5)
    asked = entry_keys([*texts(4), *texts(3, first=100)])
    with pytest.raises(InputError, match="holds no answer for 3 of 7 training rows; run the stage capture again"):
        Reader.open(tmp_path).locate(asked, "training rows")


def test_a_signal_that_is_not_kept_is_told_with_those_that_are(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    with pytest.raises(InputError, match=r"keeps logits, embedding, not hidden; add it to capture\.signals"):
        Reader.open(tmp_path).read("hidden", np.array([0]))


def test_a_key_that_stands_in_two_shards_is_refused(tmp_path: Path) -> None:
    keys = entry_keys(texts(4))
    one = write_shard(tmp_path, keys[:3], answers_of(keys[:3]))
    other = write_shard(tmp_path, keys[2:], answers_of(keys[2:]))
    write_manifest(tmp_path, Manifest(fingerprint=FIELDS, widths=WIDTHS, shards=(one, other)))
    with pytest.raises(DamagedCache, match="the same key stands twice"):
        Reader.open(tmp_path)


def test_opening_a_folder_without_a_manifest_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file"):
        Reader.open(tmp_path)


def test_a_reader_goes_on_while_the_store_grows(tmp_path: Path) -> None:
    keys = write_folder(tmp_path, 4, 2)
    reader = Reader.open(tmp_path)
    write_folder(tmp_path, 6, 3)
    np.testing.assert_array_equal(reader.read("logits", reader.locate(keys, "rows")), answers_of(keys)["logits"])
