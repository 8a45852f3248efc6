"""One label or several: scores, choices and confidences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax

from stillroom.problem import (
    accuracy,
    choices,
    chosen_by,
    confidence,
    equal,
    least_confidence,
    named,
    probabilities,
    problem_of,
)

LABELS = ("a", "b", "c")
LOGITS = arrays(np.float32, (5, 3), elements=st.floats(-60, 60, width=32))
TEMPERATURES = st.floats(0.05, 20)


@given(LOGITS, TEMPERATURES)
def test_scores_are_those_of_scipy(logits: np.ndarray, temperature: float) -> None:
    wide = logits.astype(np.float64) / temperature
    one, several = (probabilities(logits, problem, temperature) for problem in ("single_label", "multi_label"))
    rounding = 1e-6 + float(np.finfo(np.float32).eps * np.abs(wide).max())  # of a scaled logit; scores move by less
    np.testing.assert_allclose(one, softmax(wide, axis=1), atol=rounding, rtol=0)
    np.testing.assert_allclose(several, expit(wide), atol=rounding, rtol=0)
    assert one.dtype == several.dtype == np.float32


@given(LOGITS, TEMPERATURES)
def test_logits_and_their_probabilities_choose_the_same(logits: np.ndarray, temperature: float) -> None:
    apart = np.abs(logits) > 1e-3
    logits = np.where(apart, logits, np.float32(1))
    scores = probabilities(logits, "multi_label", temperature)
    np.testing.assert_array_equal(choices(scores, "multi_label"), chosen_by(logits, "multi_label"))
    assert problem_of(chosen_by(logits, "multi_label")) == "multi_label"
    assert problem_of(chosen_by(logits, "single_label")) == "single_label"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_huge_logits_overflow_nowhere(dtype: type) -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype)
    np.testing.assert_allclose(probabilities(logits, "single_label", 0.5), [[1, 0, 0]])
    np.testing.assert_allclose(probabilities(logits, "multi_label", 0.5), [[1, 0, 0.5]])


@given(LOGITS)
def test_confidence_has_a_floor_and_is_that_of_the_least_sure_decision(logits: np.ndarray) -> None:
    for problem in ("single_label", "multi_label"):
        scores = probabilities(logits, problem)
        sure = confidence(scores, problem)
        assert (sure >= least_confidence(problem, 3) - 1e-6).all()
    np.testing.assert_allclose(sure, (0.5 + np.abs(scores - 0.5)).min(axis=1), atol=1e-6)


def test_an_answer_is_right_where_every_class_is() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    answers = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]])
    assert equal(answers, labels).tolist() == [True, False, False]
    assert accuracy(answers, labels) == pytest.approx(1 / 3)
    assert named(answers, LABELS, "multi_label", "|") == ["a|c", "b", "a|b"]
    assert named(labels[1:2], LABELS, "multi_label", "|") == [""]
    assert named(np.array([2, 0]), LABELS, "single_label", "|") == ["c", "a"]
