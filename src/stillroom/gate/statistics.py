"""Retention with its uncertainty: a paired, stratified bootstrap over test rows.

An *answer* is a class or, where a row may have several, a set of them; both are numbered. Rows that share (label,
teacher's choice, student's choice) are one *cell*, and both metrics depend on the cells' counts alone. Drawing rows
with replacement within an answer is drawing that answer's counts from a multinomial, so a resample costs as much as
there are cells, not rows: 10,000 resamples of 3,080 rows in 77 classes take a fraction of a second, where
`scipy.stats.bootstrap` would recompute macro-F1 on 31 million rows. Cells are sorted, so the order of the rows
changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillroom.errors import InputError
from stillroom.gate_params import MetricName

MIN_CLASS_ROWS = 5
_BATCH = 1000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Cells:
    """How many test rows have each triple of label, teacher's choice and student's choice; arrays [cells].

    members: the classes of every answer, sparse [answers, classes] of 0 and 1; the last answer is another than the
    first label's, and may be nobody's.
    """

    label: Ints
    teacher: Ints
    student: Ints
    count: Floats
    members: Any

    @property
    def rows(self) -> int:
        """Number of test rows."""
        return int(self.count.sum())

    @property
    def support(self) -> dict[int, int]:
        """Rows of every answer that is some row's label."""
        return {int(c): int(self.count[self.label == c].sum()) for c in np.unique(self.label)}

    @property
    def several(self) -> bool:
        """Whether an answer may be several classes."""
        return bool((self.members.sum(axis=1) != 1).any())

    @property
    def rows_of_class(self) -> dict[int, int]:
        """Rows of every class that has some, by class id."""
        rows = self.members[self.label].T @ self.count
        return {int(c): int(rows[c]) for c in np.flatnonzero(rows)}

    def shown(self, answer: int, names: Sequence[str]) -> str:
        """An answer in words."""
        return " and ".join(names[c] for c in self.members[[answer]].nonzero()[1].tolist()) or "no label"


@dataclass(frozen=True)
class Retention:
    """Student's metric ÷ teacher's on the same rows, with a one-sided bound on either side."""

    point: float
    lower: float
    upper: float
    student: float
    teacher: float


