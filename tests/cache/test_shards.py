import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from stillroom.cache.codecs import PerToken, asked_for
from stillroom.cache.identity import entry_keys, folder_name
from stillroom.cache.manifest import Kept, Manifest, Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache, MappedShard, Shard, describe, halves, joined, write_shard
from stillroom.files import sha256_file
from stillroom.storage import Folder
from tests.cache.answers import FIELDS, SIGNALS, WIDTHS, answers_of, encoded, shard_files, texts, write_folder

TEACHER = folder_name(FIELDS)
READ = {signal: WIDTHS[signal.name] for signal in SIGNALS}
KEYS = entry_keys(texts(2))
HIGH, LOW = halves(KEYS[np.lexsort(halves(KEYS)[::-1])])


def write(folder: Path, count: int = 7, first: int = 0) -> Shard:
    keys = entry_keys(texts(count, first))
    return write_shard(folder, TEACHER, keys, encoded(answers_of(keys)))


def mapped(folder: Path, shard: Shard) -> MappedShard:
    return MappedShard(folder, TEACHER, shard, READ)


def relist(folder: Path, **changes: Any) -> None:
    """Let a changed manifest count whose digest fits: what a forger would do."""
    Manifests(Folder(folder)).change(lambda latest: latest.model_copy(update=changes))


def replaced(folder: Path, content: bytes) -> Path:
    """Put other bytes in the place of the first shard, with a name and digests that fit."""
    first, *others = Manifests(Folder(folder)).latest().shards
    header = min(int.from_bytes(content[:8], "little"), len(content))
    head_bytes = max(8 + header + 16 * first.entries, 8)
    shard = Shard(
        sha256=hashlib.sha256(content).hexdigest(),
        head=hashlib.sha256(content[:head_bytes]).hexdigest(),
        head_bytes=head_bytes,
        entries=first.entries,
        bytes=max(len(content), 8),
    )
    path = folder / shard.name
    path.write_bytes(content)
    relist(folder, shards=(shard, *others))
    return path


def test_keys_come_back_from_their_halves_and_sort_as_bytes_do() -> None:
    keys = entry_keys(texts(50))
    high, low = halves(keys)
    np.testing.assert_array_equal(joined(high, low), keys)
    order = np.lexsort((low, high))
    assert [keys[row].tobytes() for row in order] == sorted(key.tobytes() for key in keys)


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    shard = write(tmp_path)
    path = tmp_path / shard.name
    assert path == tmp_path / f"shards/{sha256_file(path)}.safetensors"
    assert (shard.entries, shard.bytes, shard.sha256) == (7, path.stat().st_size, sha256_file(path))
    assert shard.head == hashlib.sha256(path.read_bytes()[: shard.head_bytes]).hexdigest()
    found = mapped(tmp_path, shard)
    assert {key.tobytes() for key in found.keys} == {key.tobytes() for key in entry_keys(texts(7))}
    for signal in SIGNALS:
        parts = found.encoded(signal.name)
        assert parts[""].dtype == np.float16
        np.testing.assert_array_equal(signal.codec.decode(parts), answers_of(found.keys)[signal.name])


def test_every_kind_of_signal_comes_back(tmp_path: Path) -> None:
    signals = asked_for(("logits", "embedding:int8", "hidden.1", "hidden.10:int8"))
    keys, lengths = entry_keys(texts(5)), np.array([2, 0, 3, 1, 1])
    vectors = answers_of(keys)
    tokens = PerToken(np.repeat(vectors["embedding"], lengths, axis=0), lengths)
    values: dict[str, Any] = {**vectors, "hidden.1": tokens, "hidden.10": tokens}
    answers = {signal: signal.codec.encode(values[signal.name]) for signal in signals}
    shard = write_shard(tmp_path, TEACHER, keys, answers)
    found = MappedShard(tmp_path, TEACHER, shard, {signal: 3 if signal.name == "logits" else 5 for signal in signals})
    order = np.lexsort(halves(keys)[::-1])
    np.testing.assert_array_equal(found.keys, keys[order])
    for signal in signals:
        expected = signal.codec.take(answers[signal], order)
        assert set(found.encoded(signal.name)) == set(expected)
        for part, array in expected.items():
            np.testing.assert_array_equal(found.encoded(signal.name)[part], array)


def test_a_mapped_shard_cannot_be_written_to(tmp_path: Path) -> None:
    found = mapped(tmp_path, write(tmp_path))
    for array in (found.encoded("logits")[""], found.high):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_same_content_in_any_order_is_the_same_file(tmp_path: Path) -> None:
    first = write(tmp_path)
    keys = entry_keys(texts(7)[::-1])
    assert write_shard(tmp_path, TEACHER, keys, dict(reversed(encoded(answers_of(keys)).items()))) == first
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [Path(first.name).name]


