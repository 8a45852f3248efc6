"""A folder of answers that an enemy has made, every digest right: refused with the reason, nothing outside touched."""

import hashlib
import json
import os
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from stillroom.cache.codecs import asked_for, recorded
from stillroom.cache.identity import Keys, entry_keys, folder_name
from stillroom.cache.reader import Reader
from stillroom.cache.shards import halves
from stillroom.cache.store import Store
from stillroom.errors import InputError
from tests.cache.answers import texts

pytestmark = pytest.mark.timeout(60)

KINDS = asked_for(("logits", "embedding:int8", "hidden.1"))
FIELDS: dict[str, Any] = {"weights": "w" * 64, "precision": "fp32", "signals": recorded(KINDS)}
TEACHER = folder_name(FIELDS)
WIDTHS = {"logits": 3, "embedding": 4, "hidden.1": 2}
KEYS = entry_keys(texts(40))
MOST_SECONDS = 5.0
MOST_BYTES = 80 << 20
_HUGE = 2**40

Arrays = dict[str, Any]
Fields = dict[str, Any]


def arrays_of(keys: Keys) -> Arrays:
    """What a shard of the teacher holds, with one token per text; the values are a function of the key."""
    keys = keys[np.lexsort(halves(keys)[::-1])]
    high, low = halves(keys)
    numbers = keys.astype(np.float16)
    return {
        "high": high,
        "low": low,
        "logits": np.ascontiguousarray(numbers[:, :3] - 128),
        "embedding": np.ascontiguousarray(keys[:, 3:7]).view(np.int8),
        "embedding:scale": np.full(len(keys), 0.5, np.float32),
        "hidden.1": np.ascontiguousarray(numbers[:, 7:9]),
        "hidden.1:lengths": np.ones(len(keys), np.int32),
    }


def about(**changes: Any) -> dict[str, str]:
    return {"stillroom": json.dumps({"teacher": TEACHER, "widths": WIDTHS} | changes, sort_keys=True)}


def place(folder: Path, content: bytes, entries: int, **changes: Any) -> Fields:
    """Put a shard under its right name; what a manifest says of it, with the right digests and some changes."""
    head_bytes = 8 + int.from_bytes(content[:8], "little") + 16 * entries
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "shards" / f"{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    told = {
        "sha256": digest,
        "head": hashlib.sha256(content[:head_bytes]).hexdigest(),
        "head_bytes": head_bytes,
        "entries": entries,
        "bytes": len(content),
    }
    return told | changes


