"""Read the teacher's answers by content, from a memory map, in any order."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.cache.codecs import Encoded, PerToken, Signal, join
from stillroom.cache.identity import Keys, folder_name
from stillroom.cache.manifest import Manifest, Manifests
from stillroom.cache.shards import DamagedCache, Halves, MappedShard, halves
from stillroom.errors import InputError
from stillroom.storage import Folder

Ints = npt.NDArray[np.int64]
_THREADS = 2
_COMPARED = 512
"""Answers to one content that are compared at a time."""
_FEW = 256
_SMALL = 0.45
"""Share of the usual norm below which a row's direction is mostly rounding: of 2,500 sentences that all-mpnet-base-v2
answered twice in bf16, in other batches, logits moved by up to 0.023 of the usual norm, whatever their own."""
_COMPARED_KEYS = 1 << 16
"""Keys, about, that are looked at together for such as repeat."""


class Contradiction(DamagedCache):
    """Two shards, each as it was written, that hold different answers for one content: one of them lies."""

    def __init__(self, message: str, shards: frozenset[str]) -> None:
        """shards: the sha256 of both."""
        super().__init__(message)
        self.shards = shards


@dataclass(frozen=True)
class Reader:
    """A folder of answers. An entry's position is where it stands when the shards are laid end to end.

    There is no index beside the shards, whose keys are sorted: a key is looked for in those whose range it lies in, in
    all of them while they are small and new, in one of a snapshot. So memory does not grow with the number of entries.

    starts: first position of each shard, and the end of the last; repeated: entries whose key an earlier shard has.
    """

    folder: Path
    manifest: Manifest
    signals: Mapping[str, Signal]
    shards: tuple[MappedShard, ...]
    starts: Ints
    repeated: int

    @classmethod
    def open(cls, folder: Path) -> "Reader":
        """Read the manifest and check the keys; the answers of a shard are checked when first read.

        Raises DamagedCache naming the file that is not as it was written, InputError for a folder that is no cache.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; run the stage capture first")
        manifest = Manifests(Folder(folder)).latest()
        teacher, signals = folder_name(manifest.fingerprint), manifest.read_signals()
        return cls.over(folder, manifest, [MappedShard(folder, teacher, shard, signals) for shard in manifest.shards])

    @classmethod
    def over(cls, folder: Path, manifest: Manifest, shards: Iterable[MappedShard]) -> "Reader":
        """Read some of a folder's shards. An answer that stands in several is read from the first.

        Raises Contradiction if two shards have different answers for one content.
        """
        mapped = tuple(shards)
        starts = np.cumsum([0, *(shard.shard.entries for shard in mapped)]).astype(np.int64)
        signals = {signal.name: signal for signal in manifest.read_signals()}
        reader = cls(folder, manifest, signals, mapped, starts, 0)
        repeated = 0
        for first, later in reader._repeats():
            reader._refuse_contradictions(first, later)
            repeated += len(later)
        return replace(reader, repeated=repeated)

    def __len__(self) -> int:
        """Number of distinct keys."""
        return int(self.starts[-1]) - self.repeated

    def verify(self) -> None:
        """Check every shard whole, now. Raises DamagedCache naming the first that is not."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(MappedShard.verify, self.shards))

    def find(self, keys: Keys) -> Ints:
        """Position of each key [n], −1 where the cache has no such content."""
        high, low = halves(keys)
        found = np.full(len(keys), -1, dtype=np.int64)
        order = np.argsort(high)
        ascending = high[order]
        for shard, start in zip(self.shards, self.starts, strict=False):
            begin = np.searchsorted(ascending, shard.high[0], side="left")
            end = np.searchsorted(ascending, shard.high[-1], side="right")
            rows = order[begin:end]
            rows = rows[found[rows] < 0]
            place = shard.find(high[rows], low[rows])
            found[rows] = np.where(place < 0, -1, start + place)
            shard.rest()
        return found

    def locate(self, keys: Keys, what: str) -> Ints:
        """As `find`, but content that is not there is an InputError that says how much is missing."""
        found = self.find(keys)
        if missing := int((found < 0).sum()):
            raise InputError(
                f"{self.folder}: holds no answer for {missing} of {len(keys)} {what}; run the stage capture again"
            )
        return found

    def signal(self, name: str) -> Signal:
        """A signal that the cache keeps. Raises InputError for another one."""
        if name not in self.signals:
            kept = ", ".join(sorted(self.signals))
            raise InputError(f"{self.folder}: the cache keeps {kept}, not {name}; add it to capture.signals")
        return self.signals[name]

    def read(self, signal: str, positions: Ints) -> npt.NDArray[np.float32]:
        """A signal with one vector per entry, at positions that `find` gave, float32 [n, width]."""
        values: npt.NDArray[np.float32] = self.signal(signal).codec.decode(self.encoded(signal, positions))
        return values

    def read_tokens(self, signal: str, positions: Ints) -> PerToken:
        """A signal with one vector per token, at positions that `find` gave."""
        values: PerToken = self.signal(signal).codec.decode(self.encoded(signal, positions))
        return values

    def encoded(self, signal: str, positions: Ints) -> Encoded:
        """A signal as it is stored, at positions that `find` gave."""
        take = self.signal(signal).codec.take
        if len(self.shards) == 1:
            return take(self.shards[0].encoded(signal), positions)
        owner = np.searchsorted(self.starts, positions, side="right") - 1
        by_shard = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[by_shard], np.arange(len(self.shards) + 1))
        parts = [
            take(shard.encoded(signal), positions[by_shard[start:end]] - first)
            for shard, start, end, first in zip(self.shards, bounds, bounds[1:], self.starts, strict=False)
            if end > start
        ]
        if not parts:
            return take(self.shards[0].encoded(signal), positions)
        back = np.empty(len(positions), dtype=np.int64)
        back[by_shard] = np.arange(len(positions))
        return take(join(parts), back)

    def usual_norm(self, signal: str) -> float:
        """Root mean square norm of an entry, of a few; 0 for a signal of every token."""
        entries = int(self.starts[-1])
        positions = np.unique(np.linspace(0, max(entries - 1, 0), min(entries, _FEW)).astype(np.int64))
        if self.signal(signal).layer is not None or not entries:
            return 0.0
        stored = self.read(signal, positions)
        return float(np.sqrt(np.square(stored.astype(np.float64)).sum(axis=1).mean()))

    def _repeats(self) -> Iterator[tuple[Ints, Ints]]:
        """Positions of entries whose key an earlier shard has, and of the first entry of that key.

        A range of keys at a time: all of them need not be held.
        """
        bounds = [(int(shard.high[0]), int(shard.high[-1])) for shard in self.shards]
        if all(end < begin for (_, end), (begin, _) in itertools.pairwise(bounds)):
            return  # one range after another, as in a snapshot
        ranges = int(self.starts[-1]) // _COMPARED_KEYS + 1
        edges = np.array([number * 2**64 // ranges for number in range(1, ranges)], dtype=np.uint64)
        cuts = [[0, *np.searchsorted(shard.high, edges), shard.shard.entries] for shard in self.shards]
        for number in range(ranges):
            parts = [
                (shard, start, cut[number], cut[number + 1])
                for shard, start, cut in zip(self.shards, self.starts, cuts, strict=False)
            ]
            high = np.concatenate([shard.high[begin:end] for shard, _, begin, end in parts])
            low = np.concatenate([shard.low[begin:end] for shard, _, begin, end in parts])
            position = np.concatenate([start + np.arange(begin, end) for _, start, begin, end in parts])
            for shard in self.shards:
                shard.rest()
            order, again = _sorted(high, low)
            if again.any():
                place = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))
                yield position[order[place[again]]], position[order[again]]

    def _refuse_contradictions(self, first: Ints, later: Ints) -> None:
        """Raise Contradiction if the answers at two lists of positions, of the same keys, differ."""
        for start in range(0, len(later), _COMPARED):
            pairs = (first[start : start + _COMPARED], later[start : start + _COMPARED])
            for name, signal in self.signals.items():
                one, other = (signal.codec.decode(self.encoded(name, positions)) for positions in pairs)
                found = agreement(one, other, self.usual_norm(name))
                worst = int(found.argmin())
                if not found[worst] >= signal.codec.least_cosine:
                    pair = [self._owner(positions[worst]) for positions in pairs]
                    raise Contradiction(
                        f"{self.folder}: {' and '.join(shard.path.name for shard in pair)} hold different answers for "
                        f"one content ({name}: cosine {found[worst]:.4f}); run the stage capture again",
                        frozenset(shard.shard.sha256 for shard in pair),
                    )

    def _owner(self, position: int) -> MappedShard:
        return self.shards[int(np.searchsorted(self.starts, position, side="right")) - 1]


def cosine(one: npt.NDArray[Any], other: npt.NDArray[Any], usual: float = 0.0) -> npt.NDArray[Any]:
    """Of each row of two arrays, [n]; NaN where a row is not finite.

    usual: norm of such rows. Of two classes between which a teacher cannot tell, the logits are near 0, and what they
    point to is the rounding of a precision. Where both rows are small, one that is near the other agrees with it:
    1 − distance² ÷ 2 is the cosine of rows whose norm is 1, here that of the largest small ones.
    """
    norms = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    result: npt.NDArray[Any] = (one * other).sum(axis=1) / np.maximum(norms[0] * norms[1], 1e-12)
    limit = _SMALL * usual
    small = np.maximum(*norms) < limit
    near = 1 - np.square(one[small] - other[small]).sum(axis=1) / (2 * limit**2 or 1.0)
    result[small] = np.maximum(result[small], near)
    result[(one == other).all(axis=1)] = 1.0  # of two rows of zeros too
    return result


def agreement(one: Any, other: Any, usual: float = 0.0) -> npt.NDArray[Any]:
    """The cosine of each entry, [n]; for a signal of every token, of all tokens of an entry together.

    usual: norm of an entry, of a signal with one vector for each. NaN where the shapes differ.
    """
    if not isinstance(one, PerToken):
        return cosine(one, other, usual) if one.shape == other.shape else np.full(len(one), np.nan)
    if one.lengths.tolist() != other.lengths.tolist():
        return np.where(one.lengths == other.lengths, 1.0, np.nan)
    if one.values.shape != other.values.shape:
        return np.full(len(one.lengths), np.nan)
    bounds = np.cumsum([0, *one.lengths])
    flat = [
        (one.values[start:end].reshape(1, -1), other.values[start:end].reshape(1, -1))
        for start, end in itertools.pairwise(bounds)
    ]
    return np.concatenate([cosine(left, right) for left, right in flat])


def unique_keys(keys: Keys) -> tuple[Keys, Ints]:
    """Distinct keys in ascending order, and the row at which each first stands."""
    order, again = _sorted(*halves(keys))
    chosen = order[~again] if again.any() else order
    return keys[chosen], chosen


def _sorted(high: Halves, low: Halves) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The order that sorts keys, equal ones as they stand, and in it which are the same as the one before.

    Nearly always the first halves differ: sorting by them alone is fast.
    """
    order = np.argsort(high)
    again = np.zeros(len(high), dtype=bool)
    ascending = high[order]
    again[1:] = ascending[1:] == ascending[:-1]
    if again.any():
        order = np.lexsort((low, high))
        for half in (high[order], low[order]):
            again[1:] &= half[1:] == half[:-1]
    return order, again
