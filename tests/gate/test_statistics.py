"""Retention and its bounds: exact where exactness is possible, and honest in simulation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, f1_score

from stillroom.errors import InputError
from stillroom.gate.statistics import Retention, cells, retention, rows_to_decide
from stillroom.gate_params import MetricName

METRICS: tuple[MetricName, ...] = ("accuracy", "macro_f1")
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, rows: int = 120, classes: int = 4) -> tuple[Any, Any, Any]:
    """Labels, and a teacher and a student that are mostly right."""
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), rng.integers(0, classes, rows - classes))
    teacher, student = (np.where(rng.random(rows) < 0.8, labels, rng.integers(0, classes, rows)) for _ in range(2))
    return labels, teacher, student


def judged(
    rows: tuple[Any, Any, Any], metric: MetricName = "accuracy", seed: int = 0, resamples: int = 400
) -> Retention:
    return retention(cells(*rows), metric, 0.95, resamples, seed)


@given(SEEDS)
def test_the_point_is_the_ratio_of_scikit_learns_metrics(seed: int) -> None:
    labels, teacher, student = drawn(seed)
    accuracy = accuracy_score(labels, student) / accuracy_score(labels, teacher)
    assert judged((labels, teacher, student)).point == pytest.approx(accuracy, abs=1e-12)
    f1 = {
        name: f1_score(labels, chosen, average="macro", labels=np.unique(labels))
        for name, chosen in (("student", student), ("teacher", teacher))
    }
    found = judged((labels, teacher, student), "macro_f1")
    assert found.student == pytest.approx(f1["student"], abs=1e-12)
    assert found.point == pytest.approx(f1["student"] / f1["teacher"], abs=1e-12)


@given(SEEDS, st.sampled_from(METRICS))
@settings(deadline=None, max_examples=40)
def test_order_of_rows_changes_nothing_and_bounds_enclose_the_point(seed: int, metric: MetricName) -> None:
    labels, teacher, student = drawn(seed)
    found = judged((labels, teacher, student), metric)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert judged((labels[order], teacher[order], student[order]), metric) == found
    assert found.lower <= found.point <= found.upper


@given(SEEDS, st.sampled_from(METRICS))
@settings(deadline=None, max_examples=40)
def test_a_right_answer_made_wrong_never_raises_the_point(seed: int, metric: MetricName) -> None:
    labels, teacher, student = drawn(seed)
    before = judged((labels, teacher, student), metric, resamples=100).point
    rng = np.random.default_rng(seed)
    row = rng.choice(np.flatnonzero(student == labels))
    worse = student.copy()
    worse[row] = (labels[row] + rng.integers(1, 4)) % 4
    assert judged((labels, teacher, worse), metric, resamples=100).point <= before + 1e-12


@pytest.mark.parametrize("metric", METRICS)
def test_seed_decides(metric: MetricName) -> None:
    rows = drawn(1, rows=500)
    assert judged(rows, metric, seed=3) == judged(rows, metric, seed=3)
    assert judged(rows, metric, seed=3).lower != judged(rows, metric, seed=4).lower
    assert judged(rows, metric, seed=3).lower == pytest.approx(judged(rows, metric, seed=4).lower, abs=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_a_copy_retains_exactly_1_and_its_bound_obeys_the_rule_of_three(metric: MetricName) -> None:
    labels, teacher, _ = drawn(0, rows=400)
    found = judged((labels, teacher, teacher), metric, resamples=2000)
    assert found.point == 1.0
    lossless = 3 / (teacher == labels).sum()
    assert 1.0 - 2 * lossless < found.lower < 1.0 - lossless / 2
    assert found.upper > 1.0


def test_scipys_bootstrap_agrees_where_there_are_rows_enough() -> None:
    labels, teacher, student = drawn(2, rows=4000)

    def ratio(first: Any, second: Any, axis: int) -> Any:
        return first.mean(axis=axis) / second.mean(axis=axis)

    hits = ((student == labels).astype(float), (teacher == labels).astype(float))
    with np.errstate(all="ignore"):
        interval = bootstrap(
            hits,
            ratio,
            paired=True,
            n_resamples=2000,
            confidence_level=0.9,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    found = judged((labels, teacher, student), resamples=4000)
    assert found.lower == pytest.approx(interval.low, abs=0.003)
    assert found.upper == pytest.approx(interval.high, abs=0.003)


def test_classes_of_one_row_each_are_not_taken_for_certainty() -> None:
    labels = np.arange(200)
    student = labels.copy()
    student[:20] += 1
    found = judged((labels, labels, student))
    assert found.lower < 0.88 < found.point < 0.92 < found.upper


def test_coverage_with_few_losses() -> None:
    rng = np.random.default_rng(0)
    rows, truth, runs = 300, 0.97, 400
    labels = np.arange(rows) % 3
    passed = failed = 0
    for run in range(runs):
        teacher = np.where(rng.random(rows) < 0.95, labels, (labels + 1) % 3)
        lost = (teacher == labels) & (rng.random(rows) >= truth)
        student = np.where(lost, (labels + 2) % 3, teacher)
        found = judged((labels, teacher, student), seed=run, resamples=500)
        passed += found.lower >= truth
        failed += found.upper < truth
    allowed = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert passed / runs <= allowed
    assert failed / runs <= allowed


def test_rows_to_decide_decides() -> None:
    labels, teacher, student = drawn(5, rows=300)
    found = judged((labels, teacher, student), resamples=4000)
    for threshold in (found.point - 0.03, found.point + 0.03):
        assert found.lower < threshold < found.upper
        rows = rows_to_decide(found, threshold, 300)
        assert rows is not None
        times = int(np.ceil(1.3 * rows / 300))
        larger = judged(tuple(np.tile(column, times) for column in (labels, teacher, student)), resamples=4000)
        assert larger.lower >= threshold or larger.upper < threshold


def test_no_number_of_rows_decides_a_tie() -> None:
    found = Retention(point=0.97, lower=0.95, upper=0.99, student=0.9, teacher=0.93)
    assert rows_to_decide(found, 0.97, 1000) is None
    assert rows_to_decide(found, 0.97 + 1e-9, 1000) is None
    assert rows_to_decide(found, 0.96, 1000) == pytest.approx(4000, abs=1)


def test_refused() -> None:
    with pytest.raises(InputError, match="teacher's accuracy on 3 rows is 0"):
        judged(([0, 1, 1], [1, 0, 0], [0, 1, 1]))
    with pytest.raises(InputError, match="same rows of each"):
        cells([0, 1], [0, 1], [0])
    with pytest.raises(InputError, match="same rows of each"):
        cells([], [], [])


def drawn_sets(seed: int, rows: int = 120, classes: int = 4) -> tuple[Any, Any, Any]:
    """Labels of any number a row, and a teacher and a student that are mostly right in each."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, classes)) < 0.4).astype(np.int64)
    labels[:classes] = np.eye(classes)
    return labels, *(np.where(rng.random(labels.shape) < 0.9, labels, 1 - labels) for _ in range(2))


