"""Disagreements, agreement and calibration error: exact where that can be, honest in simulation."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.gate.metrics import calibration_gaps, expected_calibration_error
from stillroom.gate.statistics import cells
from stillroom.gate.uncertainty import agreement_bounds, ece_bounds, mcnemar


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (5, 0), (7, 2), (3, 9), (4, 4)])
def test_mcnemar_is_the_count_of_coin_tosses_no_likelier(lost: int, won: int) -> None:
    labels = np.zeros(40, dtype=int)
    teacher, student = labels.copy(), labels.copy()
    student[:lost] = 1
    teacher[lost : lost + won] = 1
    teacher[30:], student[30:] = 1, 2  # both wrong, in ways of their own
    n = lost + won
    no_likelier = [comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, lost)]
    assert mcnemar(cells(labels, teacher, student)) == (lost, won, pytest.approx(sum(no_likelier) / 2**n))


def test_mcnemar_counts_whole_sets_of_labels() -> None:
    rows = np.array(list(product([0, 1], repeat=2)))
    teacher, student = rows.copy(), rows.copy()
    student[0] = [1, 0]
    student[1] = [1, 0]
    assert mcnemar(cells(rows, teacher, student))[:2] == (2, 0)


def test_agreement_has_the_exact_binomial_bounds() -> None:
    labels = np.zeros(50, dtype=int)
    same = agreement_bounds(cells(labels, labels, labels), 0.95)
    assert same == (1.0, pytest.approx(0.05 ** (1 / 50)), 1.0)
    student = np.where(np.arange(50) < 5, 1, labels)
    share, low, high = agreement_bounds(cells(labels, labels, student), 0.95)
    assert share == 0.9
    at = {p: sum(comb(50, k) * (1 - p) ** k * p ** (50 - k) for k in range(6)) for p in (low, high)}
    assert at[low] == pytest.approx(0.05, abs=1e-6)  # 5 losses or fewer: as rare as promised at the lower end
    assert 1 - at[high] + comb(50, 5) * (1 - high) ** 5 * high**45 == pytest.approx(0.05, abs=1e-6)


def drawn(rng: np.random.Generator, rows: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes, and probabilities whose logits are the true ones × sharpness."""
    logits = rng.normal(2.0, 1.2, rows)
    told = 1 / (1 + np.exp(-sharpness * logits))
    return (rng.random(rows) > 1 / (1 + np.exp(-logits))).astype(int), np.stack([told, 1 - told], axis=1)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_point_is_the_calibration_error_and_the_order_of_rows_changes_nothing(seed: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    labels, shares = drawn(rng, 80, 1.5)
    if several:
        labels, shares = (rng.random((80, 3)) < 0.5).astype(int), rng.random((80, 3))
    point, low, high = found = ece_bounds(labels, shares, 0.95, 100, 0)
    assert point == pytest.approx(expected_calibration_error(labels, shares))
    assert 0.0 <= low <= point <= high <= 1.0
    order = rng.permutation(80)
    assert ece_bounds(labels[order], shares[order], 0.95, 100, 0) == found


def test_the_gaps_of_a_row_lie_in_one_bin_and_add_up() -> None:
    labels, shares = drawn(np.random.default_rng(0), 200, 1.5)
    gaps = calibration_gaps(labels, shares)
    assert ((gaps != 0).sum(axis=1) == 1).all()
    right = shares.argmax(axis=1) == labels
    assert gaps.sum() == pytest.approx((right - shares.max(axis=1)).sum())


def test_the_seed_decides() -> None:
    labels, shares = drawn(np.random.default_rng(0), 200, 1.5)
    assert ece_bounds(labels, shares, 0.95, 200, 1) == ece_bounds(labels, shares, 0.95, 200, 1)
    assert ece_bounds(labels, shares, 0.95, 200, 1) != ece_bounds(labels, shares, 0.95, 200, 2)


def test_a_single_row_says_nothing_of_calibration() -> None:
    assert ece_bounds(np.array([0]), np.array([[0.9, 0.1]]), 0.95, 100, 0)[1:] == (0.0, 1.0)


@pytest.mark.parametrize("sharpness", [1.0, 1.3, 2.0])
def test_the_upper_bound_lies_below_the_truth_no_oftener_than_promised(sharpness: float) -> None:
    rng = np.random.default_rng(0)
    truth = expected_calibration_error(*drawn(rng, 200_000, sharpness))
    runs = 120
    below = above = 0
    for run in range(runs):
        _, low, high = ece_bounds(*drawn(rng, 1000, sharpness), 0.95, 200, run)
        below += high < truth
        above += low > truth
    assert below / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    if sharpness == 2.0:
        assert above / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
