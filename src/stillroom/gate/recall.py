"""Recall of every class beside the teacher's on the same rows: an exact test of each against a floor.

Holm's correction lets many classes be tested at once: with 77 of them at 5 % each, four would fail by chance.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillroom.gate.statistics import Cells

Floats = NDArray[np.float64]
_GRID = 200


@dataclass(frozen=True)
class ClassRecall:
    """One class. rows: test rows that have it; p_value: after Holm's correction; decidable: whether any answers of
    the student to these rows would have failed it; needed: about how many rows it takes for that, None where the
    teacher never names the class and so no number is known."""

    rows: int
    teacher: float
    student: float
    p_value: float
    decidable: bool
    needed: int | None


def class_recalls(sample: Cells, floor: float, significance: float) -> dict[int, ClassRecall]:
    """Test every class that has test rows, by class id; where a row may have several, it counts for each of them.

    The corrected p-values of Holm (Scand. J. Stat. 6, 1979, 65-70), the k-th smallest of n times n - k + 1 and no
    less than the one before, keep the chance of failing any class that reaches the floor within `significance`,
    whatever the classes have to do with one another. A class is undecidable where the teacher names it so seldom
    that a student which never does would not be failed at significance ÷ n, the level that the smallest must meet.
    """
    label, teacher, student = (sample.members[answer] for answer in (sample.label, sample.teacher, sample.student))
    known, kept = label.multiply(teacher), label.multiply(student)
    counts = [part.T @ sample.count for part in (label, known.multiply(kept), known, kept)]
    classes = np.flatnonzero(counts[0])
    rows, both, known, kept = (np.rint(part[classes]).astype(int).tolist() for part in counts)
    raw = [p_value(n, t - n, s - n, floor) for n, t, s in zip(both, known, kept, strict=True)]
    least = least_rows(floor, significance / max(len(raw), 1))
    return {
        int(c): ClassRecall(n, t / n, s / n, p, t >= least, -(-least * n // t) if t else None)
        for c, n, t, s, p in zip(classes, rows, known, kept, holm(raw), strict=True)
    }


def least_rows(floor: float, level: float) -> int:
    """The fewest rows that the teacher gets right of which a student that loses all is failed at this level.

    No other table is as extreme, and where both are never right together a loss is as likely as the hypothesis lets it
    be: 1 ÷ (1 + floor).
    """
    return math.ceil(math.log(1.0 / level) / math.log1p(floor))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return [float(value) for value in corrected]


@functools.lru_cache(maxsize=4096)
def p_value(both: int, teacher_only: int, student_only: int, floor: float) -> float:
    """Exact one-sided p-value of "the student's recall is at least floor × the teacher's", of paired rows.

    both, teacher_only, student_only: the rows of the class on which these are right. Rows on which neither is say
    nothing of the ratio, so the test is given m, the number of the others: their three counts are then multinomial,
    and with x the share of student_only the hypothesis ends where that of teacher_only is 1 - floor + floor × x. Of
    the tables of m rows those count as at least as extreme that have no smaller score statistic (Nam and Blackwelder,
    Stat. Med. 21, 2002, 689-699), and what has fewer wins or more losses than one of those. The p-value is their
    probability under the worst x (Barnard, Biometrika 34, 1947, 123-138), and so is exact: whatever the true shares
    are, it falls to α or below with probability α at most. At floor 1 the score is McNemar's, whose conditional
    binomial test would need no worst x; below 1 no conditioning removes it.
    """
    rows = both + teacher_only + student_only
    observed = float(_score(np.array(teacher_only), np.array(student_only), rows, floor)) if rows else 0.0
    if observed <= 1e-9:
        return 1.0
    wins = np.arange(rows + 1)
    least = _least_losses(wins, rows, floor, observed)
    highest = floor / (1.0 + floor)
    places = highest * np.linspace(0.0, 1.0, _GRID + 1) ** 2  # denser where wins are rare and the tail moves fast
    found = _tail(places, wins, least, rows, floor)
    best = int(found.argmax())
    around = np.linspace(places[max(best - 1, 0)], places[min(best + 1, _GRID)], 41)
    finer = _tail(around, wins, least, rows, floor)
    return float(min(max(found[best], finer.max()), 1.0))


def _score(losses: NDArray[np.int_], wins: NDArray[np.int_], rows: int, floor: float) -> Floats:
    """How far losses exceed what the floor allows, in standard errors at the likeliest shares that just reach it."""
    excess = losses - (1.0 - floor) * rows - floor * wins
    # the likeliest x is the positive root of a × x² - b × x - c
    a = floor * (1.0 + floor) * rows
    b = wins * (2.0 * floor**2 - 1.0) + losses * floor**2 - (rows - losses - wins) * (1.0 - floor**2)
    c = wins * floor * (1.0 - floor)
    x = (b + np.sqrt(b**2 + 4.0 * a * c)) / (2.0 * a)
    variance = rows * (1.0 - floor + floor * x + floor**2 * x - (1.0 - floor) ** 2)
    scores: Floats = np.divide(excess, np.sqrt(variance), out=np.zeros(np.shape(excess)), where=variance > 0)
    return scores


def _least_losses(wins: NDArray[np.int_], rows: int, floor: float, observed: float) -> NDArray[np.int_]:
    """For each number of wins, the fewest losses that are as extreme as what was observed; rows + 1 where none are.

    The score rises with the losses, so halving finds them; the running minimum takes in what has fewer wins.
    """
    low, high = np.zeros_like(wins), rows - wins + 1
    while (low < high).any():
        middle = (low + high) // 2
        extreme = _score(middle, wins, rows, floor) >= observed - 1e-9
        open_ = low < high
        low, high = np.where(open_ & ~extreme, middle + 1, low), np.where(open_ & extreme, middle, high)
    least = np.where(low > rows - wins, rows + 1, low)
    return np.minimum.accumulate(least[::-1])[::-1]


def _tail(places: Floats, wins: NDArray[np.int_], least: NDArray[np.int_], rows: int, floor: float) -> Floats:
    """Probability [places] of the extreme tables at each share of wins, where the hypothesis just holds."""
    from scipy.stats import binom

    some = least <= rows - wins
    share = np.minimum((1.0 - floor + floor * places) / (1.0 - places), 1.0)
    chance = binom.pmf(wins[some], rows, places[:, None]) * binom.sf(least[some] - 1, rows - wins[some], share[:, None])
    summed: Floats = chance.sum(axis=1)
    return summed
