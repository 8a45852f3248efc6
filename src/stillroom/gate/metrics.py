"""Quality of predicted probabilities on labelled rows.

One definition for every stage and both models, so that a ratio of two figures compares like with like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillroom.errors import InputError
from stillroom.problem import ProblemType, accuracy, choices, problem_of

ECE_BINS = 15
_SUM_TOLERANCE = 1e-2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def checked(labels: ArrayLike, probabilities: ArrayLike, what: str = "predictions") -> tuple[Ints, Floats]:
    """Return labels int64, as in stillroom.problem, and probabilities float64 [n, classes], or refuse them.

    Raises InputError, naming `what`, for no rows, shapes that differ, labels out of range, values that are
    not finite, and values that are no probabilities (logits, for one).
    """
    truth, shares = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    several = truth.ndim == 2
    if shares.ndim != 2 or truth.shape != (shares.shape if several else shares.shape[:1]):
        shapes = f"labels have shape {truth.shape}, probabilities {shares.shape}"
        raise InputError(f"{what}: {shapes}; give [rows] or [rows, classes], and [rows, classes]")
    if not len(truth):
        raise InputError(f"{what}: no rows, so there is nothing to measure; give at least one labelled row")
    if not np.issubdtype(truth.dtype, np.integer):
        raise InputError(f"{what}: labels are {truth.dtype}; give class ids as integers")
    classes = shares.shape[1]
    if several:
        if classes < 2 or not np.isin(truth, (0, 1)).all():
            raise InputError(f"{what}: labels of {classes} classes; give 0 or 1 for each of two or more")
        _check_probabilities(shares, what)
        return truth.astype(np.int64), shares
    if classes < 2 or truth.min() < 0 or truth.max() >= classes:
        span = f"{truth.min()} to {truth.max()}"
        raise InputError(f"{what}: labels run from {span}, probabilities have {classes} classes; they must match")
    _check_distribution(shares, what)
    return truth.astype(np.int64), shares


def classification_metrics(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Accuracy, macro-F1 and ECE of probabilities [n, classes] against labels as in stillroom.problem.

    accuracy is the share of rows that are answered rightly, with every class where there are several. macro_f1 is
    the mean over the classes that occur in the labels. A class without test rows has no recall; counting it as soon
    as one model names it would give two models different denominators, and their ratio no meaning. (Naming it still
    costs the true class its recall.) Raises InputError as `checked` does.
    """
    truth, shares = checked(labels, probabilities)
    predicted = choices(shares, problem_of(truth))
    return {
        "accuracy": accuracy(predicted, truth),
        "macro_f1": macro_f1(truth, predicted),
        "ece": expected_calibration_error(truth, shares),
    }


