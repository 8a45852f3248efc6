"""What a test set can decide, before anything is trained: the gate's bounds on simulated students of known quality.

Labels are those of the test rows. The teacher is right on a row with the probability `accuracy`, and otherwise gives
another answer, one that is the likelier the more test rows have it. The student is right on the share `wins` of the
rows that the teacher gets wrong, loses a share of those that it gets right, and where both err gives the same answer.
What it loses sets its true retention, which is that on a test set without end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillroom.errors import InputError
from stillroom.gate.statistics import MIN_CLASS_ROWS, cells, retention
from stillroom.gate_params import GateParams, MetricName

CHANCES = (0.8, 0.95)
_PLACES = 13
_RESAMPLES = 1000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnswerCounts:
    """Test rows by their answer, a class or a set of them: its classes, [answers, classes] of 0 and 1, and its rows."""

    members: Ints
    rows: Ints
    several: bool

    @property
    def share(self) -> Floats:
        """Share of the rows that have each answer."""
        return np.asarray(self.rows / self.rows.sum())


@dataclass(frozen=True)
class Teacher:
    """What is taken for granted: the teacher's accuracy, and the share of its mistakes that a student gets right."""

    accuracy: float = 0.95
    wins: float = 0.3


@dataclass(frozen=True)
class Power:
    """Of one metric: the share that passes of students whose true retention is the threshold (false_pass), and of
    copies of the teacher (copy_pass); least: chance to pass → the least true retention that has it, None where the best
    student that `Teacher` allows has not."""

    threshold: float
    false_pass: float
    copy_pass: float
    least: Mapping[float, float | None]


def count_answers(labels: Ints, classes: int) -> AnswerCounts:
    """The answers among labels as in stillroom.problem; InputError where all rows have the same."""
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes)
        members = np.eye(classes, dtype=np.int64)
        found = AnswerCounts(members[counts > 0], counts[counts > 0], several=False)
    else:
        members, counts = np.unique(labels, axis=0, return_counts=True)
        found = AnswerCounts(members, counts, several=True)
    if len(found.rows) < 2:
        raise InputError(f"gate power: {len(labels)} test rows with one label; give rows of two at least")
    return found


def power(
    test: AnswerCounts, gate: GateParams, teacher: Teacher, runs: int, seed: int, classes: int
) -> dict[MetricName, Power]:
    """Judge `runs` simulated students of each quality by every guarded metric, as the gate does (with 1,000 resamples).

    The chance to pass is measured at some retentions between the threshold and the best that there can be, and read off
    between them. No student passes by macro-F1 where one of the classes has fewer than MIN_CLASS_ROWS rows. Raises
    InputError for a teacher no better than always giving the most frequent answer, beside which the gate passes nobody.
    """
    if teacher.accuracy <= test.share.max():
        raise InputError(
            f"gate power: the teacher's accuracy is {teacher.accuracy:g}, and the most frequent answer has "
            f"{test.share.max():.2%} of the test rows; a teacher must be better than that"
        )
    thin = len(np.flatnonzero(test.rows @ test.members >= MIN_CLASS_ROWS)) < classes
    found: dict[MetricName, Power] = {}
    for metric, threshold in sorted(gate.retention.items()):
        if metric == "macro_f1" and thin:
            found[metric] = Power(threshold, 0.0, 0.0, dict.fromkeys(CHANCES))
            continue

        def passes(lost: float, wins: float, metric: MetricName = metric, threshold: float = threshold) -> float:
            passed = 0
            for run in range(runs):
                sample = cells(*student(test, teacher.accuracy, lost, wins, np.random.default_rng([seed, run])))
                passed += retention(sample, metric, gate.confidence, _RESAMPLES, run).lower >= threshold
            return passed / runs

        found[metric] = _power(test, metric, threshold, teacher, passes)
    return found


def _power(
    test: AnswerCounts, metric: MetricName, threshold: float, teacher: Teacher, passes: Callable[[float, float], float]
) -> Power:
    losses = np.linspace(lost_for(test, metric, threshold, teacher), 0.0, _PLACES)
    true = [true_retention(test, metric, teacher, lost) for lost in losses]
    chances: list[float] = []
    for lost in losses:
        # a better student passes no more seldom; what is lower is chance
        chances.append(max([passes(float(lost), teacher.wins), *chances[-1:]]))
        if chances[-1] >= max(CHANCES):
            break
    least = {
        chance: float(np.interp(chance, chances, true[: len(chances)])) if chances[-1] >= chance else None
        for chance in CHANCES
    }
    return Power(threshold, chances[0], passes(0.0, 0.0), least)


def student(
    test: AnswerCounts, accuracy: float, lost: float, wins: float, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """Draw labels, a teacher's answers and a student's, as in stillroom.problem."""
    label = np.repeat(np.arange(len(test.rows)), test.rows)
    upto = np.cumsum(test.share)
    # one of the other answers, by their shares: the label's stretch of the line is left out
    place = rng.random(len(label)) * (1.0 - test.share[label])
    place += np.where(place >= upto[label] - test.share[label], test.share[label], 0.0)
    wrong = np.minimum(np.searchsorted(upto, place, side="right"), len(upto) - 1)
    right, kept = rng.random(len(label)) < accuracy, rng.random(len(label))
    hit = np.where(right, kept >= lost, kept < wins)
    form = test.members if test.several else test.members.argmax(axis=1)
    return form[label], form[np.where(right, label, wrong)], form[np.where(hit, label, wrong)]


def true_retention(test: AnswerCounts, metric: MetricName, teacher: Teacher, lost: float) -> float:
    """Retention on a test set without end of a student that loses this share."""
    right = teacher.accuracy * (1.0 - lost) + (1.0 - teacher.accuracy) * teacher.wins
    return quality(test, metric, right) / quality(test, metric, teacher.accuracy)


def lost_for(test: AnswerCounts, metric: MetricName, retained: float, teacher: Teacher) -> float:
    """The share that a student of this true retention, at most 1, loses."""
    from scipy.optimize import brentq

    if true_retention(test, metric, teacher, 1.0) >= retained:
        return 1.0
    return float(brentq(lambda lost: true_retention(test, metric, teacher, lost) - retained, 0.0, 1.0))


def quality(test: AnswerCounts, metric: MetricName, accuracy: float) -> float:
    """A metric on a test set without end of a model that errs as this module has it."""
    if metric == "accuracy":
        return accuracy
    share = test.share[:, None]
    rows = (share * test.members).sum(axis=0)
    by_mistake = (rows - share * test.members) / (1.0 - share)
    given = accuracy * test.members + (1.0 - accuracy) * by_mistake
    hits, times = ((share * part).sum(axis=0) for part in (test.members * given, given))
    present = rows > 0
    return float((2.0 * hits / (rows + times))[present].mean())
