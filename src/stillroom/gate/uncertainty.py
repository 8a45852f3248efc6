"""What is told beside retention, and how sure it is: disagreements, agreement and calibration error."""

import numpy as np
from numpy.typing import NDArray

from stillroom.gate.metrics import Floats, Ints, calibration_gaps
from stillroom.gate.statistics import Cells

_VALUES = 5_000_000
"""Resampled values that are held at a time."""


def mcnemar(sample: Cells) -> tuple[int, int, float]:
    """Rows on which only the teacher, and only the student, is right; exact two-sided p-value that neither is
    commoner (McNemar, Psychometrika 12, 1947, 153-157): given their number, each is a fair coin's. 1 without any."""
    from scipy.stats import binomtest

    teacher, student = sample.teacher == sample.label, sample.student == sample.label
    lost, won = (int(sample.count[rows].sum()) for rows in (teacher & ~student, student & ~teacher))
    return lost, won, float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def agreement_bounds(sample: Cells, confidence: float) -> tuple[float, float, float]:
    """Share of rows on which both give the same answer, and its one-sided bounds (Clopper and Pearson, Biometrika 26,
    1934, 404-413)."""
    from scipy.stats import binomtest

    same = int(sample.count[sample.teacher == sample.student].sum())
    interval = binomtest(same, sample.rows).proportion_ci(2.0 * confidence - 1.0, method="exact")
    return same / sample.rows, float(interval.low), float(interval.high)


def ece_bounds(
    labels: Ints, probabilities: Floats, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Expected calibration error and its one-sided bounds, by scipy's bootstrap over rows, in the bins of all rows.

    The error sums absolute gaps, which chance makes larger, and resampling makes them larger once more. The upper
    bound is the percentile, which errs on the safe side by that; the lower one lies as far below what was measured
    (the basic bootstrap: Davison and Hinkley, Bootstrap Methods, 1997, section 5.2), where the percentile would often
    lie above it. Near 0 the lower bound still is too high: a model that errs by nothing measures more than nothing.
    """
    from scipy.stats import bootstrap

    gaps = calibration_gaps(labels, probabilities)
    if len(gaps) == 1:
        return float(np.abs(gaps).sum()), 0.0, 1.0

    one_bin = bool((np.count_nonzero(gaps, axis=1) <= 1).all())  # so it is unless a row has several decisions
    bins, inside, gap = gaps.shape[1], np.abs(gaps).argmax(axis=1), gaps.sum(axis=1)

    def error(rows: NDArray[np.intp], axis: int = -1) -> Floats:
        drawn = np.atleast_2d(rows)
        if one_bin:
            place = inside[drawn] + bins * np.arange(len(drawn))[:, None]
            sums = np.bincount(place.ravel(), gap[drawn].ravel(), bins * len(drawn)).reshape(-1, bins)
        else:
            sums = gaps[drawn].sum(axis=1)
        found: Floats = np.abs(sums / drawn.shape[1]).sum(axis=1)
        return found if rows.ndim > 1 else found[0]

    place = np.arange(len(gaps))
    upper = bootstrap(
        (place,),
        error,
        n_resamples=resamples,
        batch=max(1, _VALUES // gaps.size),
        vectorized=True,
        confidence_level=2.0 * confidence - 1.0,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval.high
    point = float(error(place))
    reach = max(float(upper) - point, 0.0)
    return point, max(point - reach, 0.0), min(point + reach, 1.0)