def macro_f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the classes that occur in the labels; an F1 without any true positive is 0."""
    from sklearn.metrics import f1_score

    truth = np.asarray(labels)
    present = np.unique(truth) if truth.ndim == 1 else np.flatnonzero(truth.any(axis=0))
    if not len(present):
        return 0.0
    return float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0))


def per_class(labels: ArrayLike, probabilities: ArrayLike, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (rows) of every class by name, classes without rows included.

    A ratio with nothing below the line is 0. Raises InputError as `checked` does, and for missing names.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth, shares = checked(labels, probabilities)
    if len(names) != shares.shape[1]:
        raise InputError(f"predictions: {shares.shape[1]} classes but {len(names)} label names; they must match")
    columns: Any = precision_recall_fscore_support(
        truth, choices(shares, problem_of(truth)), labels=np.arange(len(names)), zero_division=0.0
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }


def agreement(probabilities: ArrayLike, others: ArrayLike, problem: ProblemType = "single_label") -> float:
    """Share of rows on which two models [n, classes] give the same answer; InputError as in `checked`."""
    first, second = np.asarray(probabilities), np.asarray(others)
    if first.shape != second.shape or first.ndim != 2 or not len(first):
        raise InputError(f"agreement: shapes {first.shape} and {second.shape}; give two equal [rows, classes]")
    check = _check_distribution if problem == "single_label" else _check_probabilities
    for shares in (first, second):
        check(shares, "agreement")
    return accuracy(choices(first, problem), choices(second, problem))


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: per bin, mean confidence, accuracy and number of rows, by rising confidence."""

    confidence: Floats
    accuracy: Floats
    rows: Ints

    @property
    def ece(self) -> float:
        """Mean of |accuracy − confidence| over the bins, weighted by their rows."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.rows))


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = ECE_BINS) -> Reliability:
    """Bin rows by the probability of the chosen class, in bins of equal mass; equal confidences share a bin.

    Where a row may have several classes, every decision for or against one is binned by itself.

    Guo et al. 2017 (arXiv 1706.04599) cut the confidences in 15 bins of equal width. A good classifier leaves
    most of those almost empty, and the estimate then hangs on a few rows; bins of equal mass (Nixon et al.
    2019, arXiv 1904.01685) are steadier. With few rows ECE reads too high: compare it at equal rows only.
    """
    right, sure = _decisions(*checked(labels, probabilities))
    # Sorted first, so that the order of the rows cannot move the last bit of a sum.
    order = np.lexsort((right.ravel(), sure.ravel()))
    confidence, hit = sure.ravel()[order], right.ravel()[order]
    inner = _edges(confidence, bins)
    _, place = np.unique(np.searchsorted(inner, confidence, side="left"), return_inverse=True)
    rows = np.bincount(place)
    return Reliability(np.bincount(place, confidence) / rows, np.bincount(place, hit) / rows, rows)


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = ECE_BINS) -> float:
    """ECE of the chosen class over bins of equal mass; see `reliability` for the choice of bins."""
    return reliability(labels, probabilities, bins).ece


def calibration_gaps(labels: ArrayLike, probabilities: ArrayLike, bins: int = ECE_BINS) -> Floats:
    """Right - confidence of every row in its bin, 0 in the others, [n, bins]: ECE is what |mean over rows| sums to.

    Where a row may have several classes, the mean over its decisions. Rows are in an order of their own.
    """
    right, sure = _decisions(*checked(labels, probabilities))
    place = np.searchsorted(_edges(sure.ravel(), bins), sure, side="left")
    gaps = np.zeros((len(sure), bins))
    np.add.at(gaps, (np.arange(len(sure))[:, None], place), (right - sure) / sure.shape[1])
    ordered: Floats = gaps[np.lexsort(gaps.T)]
    return ordered


def _decisions(truth: Ints, shares: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Whether each decision was right, and the probability that it was made with; [n, 1] or [n, classes]."""
    right = choices(shares, problem_of(truth)) == truth
    if truth.ndim == 1:
        return right[:, None], shares.max(axis=1, keepdims=True)
    return right, np.maximum(shares, 1 - shares)


def _edges(confidence: Floats, bins: int) -> Floats:
    """Between the bins of equal mass, [bins - 1]."""
    edges: Floats = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    return edges


def _check_finite(shares: NDArray[Any], what: str) -> None:
    broken = ~np.isfinite(shares).all(axis=1)
    if broken.any():
        where = f"{int(broken.sum())} of {len(shares)} rows, the first at position {int(broken.argmax())}"
        raise InputError(f"{what}: probabilities are not finite in {where}; check the model that gave them")


def _check_probabilities(shares: NDArray[Any], what: str) -> None:
    _check_finite(shares, what)
    odd = ((shares < 0.0) | (shares > 1.0)).any(axis=1)
    if odd.any():
        row = shares[int(odd.argmax())]
        raise InputError(
            f"{what}: row {int(odd.argmax())} runs from {row.min():.3f} to {row.max():.3f}; "
            "give probabilities, not logits"
        )


def _check_distribution(shares: NDArray[Any], what: str) -> None:
    _check_finite(shares, what)
    odd = (shares < -_SUM_TOLERANCE).any(axis=1) | (np.abs(shares.sum(axis=1) - 1.0) > _SUM_TOLERANCE)
    if odd.any():
        row = shares[int(odd.argmax())]
        raise InputError(
            f"{what}: row {int(odd.argmax())} sums to {row.sum():.3f} with smallest value {row.min():.3f}; "
            "give probabilities, not logits"
        )
