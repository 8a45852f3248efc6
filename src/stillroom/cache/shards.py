"""One file of answers: keys in ascending order and the arrays of every signal, named by its own sha256.

A safetensors file. First come the halves of the keys (`high`, `low`, uint64 [n]), so that the head of the file, which
the manifest has a digest of, is all that an index needs; then SIGNAL for the main array of each signal and
SIGNAL:PART for others. The metadata tell whose answers they are and the width of each signal, so that a shard whose
manifest is lost can be listed again.
"""

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stillroom.cache.codecs import Encoded, Signal
from stillroom.cache.identity import KEY_BYTES, Keys
from stillroom.errors import InputError
from stillroom.files import atomic_file, disk_errors, sha256_file

FOLDER = "shards"
SUFFIX = ".safetensors"
Halves = npt.NDArray[np.uint64]
_HALVES = ("high", "low")
MOST_ENTRIES = 1 << 23
"""That a shard may be asked to hold; a batch may come on top. Bounds the memory that reading a head takes."""
_LARGEST_HEADER = 1 << 20
MOST_BYTES = 1 << 36
MOST_WIDTH = 1 << 24
_METADATA = "stillroom"
_TYPES: dict[str, Any] = {
    "U64": np.uint64,
    "F32": np.float32,
    "I32": np.int32,
    "F16": np.float16,
    "I8": np.int8,
}


class DamagedCache(InputError):
    """A shard or manifest that is not what was written; nothing of it is used."""


