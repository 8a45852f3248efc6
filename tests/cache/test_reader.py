from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.cache.codecs import PerToken, asked_for, recorded
from stillroom.cache.identity import Keys, entry_keys, folder_name
from stillroom.cache.manifest import Kept, Manifest, Manifests
from stillroom.cache.reader import Reader, cosine, unique_keys
from stillroom.cache.shards import DamagedCache, Shard, write_shard
from stillroom.errors import InputError
from stillroom.storage import Folder
from tests.cache.answers import FIELDS, SIGNALS, WIDTHS, Array, answers_of, encoded, texts, write_folder

# keys that often share their first half, or differ in the last byte alone
crowded_keys = st.lists(
    st.tuples(st.sampled_from([0, 1, 255]), st.sampled_from([0, 1, 127, 128, 255])), min_size=1, max_size=12
).map(lambda pairs: np.array([[high] * 8 + [0] * 7 + [low] for high, low in pairs], np.uint8))


def relist(folder: Path, *shards: Shard) -> Reader:
    """A folder of some shards, opened."""
    kept = {signal.name: Kept(codec=signal.codec.label, width=WIDTHS[signal.name]) for signal in SIGNALS}
    manifest = Manifest(fingerprint=FIELDS, signals=kept, shards=shards)
    Manifests(Folder(folder), Manifest(fingerprint=FIELDS)).change(lambda _: manifest)
    return Reader.open(folder)


def write(folder: Path, keys: Keys, answers: dict[str, Array] | None = None) -> Shard:
    return write_shard(folder, folder_name(FIELDS), keys, encoded(answers or answers_of(keys)))


@given(stored=crowded_keys, asked=crowded_keys, cut=st.integers(1, 12))
def test_finding_equals_looking_up_in_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, stored: Any, asked: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    keys, _ = unique_keys(stored)
    keys = np.random.default_rng(0).permutation(keys)
    reader = relist(folder, *(write(folder, part) for part in (keys[:cut], keys[cut:]) if len(part)))
    places = {key.tobytes(): at for at, key in enumerate(np.concatenate([shard.keys for shard in reader.shards]))}
    assert reader.find(asked).tolist() == [places.get(key.tobytes(), -1) for key in asked]
    found = asked[reader.find(asked) >= 0]
    values = reader.read("embedding", reader.locate(found, "keys"))
    np.testing.assert_array_equal(values, answers_of(found)["embedding"])


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
    for rows in (generator.permutation(40), generator.integers(0, 40, 100), np.array([39]), np.array([], int)):
        positions = reader.locate(keys[rows], "rows")
        for name, values in answers_of(keys[rows]).items():
            found = reader.read(name, positions)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("per_shard", [2, 9])
def test_tokens_are_read_in_any_order(tmp_path: Path, per_shard: int) -> None:
    signals = asked_for(("logits", "hidden.1", "hidden.2:int8"))
    fields = {"signals": recorded(signals)}
    keys, lengths = entry_keys(texts(9)), np.array([3, 1, 0, 2, 4, 1, 5, 2, 1])
    states = np.random.default_rng(2).standard_normal((19, 4)).astype(np.float32)
    every = np.split(states, np.cumsum(lengths)[:-1])
    shards = []
    for rows in np.split(np.arange(9), range(per_shard, 9, per_shard)):
        tokens = PerToken(np.concatenate([every[row] for row in rows]), lengths[rows])
        values: dict[str, Any] = {"logits": answers_of(keys[rows])["logits"], "hidden.1": tokens, "hidden.2": tokens}
        answers = {signal: signal.codec.encode(values[signal.name]) for signal in signals}
        shards.append(write_shard(tmp_path, folder_name(fields), keys[rows], answers))
    kept = {signal.name: Kept(codec=signal.codec.label, width=4 if signal.layer else 3) for signal in signals}
    manifest = Manifest(fingerprint=fields, signals=kept, shards=tuple(shards))
    Manifests(Folder(tmp_path), Manifest(fingerprint={})).change(lambda _: manifest)
    reader = Reader.open(tmp_path)
    for asked in ([4, 2, 2, 8, 0], list(range(9)), [6], []):
        expected = np.concatenate([np.zeros((0, 4)), *(every[row] for row in asked)])
        for name, error in (("hidden.1", 2e-3), ("hidden.2", 2e-2)):
            found = reader.read_tokens(name, reader.locate(keys[asked], "texts"))
            assert found.lengths.tolist() == lengths[asked].tolist()
            np.testing.assert_allclose(found.values, expected, atol=error)


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, 10, 5)
    asked = entry_keys([*texts(4), *texts(3, first=100)])
    with pytest.raises(InputError, match="holds no answer for 3 of 7 training rows; run the stage capture again"):
        Reader.open(tmp_path).locate(asked, "training rows")


