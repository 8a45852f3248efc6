"""Several teachers as one: the weighted mean of their answers when they are read, and how far they disagree."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stillroom.cache.identity import Keys
from stillroom.cache.reader import Ints, Reader
from stillroom.errors import InputError
from stillroom.problem import ProblemType, chosen_by, probabilities

_ROWS_AT_ONCE = 65_536

Floats = npt.NDArray[np.float32]


class Ensemble:
    """Caches of several teachers, one folder each, of the same labels in the same order.

    Mean of logits as in Hinton et al. (arXiv 1503.02531). Nothing is written: other weights cost nothing.
    """

    def __init__(self, readers: Sequence[Reader], weights: Sequence[float] | None = None) -> None:
        """weights: of each teacher, at least 0; default, all the same. Raises InputError if teachers don't fit."""
        given = np.ones(len(readers)) if weights is None else np.asarray(weights, dtype=np.float64)
        fit = len(given) == len(readers) and bool((np.isfinite(given) & (given >= 0)).all()) and given.sum() > 0
        if not fit:
            raise InputError(
                f"an ensemble of {len(readers)} teachers has the weights {given.tolist()}; give each one ≥ 0"
            )
        first = readers[0]
        for reader in readers[1:]:
            theirs, ours = (of.manifest.fingerprint for of in (reader, first))
            if any(theirs.get(field) != ours.get(field) for field in ("labels", "problem_type")):
                raise InputError(f"{reader.folder}: its teacher has other labels than that of {first.folder}")
        self._problem: ProblemType = first.manifest.fingerprint.get("problem_type", "single_label")
        self._readers = tuple(readers)
        self._weights = (given / given.sum()).astype(np.float32)

    def locate(self, keys: Keys, what: str) -> Ints:
        """Position of each key in each cache, [n, teachers]. Raises InputError if a teacher lacks an answer."""
        return np.stack([reader.locate(keys, what) for reader in self._readers], axis=1)

    def read(self, signal: str, positions: Ints) -> Floats:
        """The weighted mean of a signal, float32 [n, width]."""
        weighted: list[Floats] = []
        for (reader, at), weight in zip(self._each(positions), self._weights, strict=True):
            values = weight * reader.read(signal, at)
            if weighted and values.shape != weighted[0].shape:
                raise InputError(f"{reader.folder}: its {signal} has another width than that of the first teacher")
            weighted.append(values)
        mean: Floats = np.sum(weighted, axis=0)
        return mean

    def variance(self, positions: Ints) -> Floats:
        """Weighted variance of the teachers' probabilities, summed over classes, [n]: 0 where all say the same."""
        return np.asarray(self._spread(positions).sum(axis=1))

    def disagreement(self, positions: Ints) -> Floats:
        """How far the teachers are from one answer, [n]: 0 where all say the same, 1 where they differ as they can.

        Their variance ÷ that of so many sure teachers of equal weight who are spread over the classes as evenly as can
        be; where a text may have several labels, that of the label on which they differ most, for it or against.
        """
        several = self._problem == "multi_label"
        found = np.empty(len(positions), dtype=np.float32)
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            spread = self._spread(positions[part])
            most = _greatest_variance(len(self._readers), 2 if several else spread.shape[1])
            found[part] = spread.max(axis=1) / (most / 2) if several else spread.sum(axis=1) / most
        return np.minimum(found, 1.0)

    def vote_entropy(self, positions: Ints) -> Floats:
        """Entropy in nats of the teachers' weighted votes for a class, [n] (Dagan and Engelson, 1995).

        Where a text may have several labels, of the votes for and against each, added up.
        """
        every = [chosen_by(reader.read("logits", at), self._problem) for reader, at in self._each(positions)]
        votes = np.stack(every, axis=-1)  # [n, teachers], or [n, classes, teachers]
        # the weight of the class that each teacher votes for; a class of k votes is met k times
        share = (votes[..., :, None] == votes[..., None, :]) @ self._weights
        entropy: Floats = -(np.log(np.maximum(share, 1e-12)) * self._weights).sum(axis=-1)
        return entropy if entropy.ndim == 1 else entropy.sum(axis=1)

    def _spread(self, positions: Ints) -> Floats:
        """Weighted variance of the teachers' probability of every class, [n, classes]."""
        every = [probabilities(reader.read("logits", at), self._problem) for reader, at in self._each(positions)]
        shares, weights = np.stack(every), self._weights[:, None, None]
        return np.asarray((weights * (shares - (weights * shares).sum(axis=0)) ** 2).sum(axis=0))

    def _each(self, positions: Ints) -> list[tuple[Reader, Ints]]:
        return [(reader, positions[:, number]) for number, reader in enumerate(self._readers)]


def _greatest_variance(teachers: int, classes: int) -> float:
    """Of so many sure teachers of equal weight, summed over the classes; 1 for one teacher, who has none."""
    share = np.bincount(np.arange(teachers) % classes, minlength=classes) / teachers
    return float((share * (1 - share)).sum()) or 1.0
