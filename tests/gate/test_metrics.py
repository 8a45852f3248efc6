"""Metrics: against scikit-learn and by hand, and every set of predictions that must be refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from stillroom.errors import InputError
from stillroom.gate.metrics import (
    agreement,
    classification_metrics,
    expected_calibration_error,
    macro_f1,
    per_class,
    reliability,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def drawn(seed: int, rows: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1.5
    return labels, softmax(logits)


@given(st.integers(0, 2**32 - 1))
def test_accuracy_and_macro_f1_are_scikit_learns(seed: int) -> None:
    labels, probabilities = drawn(seed)
    metrics = classification_metrics(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    assert metrics["accuracy"] == accuracy_score(labels, predicted)
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=np.unique(labels), average="macro"))
    assert 0.0 <= metrics["ece"] <= 1.0


@given(st.integers(0, 2**32 - 1))
def test_order_of_rows_changes_not_a_bit(seed: int) -> None:
    labels, probabilities = drawn(seed, rows=60)
    order = np.random.default_rng(seed).permutation(60)
    assert classification_metrics(labels[order], probabilities[order]) == classification_metrics(labels, probabilities)


def test_a_class_without_rows_does_not_change_the_mean_over_classes() -> None:
    labels = np.array([0, 0, 1, 1])
    assert macro_f1(labels, [0, 0, 1, 2]) == pytest.approx((1.0 + 2 / 3) / 2)


def test_ece_by_hand() -> None:
    sure_and_right = np.tile([0.9, 0.1], (9, 1))
    sure_and_wrong = np.array([[0.9, 0.1]])
    labels = np.array([0] * 9 + [1])
    assert expected_calibration_error(labels, np.vstack([sure_and_right, sure_and_wrong])) == pytest.approx(0.0)
    assert expected_calibration_error(np.ones(10, int), np.tile([0.9, 0.1], (10, 1))) == pytest.approx(0.9)


def test_calibrated_predictions_have_little_ece_and_overconfident_ones_much() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.05, 0.95, 20_000)
    labels = (rng.uniform(size=first.size) > first).astype(int)
    assert expected_calibration_error(labels, np.stack([first, 1 - first], axis=1)) < 0.02
    sharper = first**4 / (first**4 + (1 - first) ** 4)
    assert expected_calibration_error(labels, np.stack([sharper, 1 - sharper], axis=1)) > 0.1


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_reliability_counts_every_row_once(seed: int, rows: int) -> None:
    labels, probabilities = drawn(seed, rows=rows)
    diagram = reliability(labels, probabilities)
    assert diagram.rows.sum() == rows
    assert (diagram.rows > 0).all()
    assert (np.diff(diagram.confidence) > 0).all()


def test_per_class_names_every_class() -> None:
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    table = per_class(labels, probabilities, ["a", "b", "c"])
    assert table["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert table["b"]["precision"] == 0.5
    assert table["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_agreement_is_about_the_chosen_class() -> None:
    first = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert agreement(first, np.array([[0.9, 0.1], [0.9, 0.1]])) == 0.5


NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "probabilities", "told"),
    [
        ([], np.empty((0, 2)), "no rows"),
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([0], [0.5], "shape"),
        ([0.0], [[0.5, 0.5]], "class ids"),
        ([2], [[0.5, 0.5]], "must match"),
        ([-1], [[0.5, 0.5]], "must match"),
        ([0], [[1.0]], "must match"),
        ([0, 1], [[0.5, 0.5], [NAN, 0.5]], "not finite in 1 of 2 rows, the first at position 1"),
        ([0], [[float("inf"), 0.0]], "not finite"),
        ([0], [[3.2, -1.0]], "not logits"),
    ],
)
def test_refused(labels: Any, probabilities: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        classification_metrics(labels, probabilities)
    with pytest.raises(InputError, match=told):
        per_class(labels, probabilities, ["a", "b"])


def test_per_class_and_agreement_refuse_what_does_not_match() -> None:
    with pytest.raises(InputError, match="label names"):
        per_class([0], [[0.5, 0.5]], ["a"])
    with pytest.raises(InputError, match="equal"):
        agreement([[0.5, 0.5]], [[0.2, 0.3, 0.5]])
    with pytest.raises(InputError, match="not finite"):
        agreement([[0.5, 0.5]], [[NAN, 0.5]])


def test_rows_with_several_labels_are_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(8)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int64)
    shares = np.clip(labels * 0.6 + rng.random(labels.shape) * 0.5, 0, 1)
    chosen = (shares >= 0.5).astype(np.int64)
    found = classification_metrics(labels, shares)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, chosen))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    sure, right = np.maximum(shares, 1 - shares).ravel(), (chosen == labels).ravel()
    assert reliability(labels, shares).rows.sum() == sure.size
    assert found["ece"] == pytest.approx(_ece(sure, right), abs=1e-9)
    assert per_class(labels, shares, "abc")["b"]["f1"] == pytest.approx(f1_score(labels[:, 1], chosen[:, 1]))
    assert agreement(shares, 1 - shares, "multi_label") == 0.0


def _ece(sure: np.ndarray, right: np.ndarray) -> float:
    """ECE over 15 bins of equally many decisions, all confidences being different."""
    order = np.argsort(sure)
    bins = np.array_split(order, 15)
    return float(sum(len(b) * abs(sure[b].mean() - right[b].mean()) for b in bins) / len(sure))


@pytest.mark.parametrize(
    ("labels", "shares", "told"),
    [
        ([[0, 1]], [[0.5, 1.5]], "row 0 runs from 0.500 to 1.500; give probabilities"),
        ([[0, 1]], [[np.nan, 0.5]], "not finite in 1 of 1 rows"),
        ([[0, 2]], [[0.5, 0.5]], "give 0 or 1 for each"),
        ([[0, 1]], [[0.5, 0.5, 0.5]], "have shape"),
        ([[1]], [[0.5]], "labels of 1 classes"),
        (np.zeros((0, 2), int), np.zeros((0, 2)), "no rows"),
    ],
)
def test_several_labels_that_make_no_sense_are_refused(labels: Any, shares: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        classification_metrics(labels, shares)
