"""A signal as a column of a data set: what a training batch reads by row comes from the memory map by content."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from stillroom.cache.codecs import PerToken
from stillroom.cache.reader import Ints


class Answered(Protocol):
    """A cache, or an ensemble of several."""

    def read(self, signal: str, positions: Ints) -> npt.NDArray[np.float32]: ...


class Column:
    """column[rows] are the answers to those rows' texts, float32 [len(rows), width]; nothing is read before.

    The order is the loader's: a row is tied to its text's answer by the text's key, whatever order the cache has.
    """

    def __init__(self, answered: Answered, signal: str, positions: Ints) -> None:
        """positions: of every row of the data set, as `answered.locate` gives them."""
        self._answered = answered
        self._signal = signal
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._answered.read(self._signal, self._positions[rows.numpy()]))


class AnsweredByToken(Protocol):
    """A cache."""

    def read_tokens(self, signal: str, positions: Ints) -> PerToken: ...


class TokenColumn:
    """As Column, of a signal with a vector for every token: float32 [len(rows), tokens of the longest, width].

    NaN, which no answer holds, stands past the end of a text, and for all of a row whose tokens are not the teacher's.
    """

    def __init__(self, answered: AnsweredByToken, signal: str, positions: Ints, aligned: npt.NDArray[np.bool_]) -> None:
        """positions: as for Column; aligned: rows whose tokens are those that the answers are of."""
        self._answered = answered
        self._signal = signal
        self._positions = positions
        self._aligned = aligned

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        chosen = rows.numpy()
        aligned = self._aligned[chosen]
        answers = self._answered.read_tokens(self._signal, self._positions[chosen[aligned]])
        lengths = np.zeros(len(chosen), dtype=np.int64)
        lengths[aligned] = answers.lengths
        there = np.arange(lengths.max(initial=0)) < lengths[:, None]
        padded = np.full((*there.shape, answers.values.shape[1]), np.nan, dtype=np.float32)
        padded[there] = answers.values
        return torch.from_numpy(padded)
