"""The texts without an answer as units of work: batches of similar length, the same whoever computes them."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillroom.batching import Ints, Tokens, token_batches
from stillroom.cache.codecs import Encoded, Signal
from stillroom.cache.identity import Example, Keys, entry_keys
from stillroom.cache.live import LiveTeacher
from stillroom.cache.texts import Texts
from stillroom.errors import InputError

_WINDOW = 8192
"""Texts that are sorted by length together: enough for little padding, few enough to hold."""
_SHARES = 8
"""Units of a window."""
_LEAST_UNITS = 32
"""Of a whole pass, so that a small one can be shared out evenly."""


@dataclass(frozen=True)
class Unit:
    """Texts to compute. keys: uint8 [n, 16]; tokens: of these texts; batches: rows of each batch."""

    keys: Keys
    tokens: Tokens
    batches: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.keys)


def plan(teacher: LiveTeacher, texts: Texts, needed: npt.NDArray[np.bool_]) -> Iterator[Unit]:
    """Units of the needed texts, in the order of the data.

    The cut depends on the needed texts and the budget alone. The next window is tokenised while one is computed.
    """
    windows = -(-int(needed.sum()) // _WINDOW)
    shares = max(_SHARES, -(-_LEAST_UNITS // max(windows, 1)))
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for examples in _windows(texts, needed):
            tokens = pool.submit(teacher.tokens, examples)
            if ahead is not None:
                yield from _units(*ahead, teacher.budget, shares)
            ahead = (entry_keys(examples), tokens.result())
        if ahead is not None:
            yield from _units(*ahead, teacher.budget, shares)


def answered(
    teacher: LiveTeacher, unit: Unit, signals: tuple[Signal, ...]
) -> Iterator[tuple[Keys, dict[Signal, Encoded]]]:
    """Yield the keys of a batch and its answers as they are stored, for every batch of a unit."""
    for rows, values in teacher.ask(unit.tokens, unit.batches, signals):
        yield unit.keys[rows], {signal: _encoded(signal, values[signal]) for signal in signals}


def _encoded(signal: Signal, values: object) -> Encoded:
    try:
        return signal.codec.encode(values)
    except InputError as error:
        raise InputError(f"the teacher's {signal.name} {error}") from error


def _windows(texts: Texts, needed: npt.NDArray[np.bool_]) -> Iterator[list[Example]]:
    """The needed texts, a window at a time."""
    examples: list[Example] = []
    start = 0
    for piece in texts.pieces():
        for row in np.flatnonzero(needed[start : start + len(piece)]).tolist():
            examples.append(piece[row])
            if len(examples) == _WINDOW:
                yield examples
                examples = []
        start += len(piece)
    if examples:
        yield examples


def _units(keys: Keys, tokens: Tokens, budget: int, shares: int) -> Iterator[Unit]:
    """Share the batches of a window out among units of similar cost."""
    batches = token_batches(tokens.lengths, budget)
    cells = np.cumsum([len(batch) * max(int(tokens.lengths[batch].max()), 1) for batch in batches])
    owners = cells * shares // (cells[-1] + 1)
    for share in np.unique(owners):
        mine = [batch for batch, owner in zip(batches, owners, strict=True) if owner == share]
        rows = np.concatenate(mine)
        bounds = np.cumsum([0, *(len(batch) for batch in mine)])
        local = tuple(np.arange(start, end) for start, end in itertools.pairwise(bounds))
        yield Unit(keys[rows], tokens.take(rows), local)
