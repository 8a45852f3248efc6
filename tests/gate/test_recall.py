"""Class recall beside the teacher's: exact against enumeration, within its error rate, and fair to rare classes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import false_discovery_control, multinomial
from sklearn.metrics import recall_score

from stillroom.gate.recall import class_recalls, holm, least_rows, p_value
from stillroom.gate.statistics import cells
from tests.gate.evaluations import labels_of


def tables(rows: int) -> list[tuple[int, int, int]]:
    """Every (both, teacher_only, student_only) of so many rows."""
    return [(rows - b - c, b, c) for b in range(rows + 1) for c in range(rows + 1 - b)]


def edge(floor: float) -> list[list[float]]:
    """True shares at which the student's recall is exactly floor × the teacher's."""
    return [[floor - (1 + floor) * x, 1 - floor + floor * x, x] for x in np.linspace(0, floor / (1 + floor), 61)]


@pytest.mark.parametrize("floor", [0.7, 0.9, 1.0])
@pytest.mark.parametrize("rows", [6, 17])
def test_no_level_is_ever_exceeded_whatever_the_true_shares(floor: float, rows: int) -> None:
    found = np.array([p_value(*table, floor) for table in tables(rows)])
    for shares in edge(floor):
        chance = multinomial.pmf(np.array(tables(rows)), rows, shares)
        for level in np.unique(found):
            assert chance[found <= level].sum() <= level + 1e-3 * level + 1e-12


def score(both: int, lost: int, won: int, floor: float) -> float:
    """Nam and Blackwelder's statistic, with the likeliest shares on the edge found by search."""
    rows = both + lost + won

    def unlikelihood(x: float) -> float:
        shares = (floor - (1 + floor) * x, 1 - floor + floor * x, x)
        return -float(xlogy((both, lost, won), np.maximum(shares, 1e-300)).sum())

    x = minimize_scalar(unlikelihood, bounds=(0, floor / (1 + floor)), method="bounded", options={"xatol": 1e-10}).x
    variance = rows * (1 - floor + floor * x + floor**2 * x - (1 - floor) ** 2)
    return float((lost - (1 - floor) * rows - floor * won) / np.sqrt(max(variance, 1e-12)))


@pytest.mark.parametrize("floor", [0.7, 0.9, 1.0])
def test_the_p_value_is_the_worst_chance_of_a_score_no_smaller(floor: float) -> None:
    every = tables(14)
    scores = np.array([score(*table, floor) for table in every])
    chances = np.array([multinomial.pmf(np.array(every), 14, shares) for shares in edge(floor)])
    for table, here in zip(every, scores, strict=True):
        if here > 1.0:
            worst = chances[:, scores >= here - 1e-6].sum(axis=1).max()
            assert p_value(*table, floor) == pytest.approx(worst, rel=0.02)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_a_loss_more_or_a_win_less_is_never_weaker_proof(both: int, lost: int, won: int, floor: float) -> None:
    here = p_value(both, lost, won, floor)
    assert 0.0 < here <= 1.0
    if both:
        assert p_value(both - 1, lost + 1, won, floor) <= here + 1e-9
    if won:
        assert p_value(both + 1, lost, won - 1, floor) <= here + 1e-9


def test_a_student_above_the_floor_is_never_suspected() -> None:
    assert p_value(90, 10, 0, 0.9) == 1.0
    assert p_value(0, 0, 0, 0.9) == 1.0
    assert p_value(80, 20, 0, 0.9) < 0.01


def test_holm_by_hand_and_between_bonferroni_and_no_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    drawn = np.random.default_rng(0).random(30) ** 3
    corrected = np.array(holm(list(drawn)))
    assert (corrected <= np.minimum(drawn * 30, 1)).all()
    assert (corrected >= false_discovery_control(drawn) - 1e-12).all()  # Benjamini and Hochberg promise less