def test_rows_that_do_not_fit_their_keys_are_a_defect(tmp_path: Path) -> None:
    keys = entry_keys(texts(3))
    answers = encoded(answers_of(keys))
    for wrong in (keys[:2], keys[[0, 1, 2, 0]], keys[:0], keys[0], keys[:, :8]):
        with pytest.raises(ValueError, match=r"promised|expected|greater|reshape"):
            write_shard(tmp_path, TEACHER, wrong, answers)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_no_manifest_lists_is_not_there(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    write(tmp_path, 2, first=4)
    reader = Reader.open(tmp_path)
    assert len(reader) == 4
    assert (reader.find(entry_keys(texts(2, first=4))) == -1).all()


def test_a_shard_tells_by_itself_what_a_manifest_says_of_it(tmp_path: Path) -> None:
    shard = write(tmp_path)
    found = describe(tmp_path / shard.name)
    assert (found.shard, found.teacher, found.widths) == (shard, TEACHER, WIDTHS)


def test_a_file_whose_content_is_not_what_its_name_says_is_not_described(tmp_path: Path) -> None:
    path = tmp_path / write(tmp_path).name
    other = path.rename(path.with_name(f"{'0' * 64}.safetensors"))
    with pytest.raises(DamagedCache, match="its content is not what its name says"):
        describe(other)
    path.symlink_to(other)
    with pytest.raises(DamagedCache, match="its content is not what its name says"):
        describe(path)


def test_only_the_head_of_a_shard_is_read_until_its_answers_are(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    _, second = shard_files(tmp_path)
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    reader = Reader.open(tmp_path)
    reader.read("logits", np.array([0, 1]))
    with pytest.raises(DamagedCache, match=f"{second.name}: differs from what was captured"):
        reader.read("logits", np.array([2]))
    with pytest.raises(DamagedCache, match=second.name):
        Reader.open(tmp_path).verify()


def test_answers_of_another_teacher_are_refused(tmp_path: Path) -> None:
    shard = write(tmp_path)
    with pytest.raises(DamagedCache, match=f"{shard.sha256}.*it holds the answers of another teacher"):
        MappedShard(tmp_path, "0" * 32, shard, READ)


def test_a_shard_behind_a_link_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    path = shard_files(tmp_path)[1]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(DamagedCache, match=f"{path.name}: no such file"):
        Reader.open(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedCache, match=f"{path.name}: no such file"):
        Reader.open(tmp_path)


@pytest.mark.parametrize(
    "change", [{"entries": 1}, {"entries": 3}, {"entries": 2**20}, {"head_bytes": 8}, {"head": "0" * 64}, {"bytes": 9}]
)
def test_figures_that_are_not_the_shards_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_folder(tmp_path, 4, 2)
    first, second = Manifests(Folder(tmp_path)).latest().shards
    relist(tmp_path, shards=(first.model_copy(update=change), second))
    with pytest.raises(DamagedCache, match=f"{first.sha256}.*: differs from what was captured"):
        Reader.open(tmp_path)


@pytest.mark.parametrize("widths", [{"logits": 4}, {"logits": 2**23}, {"embedding": 1}])
def test_widths_that_the_shard_does_not_hold_are_refused(tmp_path: Path, widths: dict[str, int]) -> None:
    write_folder(tmp_path, 4, 2)
    signals = {name: Kept(codec="fp16/1", width=width) for name, width in {**WIDTHS, **widths}.items()}
    relist(tmp_path, signals=signals)
    with pytest.raises(DamagedCache, match="are promised"):
        Reader.open(tmp_path).verify()


@pytest.mark.parametrize("asked", [("logits",), ("logits", "embedding:int8"), ("logits", "embedding", "hidden.1")])
def test_signals_that_the_shard_does_not_hold_are_refused(tmp_path: Path, asked: tuple[str, ...]) -> None:
    shard = write(tmp_path)
    signals = {signal: WIDTHS.get(signal.name, 5) for signal in asked_for(asked)}
    with pytest.raises(DamagedCache, match=rf"{shard.sha256}.*(it holds|are promised|no lengths)"):
        MappedShard(tmp_path, TEACHER, shard, signals).verify()


def about(**changes: Any) -> dict[str, str]:
    return {"stillroom": json.dumps({"teacher": TEACHER, "widths": WIDTHS} | changes, sort_keys=True)}


def tensors(metadata: dict[str, str] | None = None, **changes: Any) -> bytes:
    values = {name: array.astype(np.float16) for name, array in answers_of(joined(HIGH, LOW)).items()}
    arrays = {"high": HIGH, "low": LOW, **values} | changes
    kept = {name: array for name, array in arrays.items() if array is not None}
    return bytes(save(kept, about() if metadata is None else metadata))


def raw_header(header: Any, data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one_entry(**changes: Any) -> bytes:
    high = {"dtype": "U64", "shape": [2], "data_offsets": [0, 16]} | changes
    low = {"dtype": "U64", "shape": [2], "data_offsets": [16, 32]}
    return raw_header({"__metadata__": about(), "high": high, "low": low}, b"\0" * 32)


FORGED = {
    "no keys": tensors(high=None),
    "half of the keys": tensors(low=None),
    "too few keys": tensors(high=HIGH[:1]),
    "keys of another type": tensors(high=HIGH.astype(np.float64)),
    "keys of signed numbers": tensors(low=LOW.astype(np.int64)),
    "keys in descending order": tensors(high=HIGH[::-1].copy(), low=LOW[::-1].copy()),
    "a key twice": tensors(high=HIGH[[0, 0]], low=LOW[[0, 0]]),
    "a signal lacks": tensors(logits=None),
    "a wide signal": tensors(logits=np.zeros((2, 4), np.float16)),
    "a short signal": tensors(logits=np.zeros((1, 3), np.float16)),
    "a signal of bytes": tensors(logits=np.zeros((2, 3), np.int8)),
    "a signal of doubles": tensors(logits=np.zeros((2, 3), np.float64)),
    "NaN": tensors(logits=np.full((2, 3), np.nan, np.float16)),
    "infinity": tensors(logits=np.full((2, 3), -np.inf, np.float16)),
    "one more signal": tensors(more=np.zeros((2, 1), np.float16)),
    "one more part": tensors(**{"logits:scale": np.zeros(2, np.float32)}),
    "another teacher": tensors(about(teacher="0" * 32)),
    "no teacher": tensors({"stillroom": "{}"}),
    "a list for the teacher": tensors({"stillroom": "[]"}),
    "metadata that are not JSON": tensors({"stillroom": "{"}),
    "deep metadata": tensors({"stillroom": "[" * 100_000}),
    "no metadata": tensors({}),
    "a byte": b"x",
    "an empty header": raw_header({}),
    "a header that is a list": raw_header([]),
    "a header that is not JSON": raw_header(b"not json"),
    "a header that is not UTF-8": raw_header(b"\xff\xfe"),
    "a deep header": raw_header(b"[" * 100_000),
    "an end beyond the file": one_entry(data_offsets=[0, 10**15]),
    "a start beyond the file": one_entry(data_offsets=[10**15, 10**15 + 16]),
    "a start before the data": one_entry(data_offsets=[-8, 8]),
    "an absurd shape": one_entry(shape=[2**40]),
    "a negative shape": one_entry(shape=[-2]),
    "an unknown type": one_entry(dtype="OBJ"),
    "half an entry": raw_header({"high": {"shape": [2]}}),
    "no entry": raw_header({"high": None}),
    "an absurd header length": (2**63).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED.keys())
def test_a_forged_shard_that_fits_its_digests_is_still_refused(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path, 4, 2)
    path = replaced(tmp_path, content)
    with pytest.raises(DamagedCache, match=path.name) as caught:
        Reader.open(tmp_path).verify()
    assert "\n" not in str(caught.value)


def test_the_forger_can_write_a_shard_that_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, 4, 2)
    replaced(tmp_path, tensors())
    reader = Reader.open(tmp_path)
    reader.verify()
    np.testing.assert_array_equal(reader.read("logits", reader.find(KEYS)), answers_of(KEYS)["logits"])


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in FORGED if "header" in name or "metadata" in name),
        *("no keys", "no teacher", "a list for the teacher", "a byte", "half an entry", "no entry"),
    ],
)
def test_a_file_that_does_not_tell_what_it_is_is_not_described(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{hashlib.sha256(FORGED[name]).hexdigest()}.safetensors"
    path.write_bytes(FORGED[name])
    with pytest.raises(DamagedCache, match=f"{path.name}: not a shard of the cache"):
        describe(path)


def test_an_empty_folder_of_answers_is_whole(tmp_path: Path) -> None:
    Manifests(Folder(tmp_path), Manifest(fingerprint={})).change(lambda _: Manifest(fingerprint=FIELDS))
    reader = Reader.open(tmp_path)
    reader.verify()
    assert len(reader) == 0
    assert reader.find(entry_keys(["a"])).tolist() == [-1]