def test_a_signal_that_is_not_kept_is_told_with_those_that_are(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, 3)
    with pytest.raises(InputError, match=r"keeps embedding, logits, not hidden\.2; add it to capture\.signals"):
        Reader.open(tmp_path).read("hidden.2", np.array([0]))


def test_a_key_that_stands_in_two_shards_is_one_entry(tmp_path: Path) -> None:
    keys = entry_keys(texts(6))
    reader = relist(tmp_path, write(tmp_path, keys[:4]), write(tmp_path, keys[2:]), write(tmp_path, keys[3:5]))
    assert len(reader) == 6
    positions = reader.find(keys)
    assert (positions[:4] < 4).all(), "it is read from the first"
    np.testing.assert_array_equal(reader.read("logits", positions), answers_of(keys)["logits"])


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_shards_of_any_ranges_are_read_as_one_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr("stillroom.cache.reader._COMPARED_KEYS", at_a_time)
    keys = entry_keys(texts(60))
    generator = np.random.default_rng(at_a_time)
    parts = [generator.choice(60, size=size, replace=False) for size in (1, 13, 40, 20, 7)]
    reader = relist(tmp_path, *(write(tmp_path, keys[part]) for part in parts))
    there = np.unique(np.concatenate(parts))
    assert len(reader) == len(there)
    positions = reader.find(keys)
    assert np.flatnonzero(positions >= 0).tolist() == there.tolist()
    first = {row: number for number, part in reversed(list(enumerate(parts))) for row in part}
    owners = np.searchsorted(reader.starts, positions[there], side="right") - 1
    assert owners.tolist() == [first[row] for row in there]
    np.testing.assert_array_equal(reader.read("logits", positions[there]), answers_of(keys[there])["logits"])


def test_answers_that_differ_by_the_order_of_sums_are_one_answer(tmp_path: Path) -> None:
    keys = entry_keys(texts(4))
    again = {name: values * 1.01 for name, values in answers_of(keys).items()}
    assert len(relist(tmp_path, write(tmp_path, keys), write(tmp_path, keys, again))) == 4


def test_two_answers_to_one_content_are_refused_and_both_shards_named(tmp_path: Path) -> None:
    keys = entry_keys(texts(6))
    other = answers_of(keys[3:])
    other["logits"][1] *= -1
    one, two = write(tmp_path, keys[:5]), write(tmp_path, keys[3:], other)
    with pytest.raises(DamagedCache, match="hold different answers for one content") as caught:
        relist(tmp_path, one, two)
    assert one.sha256 in str(caught.value)
    assert two.sha256 in str(caught.value)


def test_cosines_of_rows() -> None:
    one = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [np.nan, 1.0], [0.0, 0.0]])
    other = np.array([[0.0, 3.0], [2.0, 2.0], [-1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosine(one, other), [0, 1, -1, np.nan, 0], atol=1e-12)


def test_what_is_no_cache_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no manifests/, so it is no cache of a teacher's answers"):
        Reader.open(tmp_path)
    with pytest.raises(InputError, match="no such folder; run the stage capture first"):
        Reader.open(tmp_path / "missing")


def test_a_reader_goes_on_while_the_store_grows(tmp_path: Path) -> None:
    keys = write_folder(tmp_path, 4, 2)
    reader = Reader.open(tmp_path)
    write_folder(tmp_path, 6, 3)
    assert len(reader) == 4
    np.testing.assert_array_equal(reader.read("logits", reader.locate(keys, "rows")), answers_of(keys)["logits"])
    assert len(Reader.open(tmp_path)) == 6
