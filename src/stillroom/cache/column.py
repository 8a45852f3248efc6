"""A signal as a column of a data set: what a training batch reads by row comes from the memory map by content."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

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