def drawn(seed: int, several: bool) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((300, 4)) < 0.4).astype(int) if several else rng.integers(0, 4, 300)
    wrong = 1 - labels if several else (labels + 1) % 4
    return labels, *(np.where(rng.random(labels.shape) < share, labels, wrong) for share in (0.95, 0.8))


@pytest.mark.parametrize("several", [False, True])
@given(seed=st.integers(0, 2**32 - 1))
def test_recalls_are_scikit_learns_and_the_order_of_rows_changes_nothing(several: bool, seed: int) -> None:
    labels, teacher, student = drawn(seed, several)
    found = class_recalls(cells(labels, teacher, student), 0.9, 0.05)
    for model, chosen in (("teacher", teacher), ("student", student)):
        expected = recall_score(labels, chosen, average=None)
        assert [getattr(found[c], model) for c in range(4)] == pytest.approx(list(expected))
    order = np.random.default_rng(seed).permutation(len(labels))
    assert class_recalls(cells(labels[order], teacher[order], student[order]), 0.9, 0.05) == found


@pytest.mark.parametrize("several", [False, True])
def test_the_class_that_fell_is_named_and_no_other(several: bool) -> None:
    labels = labels_of(400)
    student = labels.copy()
    student[(labels == 2) & (np.arange(400) < 200)] = 3
    columns = [np.eye(4, dtype=int)[one] if several else one for one in (labels, labels, student)]
    found = class_recalls(cells(*columns), 0.9, 0.05)
    assert {c for c, one in found.items() if one.p_value <= 0.05} == {2}
    assert (found[2].student, found[2].teacher, found[2].rows) == (0.5, 1.0, 100)


@pytest.mark.parametrize("floor", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 77])
def test_the_least_rows_are_those_from_which_losing_all_fails(floor: float, level: float) -> None:
    least = least_rows(floor, level)
    assert p_value(0, least, 0, floor) <= level
    assert p_value(0, least - 1, 0, floor) > level


def test_rows_that_are_needed_let_the_class_fail_when_the_teacher_knows_as_large_a_share() -> None:
    labels = np.array([0] * 200 + [1] * 6 + [2] * 5)
    teacher = np.where((labels == 1) & (np.arange(211) % 2 == 0) | (labels == 2), 0, labels)
    found = class_recalls(cells(labels, teacher, np.zeros(211, dtype=int)), 0.9, 0.05)
    assert [found[c].decidable for c in range(3)] == [True, False, False]
    needed = found[1].needed
    assert (needed, found[2].needed) == (14, None), "the teacher knows half of one class and none of the other"
    assert p_value(0, 7, 0, 0.9) <= 0.05 / 3 < p_value(0, 6, 0, 0.9)


def test_what_few_rows_cannot_show_is_undecidable() -> None:
    labels = np.array([0] * 200 + [1] * 3)
    student = np.zeros(203, dtype=int)
    found = class_recalls(cells(labels, labels, student), 0.9, 0.05)
    assert (found[0].decidable, found[1].decidable) == (True, False)
    assert found[1].p_value > 0.05


def test_classes_are_failed_by_chance_no_oftener_than_promised_and_bad_ones_are_found() -> None:
    rng = np.random.default_rng(0)
    runs, classes, each = 300, 12, 50
    labels = np.repeat(np.arange(classes), each)

    def failed(fallen: float) -> set[int]:
        right = rng.random(labels.size) < 0.95
        kept = rng.random(labels.size) < np.where(labels == 0, fallen, 0.9)  # at the floor, wins aside
        teacher, student = (np.where(hit, labels, (labels + 1) % classes) for hit in (right, right & kept))
        found = class_recalls(cells(labels, teacher, student), 0.9, 0.05)
        return {c for c, one in found.items() if one.p_value <= 0.05}

    false = sum(bool(failed(0.9)) for _ in range(runs)) / runs
    assert false <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert sum(0 in failed(0.5) for _ in range(100)) >= 95
