"""Read the teacher's answers by content, from a memory map, in any order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.cache.identity import Keys
from stillroom.cache.shards import DamagedCache, Manifest, Signals, map_shard, read_manifest
from stillroom.errors import InputError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reader:
    """A verified folder of answers.

    high, low: the two halves of every key as big-endian numbers, sorted; position: where that entry stands when the
    shards are laid end to end; shards: the mapped arrays; starts: first position of each shard.
    """

    folder: Path
    manifest: Manifest
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    position: Ints
    shards: tuple[Signals, ...]
    starts: Ints

    @classmethod
    def open(cls, folder: Path) -> "Reader":
        """Map every shard, check its sha256, build the index. Raises DamagedCache naming what is wrong."""
        manifest = read_manifest(folder)
        mapped = [map_shard(folder, shard, manifest.widths) for shard in manifest.shards]
        keys = np.concatenate([keys for keys, _ in mapped]) if mapped else np.zeros((0, 16), np.uint8)
        high, low = _halves(keys)
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        if len(high) and ((high[1:] == high[:-1]) & (low[1:] == low[:-1])).any():
            raise DamagedCache(f"{folder}: the same key stands twice; run the stage capture again")
        counts = [shard.entries for shard in manifest.shards]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(folder, manifest, high, low, order, tuple(signals for _, signals in mapped), starts)

    def __len__(self) -> int:
        return len(self.high)

    def find(self, keys: Keys) -> Ints:
        """Position of each key [n], −1 where the cache has no such content."""
        high, low = _halves(keys)
        found = np.full(len(keys), -1, dtype=np.int64)
        if not len(self):
            return found
        place = np.searchsorted(self.high, high)
        open_rows = np.arange(len(keys))
        while len(open_rows):
            at = place[open_rows]
            inside = at < len(self)
            open_rows, at = open_rows[inside], at[inside]
            same_high = self.high[at] == high[open_rows]
            open_rows, at = open_rows[same_high], at[same_high]
            hit = self.low[at] == low[open_rows]
            found[open_rows[hit]] = self.position[at[hit]]
            open_rows = open_rows[~hit]
            place[open_rows] += 1
        return found

    def locate(self, keys: Keys, what: str) -> Ints:
        """As `find`, but content that is not there is an InputError that says how much is missing."""
        found = self.find(keys)
        if missing := int((found < 0).sum()):
            raise InputError(
                f"{self.folder}: holds no answer for {missing} of {len(keys)} {what}; run the stage capture again"
            )
        return found

    def read(self, signal: str, positions: Ints) -> npt.NDArray[np.float32]:
        """A signal at positions that `find` gave, float32 [n, width]."""
        if signal not in self.manifest.widths:
            kept = ", ".join(self.manifest.widths)
            raise InputError(f"{self.folder}: the cache keeps {kept}, not {signal}; add it to capture.signals")
        if len(self.shards) == 1:
            return self.shards[0][signal][positions].astype(np.float32)
        result = np.empty((len(positions), self.manifest.widths[signal]), dtype=np.float32)
        owner = np.searchsorted(self.starts, positions, side="right") - 1
        for shard in np.unique(owner):
            rows = owner == shard
            result[rows] = self.shards[shard][signal][positions[rows] - self.starts[shard]]
        return result


def _halves(keys: Keys) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    numbers = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)
    return numbers[:, 0], numbers[:, 1]


def unique_keys(keys: Keys) -> tuple[Keys, Ints]:
    """Distinct keys in ascending order, and the row at which each first stands."""
    high, low = _halves(keys)
    order = np.lexsort((low, high))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    chosen = order[first]
    return keys[chosen], chosen


def signals_at(reader: Reader, positions: Ints, names: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
    """Several signals at the same positions."""
    return {name: reader.read(name, positions) for name in names}