def cells(labels: ArrayLike, teacher: ArrayLike, student: ArrayLike) -> Cells:
    """Group rows, given as three arrays of labels (see stillroom.problem); InputError for no rows or shapes that
    differ."""
    from scipy.sparse import csr_array, eye_array

    columns = [np.asarray(values, dtype=np.int64) for values in (labels, teacher, student)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim not in (1, 2) or not len(columns[0]):
        shapes = ", ".join(str(column.shape) for column in columns)
        raise InputError(f"gate: labels, teacher and student have shapes {shapes}; give the same rows of each")
    if columns[0].ndim == 1:
        answers, members = np.stack(columns), eye_array(max(map(np.max, columns)) + 2, format="csr")
    else:
        rows = np.concatenate(columns)
        sets, numbers = np.unique(rows, axis=0, return_inverse=True)
        answers, members = numbers.reshape(3, -1), csr_array(np.vstack([sets, 1 - rows[:1]]).astype(np.float64))
    triples, count = np.unique(answers, axis=1, return_counts=True)
    return Cells(triples[0], triples[1], triples[2], count.astype(np.float64), members)


def retention(sample: Cells, metric: MetricName, confidence: float, resamples: int, seed: int) -> Retention:
    """Bootstrap the ratio of the two models' metric; each bound by itself holds with that confidence.

    Percentiles, taken as if the test set had one row more that speaks against the claim: for the lower bound
    one that the teacher gets right and the student wrong, for the upper bound the reverse; it belongs to each
    class by the class's share of rows. A student that lost b rows is thereby judged by b + 1, as in Clopper
    and Pearson's interval, and as Tiwari, Clegg and Zou (Stat. Methods Med. Res. 15, 2006, 547-569) do for
    weighted counts. Without it a bootstrap, BCa too, takes "lost nothing" for "cannot lose":
    docs/reference/gate.md has the error rates. Of a stratum's n rows n - 1 are drawn, each with weight n / (n
    - 1), which makes the variance of small strata unbiased (Rao and Wu, J. Am. Stat. Assoc. 83, 1988,
    231-241).

    Raises InputError where the teacher's metric is 0, because the ratio then means nothing.
    """
    student, teacher = (float(value[0]) for value in _scores(sample, metric, sample.count[:, None]))
    if teacher == 0.0:
        raise InputError(f"gate: the teacher's {metric} on {sample.rows} rows is 0; retention is undefined")
    point = student / teacher
    tail = 1.0 - confidence
    lost = _ratios(sample, metric, resamples, seed, lost=True)
    won = _ratios(sample, metric, resamples, seed, lost=False)
    lower = float(np.quantile(lost, tail, method="lower"))
    upper = float(np.quantile(won, 1.0 - tail, method="higher"))
    return Retention(point, min(lower, point), max(upper, point), student, teacher)


def teacher_score(sample: Cells, metric: MetricName) -> float:
    """The teacher's metric on all rows."""
    return float(_scores(sample, metric, sample.count[:, None])[1][0])


def rows_to_decide(found: Retention, threshold: float, rows: int) -> int | None:
    """About how many test rows would put the threshold outside the bounds, if the point stays where it is.

    Approximation: a bound's distance from the point shrinks with the square root of the rows, and a larger
    test set has the same shares of cells. As the point moves too, that many rows decide about half the time.
    None where the point sits so close to the threshold that a thousand million rows would not do.
    """
    gap = found.point - threshold
    reach = found.point - found.lower if gap > 0 else found.upper - found.point
    if reach > abs(gap) * np.sqrt(1e9 / rows):
        return None
    return max(rows + 1, int(np.ceil((reach / gap) ** 2 * rows)))


def _ratios(sample: Cells, metric: MetricName, resamples: int, seed: int, *, lost: bool) -> Floats:
    """Ratios [resamples] with the row against the claim; an undefined one (teacher at 0) counts against it
    too."""
    rng = np.random.default_rng(seed)
    leaning = _with_phantom(sample, lost)
    strata = [(np.flatnonzero(np.isin(leaning.label, classes)), rows) for classes, rows in _strata(sample, metric)]
    found = []
    for weights in _resampled(leaning.count, strata, resamples, rng):
        student, teacher = _scores(leaning, metric, weights)
        undefined = np.full_like(student, 0.0 if lost else sample.rows)
        found.append(np.divide(student, teacher, out=undefined, where=teacher > 0))
    return np.concatenate(found)


def _with_phantom(sample: Cells, lost: bool) -> Cells:
    """The cells and one row more, cut over the answers by their share; wrong is taken as the smallest other answer."""
    support = sample.support
    by_rows = sorted(support, key=lambda c: (support[c], c))
    right = np.array(sorted(support))
    spare = sample.members.shape[0] - 1
    wrong = np.array([next((c for c in by_rows if c != own), spare) for own in right])
    share = np.array([support[c] for c in right]) / sample.rows
    teacher, student = (right, wrong) if lost else (wrong, right)
    return Cells(
        np.append(sample.label, right),
        np.append(sample.teacher, teacher),
        np.append(sample.student, student),
        np.append(sample.count, share),
        sample.members,
    )


def _strata(sample: Cells, metric: MetricName) -> list[tuple[list[int], int]]:
    """Answers and rows of each stratum: one answer each; for accuracy, and where answers are sets, those with few rows
    are pooled.

    Macro-F1 needs every class in every resample; the verdict asks for MIN_CLASS_ROWS of each.
    """
    support = sample.support
    may_pool = metric == "accuracy" or sample.several
    pooled = [c for c in support if may_pool and support[c] < MIN_CLASS_ROWS]
    alone = [c for c in support if c not in pooled]
    if pooled and alone and sum(support[c] for c in pooled) < MIN_CLASS_ROWS:
        largest = max(alone, key=lambda c: support[c])
        alone.remove(largest)
        pooled.append(largest)
    groups = [[c] for c in alone] + ([pooled] if pooled else [])
    return [(group, sum(support[c] for c in group)) for group in groups]


def _resampled(
    count: Floats, strata: Sequence[tuple[Places, int]], resamples: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Yield weights [cells, batch] until `resamples` columns were drawn; a stratum of one row stays as it
    is."""
    for start in range(0, resamples, _BATCH):
        batch = min(_BATCH, resamples - start)
        weights = np.empty((len(count), batch))
        for place, rows in strata:
            share = count[place] / count[place].sum()
            draws = max(rows - 1, 1)
            weights[place] = rng.multinomial(draws, share, size=batch).T * (rows / draws)
        yield weights


def _scores(sample: Cells, metric: MetricName, weights: Floats) -> tuple[Floats, Floats]:
    """The metric of student and teacher [batch] under weights [cells, batch]."""
    if metric == "macro_f1":
        return _macro_f1(sample, sample.student, weights), _macro_f1(sample, sample.teacher, weights)
    rows = weights.sum(axis=0)
    student, teacher = ((choice == sample.label) @ weights for choice in (sample.student, sample.teacher))
    return student / rows, teacher / rows


def _macro_f1(sample: Cells, choice: Ints, weights: Floats) -> Floats:
    """Mean over the classes that have rows of 2 TP / (rows + times chosen), as gate.metrics defines it.

    A class that no resampled row has counts for nothing in that resample: it has no true positive either.
    """
    label, chosen = sample.members[sample.label], sample.members[choice]
    present = np.flatnonzero(label.sum(axis=0))
    label, chosen = label[:, present], chosen[:, present]
    hit, rows, times = ((part.T @ weights) for part in (label.multiply(chosen), label, chosen))
    scores: Floats = (2.0 * hit / np.maximum(rows + times, 1e-12)).sum(axis=0) / np.maximum((rows > 0).sum(axis=0), 1)
    return scores