class Shard(BaseModel):
    """What a manifest says of a shard. sha256: of the file, and its name; head: sha256 of its first head_bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    head: str = Field(pattern=r"^[0-9a-f]{64}$")
    head_bytes: int = Field(ge=8, lt=2**53)
    entries: int = Field(ge=1, le=2 * MOST_ENTRIES)
    bytes: int = Field(ge=8, lt=MOST_BYTES)

    @property
    def name(self) -> str:
        """The file's name in a teacher's folder, in whatever storage."""
        return f"{FOLDER}/{self.sha256}{SUFFIX}"


def halves(keys: Keys) -> tuple[Halves, Halves]:
    """The two halves of every key as big-endian numbers, uint64 [n] each."""
    numbers = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2)
    return numbers[:, 0].astype(np.uint64), numbers[:, 1].astype(np.uint64)


def joined(high: Halves, low: Halves) -> Keys:
    """Keys [n, 16] of their halves."""
    return np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, KEY_BYTES)


def write_shard(folder: Path, teacher: str, keys: Keys, answers: Mapping[Signal, Encoded]) -> Shard:
    """Write one shard, synced to disk; a manifest has to list it to be seen. Entries are sorted by key.

    teacher: what `identity.folder_name` calls the teacher.
    """
    high, low = halves(keys)
    order = np.lexsort((low, high))
    arrays: dict[str, npt.NDArray[Any]] = dict(zip(_HALVES, (high[order], low[order]), strict=True))
    for signal, encoded in answers.items():
        signal.codec.check(encoded, len(keys), signal.codec.width(encoded))
        for part, values in signal.codec.take(encoded, order).items():
            arrays[f"{signal.name}:{part}" if part else signal.name] = np.ascontiguousarray(values)
    about = {"teacher": teacher, "widths": {signal.name: signal.codec.width(answers[signal]) for signal in answers}}
    content = save(arrays, {_METADATA: json.dumps(about, sort_keys=True)})
    head_bytes = 8 + int.from_bytes(content[:8], "little") + KEY_BYTES * len(keys)
    shard = Shard(
        sha256=hashlib.sha256(content).hexdigest(),
        head=hashlib.sha256(content[:head_bytes]).hexdigest(),
        head_bytes=head_bytes,
        entries=len(keys),
        bytes=len(content),
    )
    path = folder / shard.name
    with disk_errors(path.parent), atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return shard


@dataclass(frozen=True)
class Found:
    """A file that bears its own digest: what a manifest would say of it, whose answers it holds, and their widths."""

    shard: Shard
    teacher: str
    widths: dict[str, int]


def describe(path: Path) -> Found:
    """Read a shard without a manifest. Raises DamagedCache if it is not what its name says, or no shard."""
    if path.is_symlink() or path.name != f"{(digest := sha256_file(path))}{SUFFIX}":
        raise DamagedCache(f"{path}: its content is not what its name says")
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
            table = json.loads(stream.read(min(header, _LARGEST_HEADER)))
            about = json.loads(table["__metadata__"][_METADATA])
            entries = int(table["high"]["shape"][0])
            head_bytes = 8 + header + KEY_BYTES * entries
            stream.seek(0)
            head = hashlib.sha256(stream.read(min(head_bytes, size))).hexdigest()
        shard = Shard(sha256=digest, head=head, head_bytes=head_bytes, entries=entries, bytes=size)
        widths = {str(name): int(width) for name, width in about["widths"].items()}
        if any(not 0 <= width < MOST_WIDTH for width in widths.values()):
            raise ValueError("widths that no signal has")
        return Found(shard, str(about["teacher"]), widths)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedCache(f"{path}: not a shard of the cache") from error


class MappedShard:
    """A shard that is read through a memory map. high, low: the halves of its keys, which stand in ascending order."""

    def __init__(self, folder: Path, teacher: str, shard: Shard, signals: Mapping[Signal, int]) -> None:
        """Check the head. signals: with the width of each. Raises DamagedCache that names the file."""
        self.shard = shard
        self._teacher = teacher
        self.path = folder / shard.name
        self._signals = signals
        self._whole: dict[str, Encoded] | None = None
        if self.path.parent.is_symlink() or self.path.is_symlink() or not self.path.is_file():
            raise DamagedCache(f"{self.path}: no such file, though the manifest lists it; {_REMEDY}")
        try:
            self._table, (self.high, self.low) = self._head()
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            told = " ".join(str(error).split())[:200]
            raise DamagedCache(f"{self.path}: not a shard of this cache ({told}); {_REMEDY}") from error

    @property
    def keys(self) -> Keys:
        """The keys of its entries, [n, 16]."""
        return joined(self.high, self.low)

    def find(self, high: Halves, low: Halves) -> npt.NDArray[np.int64]:
        """The row of each key [n], given by its halves; −1 where the shard has no such key."""
        found = np.full(len(high), -1, dtype=np.int64)
        place = np.searchsorted(self.high, high)
        rows = np.arange(len(high))
        while len(rows):  # once, but for keys whose first halves are alike
            at = place[rows]
            inside = at < self.shard.entries
            rows, at = rows[inside], at[inside]
            same = self.high[at] == high[rows]
            rows, at = rows[same], at[same]
            hit = self.low[at] == low[rows]
            found[rows[hit]] = at[hit]
            rows = rows[~hit]
            place[rows] += 1
        return found

    def verify(self) -> None:
        """Check the sha256 of the whole file, and the arrays of every signal; once, when first needed."""
        if self._whole is not None:
            return
        if sha256_file(self.path) != self.shard.sha256:
            raise self._differs()
        whole: dict[str, Encoded] = {}
        for signal, width in self._signals.items():
            try:
                parts = {part: self._mapped(name) for name, part in self._parts(signal)}
                signal.codec.check(parts, self.shard.entries, width)
            except (ValueError, KeyError, OverflowError) as error:
                raise DamagedCache(f"{self.path}: {signal.name}: {error}; {_REMEDY}") from error
            whole[signal.name] = parts
        self._whole = whole
        self.rest()

    def rest(self) -> None:
        """Let go of the pages that were looked at; the next look fetches them from the system's cache."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def encoded(self, signal: str) -> Encoded:
        """The mapped arrays of a signal, checked."""
        self.verify()
        assert self._whole is not None
        return self._whole[signal]

    def _head(self) -> tuple[dict[str, Any], tuple[Halves, Halves]]:
        shard = self.shard
        with self.path.open("rb") as stream:
            whole = self.path.stat().st_size == shard.bytes >= shard.head_bytes
            length = int.from_bytes(stream.read(8), "little")
            if not whole or length > _LARGEST_HEADER or shard.head_bytes != 8 + length + KEY_BYTES * shard.entries:
                raise self._differs()
            self._map = mmap.mmap(stream.fileno(), shard.bytes, access=mmap.ACCESS_READ)
            stream.seek(0)
            head = stream.read(shard.head_bytes)
        if hashlib.sha256(head).hexdigest() != shard.head:
            raise self._differs()
        with safe_open(self.path, framework="numpy"):
            pass  # checks that the header's sizes and offsets fit each other and the file
        table = json.loads(head[8 : 8 + length])
        if json.loads(table.pop("__metadata__")[_METADATA])["teacher"] != self._teacher:
            raise ValueError("it holds the answers of another teacher")
        self._data = 8 + length
        known = {*_HALVES, *(name for signal in self._signals for name, _ in self._parts(signal, table))}
        if set(table) != known:
            raise ValueError(f"it holds {sorted(table)}")
        high, low = (self._half(table[name]) for name in _HALVES)
        ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
        if not ascending.all():
            raise ValueError("its keys are not in ascending order, or one stands twice")
        self.rest()
        return table, (high, low)

    def _half(self, entry: Any) -> Halves:
        start, end = (self._data + int(offset) for offset in entry["data_offsets"])
        if entry["dtype"] != "U64" or end > self.shard.head_bytes or end - start != 8 * self.shard.entries:
            raise ValueError("no keys for its entries")
        return np.frombuffer(self._map, np.uint64, self.shard.entries, start)

    def _parts(self, signal: Signal, table: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
        """Names of a signal's arrays in the file, and of the parts that they are."""
        names = [name for name in (self._table if table is None else table) if name.partition(":")[0] == signal.name]
        return [(name, name.partition(":")[2]) for name in names]

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        entry = self._table[name]
        kind = _TYPES.get(entry["dtype"])
        if kind is None:
            raise DamagedCache(f"{self.path}: {name}: numbers of type {entry['dtype']}; {_REMEDY}")
        shape = tuple(entry["shape"])
        start, end = (self._data + int(offset) for offset in entry["data_offsets"])
        return np.frombuffer(memoryview(self._map)[start:end], kind).reshape(shape)

    def _differs(self) -> DamagedCache:
        return DamagedCache(f"{self.path}: differs from what was captured; {_REMEDY}")


_REMEDY = "run the stage capture again, or `stillroom cache verify --repair`"