@given(SEEDS)
def test_the_point_is_that_of_scikit_learn_where_rows_have_several_labels(seed: int) -> None:
    labels, teacher, student = drawn_sets(seed)
    accuracy = accuracy_score(labels, student) / accuracy_score(labels, teacher)
    assert judged((labels, teacher, student)).point == pytest.approx(accuracy, abs=1e-12)
    found = judged((labels, teacher, student), "macro_f1")
    assert found.student == pytest.approx(f1_score(labels, student, average="macro"), abs=1e-12)
    assert found.teacher == pytest.approx(f1_score(labels, teacher, average="macro"), abs=1e-12)


@given(SEEDS, st.sampled_from(METRICS))
@settings(deadline=None, max_examples=40)
def test_sets_of_labels_are_judged_whatever_the_order_of_rows_and_classes(seed: int, metric: MetricName) -> None:
    labels, teacher, student = drawn_sets(seed)
    found = judged((labels, teacher, student), metric)
    assert found.lower <= found.point <= found.upper
    order = np.random.default_rng(seed).permutation(len(labels))
    assert judged((labels[order], teacher[order], student[order]), metric) == found


@given(SEEDS, st.sampled_from(METRICS))
@settings(deadline=None, max_examples=20)
def test_one_label_a_row_is_judged_alike_as_a_class_and_as_a_set(seed: int, metric: MetricName) -> None:
    rows = drawn(seed)
    as_sets = tuple(np.eye(4, dtype=np.int64)[column] for column in rows)
    one, other = judged(rows, metric, resamples=2000), judged(as_sets, metric, resamples=2000)
    assert other.point == pytest.approx(one.point)
    assert (other.lower, other.upper) == pytest.approx((one.lower, one.upper), abs=0.02)


def test_a_bound_is_no_proof_where_every_row_has_the_same_labels() -> None:
    same = np.tile([1, 0, 1], (40, 1))
    found = judged((same, same, same))
    assert found.point == 1.0
    assert found.lower < 1.0
    assert cells(same, same, same).shown(0, "abc") == "a and c"