def by_hand(table: Mapping[str, Any], data: bytes) -> bytes:
    """A safetensors file with any header."""
    header = json.dumps({"__metadata__": about(), **table}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def table_of(arrays: Arrays) -> tuple[Fields, bytes]:
    """The header and the data of a shard, to be changed."""
    names = {"uint64": "U64", "float32": "F32", "int32": "I32", "float16": "F16", "int8": "I8"}
    table, data = {}, b""
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        values = arrays[name]
        span = [len(data), len(data) + values.nbytes]
        table[name] = {"dtype": names[str(values.dtype)], "shape": list(values.shape), "data_offsets": span}
        data += values.tobytes()
    return table, data


def sealed(fields: Fields) -> bytes:
    """A manifest's file with the right digest, whatever it says."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**fields, "digest": digest}, indent=1, ensure_ascii=False) + "\n").encode()


def publish(folder: Path, *shards: Fields, number: int = 1, **changes: Any) -> Path:
    """Write the manifest that lists some shards; its path."""
    kept = {kind.name: {"codec": kind.codec.label, "width": WIDTHS[kind.name]} for kind in KINDS}
    path = folder / "manifests" / f"{number:08d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sealed({"format": 2, "fingerprint": FIELDS, "signals": kept, "shards": shards} | changes))
    return path


def one(folder: Path, **changes: Any) -> Fields:
    """A shard of ten entries that is as it should be but for some arrays; a change to None takes an array away."""
    arrays = {name: values for name, values in (arrays_of(KEYS[:10]) | changes).items() if values is not None}
    return place(folder, save(arrays, about()), 10)


Case = Callable[[Path, Path], object]
CASES: dict[str, tuple[str, Case]] = {}
"""By name, the reason that is told, and what makes (the folder, a place outside it)."""


def hostile(reason: str) -> Callable[[Case], Case]:
    def register(case: Case) -> Case:
        CASES[case.__name__] = (reason, case)
        return case

    return register


def changed(name: str, reason: str, **changes: Callable[[Any], Any] | None) -> None:
    """A case in which arrays of the only shard are other ones."""

    def case(folder: Path, outside: Path) -> None:
        whole = arrays_of(KEYS[:10])
        publish(folder, one(folder, **{key: make and make(whole.get(key)) for key, make in changes.items()}))

    CASES[name] = (reason, case)


def told(name: str, reason: str, **changes: Any) -> None:
    """A case in which the manifest tells something else of the only shard, which is whole."""
    CASES[name] = (reason, lambda folder, outside: publish(folder, one(folder) | changes))


def signals(name: str, reason: str, **changes: Any) -> None:
    """A case in which the manifest tells something else of the signals."""

    def case(folder: Path, outside: Path) -> None:
        kept = {kind.name: {"codec": kind.codec.label, "width": WIDTHS[kind.name]} for kind in KINDS}
        publish(folder, one(folder), signals=kept | {key.replace("_", "."): to for key, to in changes.items()})

    CASES[name] = (reason, case)


def with_value(value: float) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values = values.copy()
        values.flat[7] = value
        return values

    return change


# what an entry of the manifest may say
told("climbing_path", "shards.0.sha256", sha256="../../../outside/secret")
told("climbing_path_of_the_right_length", "shards.0.sha256", sha256="../" * 21 + "x")
told("absolute_path", "shards.0.sha256", sha256="/etc/passwd")
told("upper_case_digest", "shards.0.sha256", sha256="A" * 64)
told("a_name_of_its_own", "shards.0.path", path="../../outside/secret")
told("entries_2_40", "shards.0.entries", entries=_HUGE)
told("entries_that_would_fill_memory", "shards.0.entries", entries=2**33, head_bytes=2**37)
told("no_entries", "shards.0.entries", entries=0)
told("negative_entries", "shards.0.entries", entries=-1)
told("entries_as_text", "do not match its digest", entries="10")
told("head_of_2_50_bytes", "differs from what was captured", head_bytes=2**50)
told("head_of_2_60_bytes", "shards.0.head_bytes", head_bytes=2**60)
told("file_of_2_52_bytes", "shards.0.bytes", bytes=2**52)
told("more_entries_than_there_are", "differs from what was captured", entries=11)
signals("width_2_24", "signals.logits.width", logits={"codec": "fp16/1", "width": 2**24})
signals("width_below_zero", "signals.logits.width", logits={"codec": "fp16/1", "width": -1})
signals("another_width", r"where values float16\[10, 4\] are promised", logits={"codec": "fp16/1", "width": 4})
signals("unknown_codec", "codec 'zip/1'", logits={"codec": "zip/1", "width": 3})
signals("unknown_version_of_a_codec", "codec 'fp16/9'", logits={"codec": "fp16/9", "width": 3})
signals("another_codec_than_the_teachers", "not those of its fingerprint", logits={"codec": "int8/1", "width": 3})
signals("unknown_signal", "'attention' is no signal", attention={"codec": "fp16/1", "width": 3})
signals("a_layer_that_is_no_number", "'hidden.x' is no signal", hidden_x={"codec": "tokens-fp16/1", "width": 3})
signals("a_signal_of_two_lines", "is no signal", **{"a\nstillroom: done": {"codec": "zip/1", "width": 3}})

# what the arrays may be
changed("nan_in_logits", "values that are not finite", logits=with_value(np.nan))
changed("infinite_logits", "values that are not finite", logits=with_value(-np.inf))
changed("nan_in_states_of_tokens", "values that are not finite", **{"hidden.1": with_value(np.nan)})
changed("infinite_scale", "scales that are no sizes", **{"embedding:scale": with_value(np.inf)})
changed("nan_as_scale", "scales that are no sizes", **{"embedding:scale": with_value(np.nan)})
changed("negative_scale", "scales that are no sizes", **{"embedding:scale": with_value(-1.0)})
changed("scale_that_makes_infinities", "scales that are no sizes", **{"embedding:scale": with_value(3e38)})
changed("negative_length", "no lengths", **{"hidden.1:lengths": with_value(-1)})
changed("lengths_of_2_30_tokens", "promised", **{"hidden.1:lengths": with_value(2**30)})
changed("lengths_of_another_type", "no lengths", **{"hidden.1:lengths": lambda old: old.astype(np.float32)})
changed("wider_logits", "promised", logits=lambda old: np.zeros((10, 4), np.float16))
changed("fewer_logits", "promised", logits=lambda old: np.zeros((9, 3), np.float16))
changed("flat_logits", "promised", logits=lambda old: old.reshape(-1))
changed("logits_of_another_type", "promised", logits=lambda old: old.astype(np.float32))
changed("logits_of_an_unknown_type", "numbers of type F64", logits=lambda old: old.astype(np.float64))
changed("no_logits", "promised", logits=None)
changed("no_scales", "promised", **{"embedding:scale": None})
changed("no_lengths", "no lengths", **{"hidden.1:lengths": None})
changed("no_keys", "it holds", low=None)
changed("an_array_more", "it holds", more=lambda old: np.zeros(3, np.float16))
changed("a_part_more", "promised", **{"logits:more": lambda old: np.zeros(10, np.float16)})
changed("a_name_of_two_lines", "it holds", **{"a\nstillroom: done": lambda old: np.zeros(3, np.float16)})
changed("keys_of_another_type", "no keys", high=lambda old: old.astype(np.int64))
changed("fewer_keys", "no keys|differs|ascending", high=lambda old: old[:9])
changed("keys_out_of_order", "not in ascending order", high=lambda old: old[::-1].copy())
changed("a_key_twice", "or one stands twice", high=lambda old: old[[0, 0, *range(2, 10)]],
        low=lambda old: old[[0, 0, *range(2, 10)]])  # fmt: skip


@hostile("cosine")
def two_answers_for_one_text(folder: Path, outside: Path) -> None:
    whole = arrays_of(KEYS[:10])
    publish(folder, one(folder), one(folder, logits=whole["logits"][::-1].copy()))


@hostile("cosine")
def two_embeddings_for_one_text(folder: Path, outside: Path) -> None:
    publish(folder, one(folder), one(folder, embedding=arrays_of(KEYS[:10])["embedding"][::-1].copy()))


@hostile("cosine|length")
def two_numbers_of_tokens_for_one_text(folder: Path, outside: Path) -> None:
    whole = arrays_of(KEYS[:10])
    longer = {"hidden.1:lengths": np.full(10, 2, np.int32), "hidden.1": np.tile(whole["hidden.1"], (2, 1))}
    publish(folder, one(folder), one(folder, **longer))


@hostile("another teacher")
def answers_of_another_teacher(folder: Path, outside: Path) -> None:
    publish(folder, place(folder, save(arrays_of(KEYS[:10]), about(teacher="0" * 32)), 10))


@hostile("not a shard of this cache")
def a_shard_that_does_not_tell_its_teacher(folder: Path, outside: Path) -> None:
    publish(folder, place(folder, save(arrays_of(KEYS[:10])), 10))


@hostile("not a shard of this cache")
def nested_words_about_a_shard(folder: Path, outside: Path) -> None:
    publish(folder, place(folder, save(arrays_of(KEYS[:10]), {"stillroom": "[" * 100_000}), 10))


@hostile("not a shard of this cache")
def a_nested_header(folder: Path, outside: Path) -> None:
    header = b"[" * 100_000
    publish(folder, place(folder, len(header).to_bytes(8, "little") + header + bytes(200), 10))


@hostile("differs from what was captured")
def a_header_of_2_60_bytes(folder: Path, outside: Path) -> None:
    publish(folder, place(folder, (2**60).to_bytes(8, "little") + bytes(500), 10, head_bytes=400))


@hostile("differs from what was captured")
def a_header_larger_than_any(folder: Path, outside: Path) -> None:
    table, data = table_of(arrays_of(KEYS[:10]))
    publish(folder, place(folder, by_hand({**table, "long": {"note": "x" * (2 << 20)}}, data), 10))


def moved(name: str, reason: str, change: Callable[[Fields], None]) -> None:
    """A case in which the header of the shard says something else of its arrays."""

    def case(folder: Path, outside: Path) -> None:
        table, data = table_of(arrays_of(KEYS[:10]))
        change(table)
        publish(folder, place(folder, by_hand(table, data), 10))

    CASES[name] = (reason, case)


REFUSED_HEADER = "not a shard of this cache"
moved("overlapping_arrays", REFUSED_HEADER, lambda table: table["low"].update(data_offsets=[0, 80]))
moved("arrays_beyond_the_file", REFUSED_HEADER, lambda table: table["logits"].update(data_offsets=[_HUGE, _HUGE + 60]))
moved("arrays_before_the_file", REFUSED_HEADER, lambda table: table["logits"].update(data_offsets=[-60, 0]))
moved("a_shape_that_overflows", REFUSED_HEADER, lambda table: table["logits"].update(shape=[2**63, 2**63]))
moved("a_shape_that_wraps_to_its_size", REFUSED_HEADER, lambda table: table["logits"].update(shape=[2**63 + 15, 2]))
moved("a_shape_below_zero", REFUSED_HEADER, lambda table: table["logits"].update(shape=[-10, -3]))
moved("keys_where_answers_are", "no keys|not a shard", lambda table: table.update(high=table["logits"]))


@hostile("too big|promised")
def an_empty_array_of_absurd_shape(folder: Path, outside: Path) -> None:
    table, data = table_of(arrays_of(KEYS[:10]))
    table["logits"]["shape"] = [0, 2**62]
    at, end = table["logits"]["data_offsets"]
    table["logits"]["data_offsets"] = [at, at]
    for entry in table.values():
        if entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [place - (end - at) for place in entry["data_offsets"]]
    publish(folder, place(folder, by_hand(table, data[:at] + data[end:]), 10))


@hostile("shards.0.entries")
def a_sparse_shard(folder: Path, outside: Path) -> None:
    entries = 2**36
    shard = one(folder)
    path = folder / "shards" / f"{shard['sha256']}.safetensors"
    header = int.from_bytes(path.read_bytes()[:8], "little")
    size = 8 + header + 16 * entries + 100
    os.truncate(path, size)
    publish(folder, shard | {"entries": entries, "head_bytes": 8 + header + 16 * entries, "bytes": size})


# what lies where a file should
@hostile("no such file|symbolic link")
def a_linked_shard(folder: Path, outside: Path) -> None:
    shard = one(folder)
    name = f"{shard['sha256']}.safetensors"
    (folder / "shards" / name).unlink()
    os.mkfifo(outside / name)
    (folder / "shards" / name).symlink_to(outside / name)
    publish(folder, shard)


@hostile("no such file|symbolic link")
def a_linked_folder_of_shards(folder: Path, outside: Path) -> None:
    shard = one(folder)
    (folder / "shards").rename(outside / "shards")
    for path in (outside / "shards").iterdir():
        path.unlink()
        os.mkfifo(path)
    (folder / "shards").symlink_to(outside / "shards")
    publish(folder, shard)


@hostile("no such file|symbolic link")
def a_whole_shard_behind_a_link(folder: Path, outside: Path) -> None:
    shard = one(folder)
    (folder / "shards").rename(outside / "shards")
    (folder / "shards").symlink_to(outside / "shards")
    publish(folder, shard)


@hostile("symbolic link")
def a_linked_folder_of_manifests(folder: Path, outside: Path) -> None:
    publish(folder, one(folder))
    (folder / "manifests").rename(outside / "manifests")
    (folder / "manifests").symlink_to(outside / "manifests")


@hostile("holds no manifests/")
def a_linked_manifest(folder: Path, outside: Path) -> None:
    path = publish(folder, one(folder))
    path.unlink()
    os.mkfifo(outside / path.name)
    path.symlink_to(outside / path.name)


@hostile("holds no manifests/")
def a_folder_as_manifest(folder: Path, outside: Path) -> None:
    (folder / "manifests" / "00000001.json").mkdir(parents=True)


@hostile("holds no manifests/")
def a_pipe_as_manifest(folder: Path, outside: Path) -> None:
    (folder / "manifests").mkdir(parents=True)
    os.mkfifo(folder / "manifests" / "00000001.json")


@hostile("no such file")
def a_pipe_as_shard(folder: Path, outside: Path) -> None:
    shard = one(folder)
    path = folder / "shards" / f"{shard['sha256']}.safetensors"
    path.unlink()
    os.mkfifo(path)
    publish(folder, shard)


@hostile("no such file")
def a_folder_as_shard(folder: Path, outside: Path) -> None:
    shard = one(folder)
    path = folder / "shards" / f"{shard['sha256']}.safetensors"
    path.unlink()
    path.mkdir()
    publish(folder, shard)


@hostile("holds no manifests/")
def manifests_under_other_names(folder: Path, outside: Path) -> None:
    content = publish(folder, one(folder)).read_bytes()
    (folder / "manifests" / "00000001.json").unlink()
    for name in ("1.json", "000000001.json", "-0000001.json", "٠٠٠٠٠٠٠١.json", "00000001.json.tmp", "00000001.json\n"):
        (folder / "manifests" / name).write_bytes(content)
    (folder / "manifests" / "00000002").mkdir()
    (folder / "manifests" / "00000002" / "00000001.json").write_bytes(content)


@hostile("holds no manifests/")
def folders_a_thousand_deep(folder: Path, outside: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for name in ["manifests", *["d"] * 1200]:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


# what a manifest may be
@hostile("larger than any manifest")
def a_sparse_manifest(folder: Path, outside: Path) -> None:
    os.truncate(publish(folder, one(folder)), 300 << 20)


@hostile("larger than any manifest")
def a_manifest_that_unfolds(folder: Path, outside: Path) -> None:
    path = publish(folder)
    path.write_bytes(b'{"fingerprint": {"x": [' + b"[]," * (20 << 20) + b"[]]}}")


@hostile("not readable as a cache manifest")
def a_nested_manifest(folder: Path, outside: Path) -> None:
    publish(folder).write_bytes(b"[" * 1_000_000)


@hostile("manifest")
def a_nested_fingerprint(folder: Path, outside: Path) -> None:
    publish(folder, one(folder)).write_bytes(b'{"fingerprint": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}")


@hostile("not readable as a cache manifest")
def a_number_of_a_million_digits(folder: Path, outside: Path) -> None:
    publish(folder).write_bytes(b'{"format": ' + b"9" * 1_000_000 + b"}")


@hostile("not readable as a cache manifest")
def a_manifest_that_is_a_list(folder: Path, outside: Path) -> None:
    publish(folder).write_bytes(b"[]\n")


@hostile("manifest")
def not_a_number_in_the_fingerprint(folder: Path, outside: Path) -> None:
    publish(folder, one(folder), fingerprint=FIELDS | {"max_length": float("nan")})


@hostile("manifest")
def half_a_character_in_the_fingerprint(folder: Path, outside: Path) -> None:
    path = publish(folder, one(folder), fingerprint=FIELDS | {"pooling": "HALF"})
    path.write_bytes(path.read_bytes().replace(b"HALF", b"\\ud800"))


@hostile("format")
def a_manifest_of_another_format(folder: Path, outside: Path) -> None:
    publish(folder, one(folder), format=3)


@hostile("more")
def a_field_more(folder: Path, outside: Path) -> None:
    publish(folder, one(folder), more="../../outside/secret")


@hostile("do not match its digest")
def a_manifest_with_a_field_twice(folder: Path, outside: Path) -> None:
    path = publish(folder, one(folder))
    path.write_bytes(path.read_bytes().replace(b'{\n "format": 2,', b'{\n "format": 2,\n "format": 2,'))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may read or change. What a link leads to there is a pipe, so that a reader would hang."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    yield outside
    assert (outside / "secret").read_bytes() == b"secret"
    subprocess.run(["rm", "-rf", tmp_path / "enemy"], check=True)  # Python's own way ends at a thousand folders


def state(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below some folders, with size, times and links."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


@contextmanager
def cheap() -> Iterator[None]:
    """Ends soon and never holds much memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        seconds, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < MOST_SECONDS
    assert peak < MOST_BYTES


def read_whole(folder: Path) -> Reader:
    reader = Reader.open(folder)
    reader.verify()
    return reader


def one_line(error: BaseException) -> str:
    message = str(error)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def right(reader: Reader | None) -> int:
    """How many texts have an answer, each the right one."""
    if reader is None:
        return 0
    found = reader.find(KEYS)
    known = KEYS[found >= 0]
    assert len(known) == len(reader)
    expected = arrays_of(known)
    order = np.lexsort(halves(known)[::-1])
    positions = reader.locate(known[order], "texts")
    np.testing.assert_array_equal(reader.read("logits", positions), expected["logits"])
    np.testing.assert_array_equal(reader.read("embedding", positions), expected["embedding"] * np.float32(0.5))
    np.testing.assert_array_equal(reader.read_tokens("hidden.1", positions).values, expected["hidden.1"])
    return len(known)


def test_the_folder_before_it_is_changed_is_read(tmp_path: Path) -> None:
    publish(tmp_path, one(tmp_path))
    assert right(read_whole(tmp_path)) == 10


@pytest.mark.parametrize("name", CASES)
def test_a_reader_refuses_it(tmp_path: Path, outside: Path, name: str) -> None:
    reason, case = CASES[name]
    folder = tmp_path / "enemy" / TEACHER
    folder.mkdir(parents=True)
    case(folder, outside)
    before = state(tmp_path) if name != "folders_a_thousand_deep" else {}
    with cheap(), pytest.raises(InputError, match=reason) as caught:
        read_whole(folder)
    assert str(folder) in one_line(caught.value)
    assert not before or state(tmp_path) == before, "reading changes nothing"


def answers_for(rows: slice) -> Any:
    arrays = arrays_of(KEYS[rows])
    encoded = {
        kind: {name.partition(":")[2]: values for name, values in arrays.items() if name.partition(":")[0] == kind.name}
        for kind in KINDS
    }
    return KEYS[rows][np.lexsort(halves(KEYS[rows])[::-1])], encoded


@pytest.mark.parametrize("name", CASES)
def test_a_store_in_it_gives_right_answers_or_none(tmp_path: Path, outside: Path, name: str) -> None:
    folder = tmp_path / "enemy" / TEACHER
    folder.mkdir(parents=True)
    CASES[name][1](folder, outside)
    before = state(outside)
    with cheap():
        try:
            store = Store(tmp_path / "enemy", FIELDS)
            known = right(store.reader())
            store.add(*answers_for(slice(20, 30)))
            store.record_pass(10, 0)
            assert right(store.reader()) == known + 10
        except InputError as error:
            one_line(error)
    assert state(outside) == before


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_it_is_taken_from_a_shared_storage(tmp_path: Path, outside: Path, name: str) -> None:
    folder = tmp_path / "enemy" / TEACHER
    folder.mkdir(parents=True)
    CASES[name][1](folder, outside)
    own = Store(tmp_path / "own", FIELDS)
    assert own.reader() is None
    own.add(*answers_for(slice(20, 30)))
    before = state(outside)
    with cheap():
        try:
            assert right(Store(tmp_path / "own", FIELDS, str(tmp_path / "enemy")).reader()) in (10, 20)
        except InputError as error:
            one_line(error)
    assert state(outside) == before
    assert right(own.reader()) in (10, 20), "what this machine has stays readable without the shared storage"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enemy", "outside", "own"]
    assert [path.name for path in (tmp_path / "own").iterdir()] == [TEACHER]


def use(root: Path) -> None:
    """All that a pass does to a store."""
    store = Store(root, FIELDS)
    store.reader()
    store.add(*answers_for(slice(20, 30)))
    store.record_pass(10, 0)


@pytest.mark.parametrize("name", ["passes.jsonl", "shards", "manifests", ""])
def test_a_store_never_writes_through_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    folder = tmp_path / "enemy" / TEACHER
    (folder if name else folder.parent).mkdir(parents=True)
    target = outside / (name or TEACHER)
    if name == "passes.jsonl":
        target.write_text("outside\n")
    else:
        target.mkdir()
    (folder / name).symlink_to(target)
    before = state(outside)
    with pytest.raises(InputError, match="is a symbolic link") as caught:
        use(tmp_path / "enemy")
    one_line(caught.value)
    assert state(outside) == before


def test_a_shared_folder_that_is_a_link_is_refused(tmp_path: Path, outside: Path) -> None:
    publish(outside, one(outside))
    (tmp_path / "enemy").mkdir()
    (tmp_path / "enemy" / TEACHER).symlink_to(outside)
    with pytest.raises(InputError, match="is a symbolic link"):
        Store(tmp_path / "own", FIELDS, str(tmp_path / "enemy")).reader()


def test_the_list_of_passes_is_no_pipe(tmp_path: Path) -> None:
    store = Store(tmp_path, FIELDS)
    store.add(*answers_for(slice(0, 10)))
    os.mkfifo(store.folder / "passes.jsonl")
    with pytest.raises(InputError, match=r"passes\.jsonl"):
        Store(tmp_path, FIELDS).record_pass(10, 0)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_end_of_the_chain_of_manifests_is_told(tmp_path: Path, damaged: bool) -> None:
    folder = tmp_path / TEACHER
    path = publish(folder, one(folder), number=99_999_999)
    if damaged:
        path.write_bytes(b"{}")
    before = state(folder)
    with pytest.raises(InputError, match=r"99999999\.json.*is the last manifest") as caught:
        use(tmp_path)
    one_line(caught.value)
    assert {path for path in state(folder) if "manifests" in path} == {path for path in before if "manifests" in path}


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_lies_where_the_next_manifest_belongs_is_named(tmp_path: Path, kind: str, damaged: bool) -> None:
    folder = tmp_path / TEACHER
    path = publish(folder, one(folder))
    if damaged:
        path.write_bytes(b"{}")
    following = path.with_name("00000002.json")
    {"folder": os.mkdir, "link": lambda at: os.symlink("/", at), "pipe": os.mkfifo}[kind](following)
    with pytest.raises(InputError, match=r"00000002\.json") as caught:
        use(tmp_path)
    one_line(caught.value)


def test_a_shared_storage_whose_answers_contradict_ours_spoils_nothing(tmp_path: Path) -> None:
    own = Store(tmp_path / "own", FIELDS)
    own.add(*answers_for(slice(0, 10)))
    theirs = tmp_path / "enemy" / TEACHER
    publish(theirs, one(theirs, logits=arrays_of(KEYS[:10])["logits"][::-1].copy()))
    with pytest.raises(InputError, match="hold different answers for one content"):
        Store(tmp_path / "own", FIELDS, str(tmp_path / "enemy")).reader()
    assert right(own.reader()) == 10


def test_a_shared_storage_of_other_widths_spoils_nothing(tmp_path: Path) -> None:
    own = Store(tmp_path / "own", FIELDS)
    own.add(*answers_for(slice(0, 10)))
    theirs = tmp_path / "enemy" / TEACHER
    arrays = arrays_of(KEYS[20:30]) | {"logits": np.zeros((10, 5), np.float16)}
    kept = {kind.name: {"codec": kind.codec.label, "width": WIDTHS[kind.name]} for kind in KINDS}
    kept["logits"] = {"codec": "fp16/1", "width": 5}
    publish(theirs, place(theirs, save(arrays, about(widths=WIDTHS | {"logits": 5})), 10), signals=kept)
    with pytest.raises(InputError, match="logits") as caught:
        Store(tmp_path / "own", FIELDS, str(tmp_path / "enemy")).reader()
    one_line(caught.value)
    assert right(own.reader()) == 10


@pytest.mark.parametrize(
    "widths",
    [{"logits": 2**24}, {"logits": -1}, {"logits": 10**400}, {"more": 3}, {"logits": None}, {}, None],
    ids=str,
)
def test_shards_that_tell_nonsense_are_left_out_when_a_manifest_is_made_again(tmp_path: Path, widths: Any) -> None:
    folder = tmp_path / TEACHER
    whole = one(folder)
    told = WIDTHS | widths if widths else widths
    for number in range(8):  # some of them come before the whole one
        place(folder, save(arrays_of(KEYS[number : number + 10]), about(widths=told)), 10)
    publish(folder, whole).write_bytes(b"{}")
    with cheap():
        assert right(Store(tmp_path, FIELDS).reader()) == 10


def test_a_linked_shard_is_not_read_when_a_manifest_is_made_again(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / TEACHER
    publish(folder, one(folder)).write_bytes(b"{}")
    os.mkfifo(outside / "pipe")
    (folder / "shards" / f"{'0' * 64}.safetensors").symlink_to(outside / "pipe")
    assert right(Store(tmp_path, FIELDS).reader()) == 10
