"""The teacher's pass over the transfer set: only content without an answer is computed."""

import logging
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillroom import events
from stillroom.cache.codecs import Signal, asked_for
from stillroom.cache.identity import KEY_BYTES, Example, Keys, entry_keys
from stillroom.cache.live import LiveTeacher
from stillroom.cache.reader import Ints, Reader, unique_keys
from stillroom.cache.shards import DamagedCache
from stillroom.cache.store import Store, absent
from stillroom.cache.texts import Texts
from stillroom.cache.units import Unit, answered, plan
from stillroom.cache.verify import check_sample
from stillroom.cache.writer import Writer
from stillroom.params import CaptureParams, ComputeParams

_HELD = 100_000
"""Keys that are held in memory; more go to disk."""
_RANGE = 16
"""First bytes of keys that are looked at together."""

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Captured:
    """What a pass did.

    reader: of all that the store holds; texts: those that were asked for; computed: entries that had no answer; tokens
    read for them; seconds of forward and write.
    """

    reader: Reader
    texts: Texts
    computed: int
    tokens: int
    seconds: float

    @property
    def keys(self) -> Keys:
        """Of all texts, in their order."""
        return keys_and_sample(self.texts, np.zeros(0, dtype=np.int64))[0]


def capture(
    teacher: LiveTeacher, texts: Texts, settings: CaptureParams, root: Path, seed: int, machine: ComputeParams
) -> Captured:
    """Fill the store below `root` with the answers for `texts`, and check a seeded sample against the live teacher.

    A shard becomes visible when it is full, and every half minute: a pass that is killed goes on after its last one.
    machine: for the workers of another engine than the local one, which load the teacher themselves.
    """
    signals = asked_for(settings.signals)
    store = Store(root, teacher.fingerprint(signals), settings.store)
    sample = sample_rows(len(texts), settings.spot_check, seed)
    keys, sampled = keys_and_sample(texts, sample)
    reader = store.reader()
    needed, distinct = _needed(reader, keys)
    del keys
    began = time.monotonic()
    count, tokens = int(needed.sum()), 0
    if count:
        with events.progress("capture", count, "rows") as advance:
            units = plan(teacher, texts, needed)
            if settings.engine == "ray":
                from stillroom.cache.ray_engine import fill

                tokens = fill(teacher, units, signals, settings, root, machine, advance)
            else:
                tokens = _fill(store, teacher, units, signals, settings.shard_entries, advance)
        store.compact(settings.shard_entries)
        reader = store.reader()
    store.push()  # what an earlier pass could not send
    seconds = time.monotonic() - began
    log.info("capture: %d of %d distinct texts computed in %.1f s", count, distinct, seconds)
    if reader is None:
        raise DamagedCache(f"{store.folder}: nothing was captured")
    check_sample(reader, teacher, sample, sampled)
    store.record_pass(distinct, distinct - count)
    store.collect()
    return Captured(reader, texts, count, tokens, seconds)


def _needed(reader: Reader | None, keys: Keys) -> tuple[npt.NDArray[np.bool_], int]:
    """Which rows have no answer, [n], of equal ones the first; and how many distinct keys there are.

    A range of keys at a time, so that little more than the keys themselves is held.
    """
    needed = np.zeros(len(keys), dtype=bool)
    distinct = 0
    for first_byte in range(0, 256, _RANGE):
        rows = np.flatnonzero(keys[:, 0] // _RANGE == first_byte // _RANGE)
        part, first = unique_keys(keys[rows])
        needed[rows[first[absent(reader, part)]]] = True
        distinct += len(part)
    return needed, distinct


def sample_rows(count: int, wanted: int, seed: int) -> Ints:
    """Rows to be checked, seeded, in ascending order."""
    chosen = np.random.default_rng(seed).choice(count, size=min(wanted, count), replace=False)
    return np.sort(chosen).astype(np.int64)


def keys_and_sample(texts: Texts, sample: Ints) -> tuple[Keys, list[Example]]:
    """The keys of all texts, and the texts of some rows, which ascend."""
    keys = _on_disk((len(texts), KEY_BYTES))
    sampled: list[Example] = []
    start = 0
    for piece in texts.pieces():
        keys[start : start + len(piece)] = entry_keys(piece)
        inside = sample[(sample >= start) & (sample < start + len(piece))] - start
        sampled += [piece[row] for row in inside.tolist()]
        start += len(piece)
    return keys, sampled


def _on_disk(shape: tuple[int, int]) -> Keys:
    """Zeros in a file that is gone when nobody holds them, so that they need memory only while it is there to spare."""
    if shape[0] < _HELD:
        return np.zeros(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _fill(
    store: Store,
    teacher: LiveTeacher,
    units: Iterable[Unit],
    signals: tuple[Signal, ...],
    shard_entries: int,
    advance: events.Advance,
) -> int:
    """Compute units here, one after another; the number of tokens read."""
    tokens = 0
    with Writer(store, shard_entries) as writer:
        for unit in units:
            for keys, answers in answered(teacher, unit, signals):
                writer.put(keys, answers)
                advance(len(keys))
            tokens += len(unit.tokens.ids)
    return tokens
