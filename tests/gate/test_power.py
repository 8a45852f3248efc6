"""Power: simulated students are of the quality that they are said to be, and the gate's chances follow from it."""

from typing import Any

import numpy as np
import pytest

from stillroom.errors import InputError
from stillroom.gate.metrics import macro_f1
from stillroom.gate.power import AnswerCounts, Power, Teacher, count_answers, lost_for, power, student, true_retention
from stillroom.gate.statistics import cells, retention
from stillroom.gate_params import GateParams, MetricName
from stillroom.problem import accuracy

UNEVEN = np.repeat([0, 1, 2, 3], [600, 250, 100, 50])
SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])[UNEVEN]


def answers(labels: Any) -> AnswerCounts:
    return count_answers(labels, 4)


@pytest.mark.parametrize("labels", [UNEVEN, SETS], ids=["classes", "sets"])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_students_have_the_retention_they_are_made_for(labels: Any, metric: MetricName) -> None:
    teacher = Teacher(accuracy=0.9, wins=0.4)
    test = answers(labels)
    lost = lost_for(test, metric, 0.95, teacher)
    assert true_retention(test, metric, teacher, lost) == pytest.approx(0.95)
    many = AnswerCounts(test.members, test.rows * 400, test.several)
    truth, taught, learnt = student(many, 0.9, lost, 0.4, np.random.default_rng(0))
    figure = accuracy if metric == "accuracy" else lambda chosen, true: macro_f1(true, chosen)
    assert figure(learnt, truth) / figure(taught, truth) == pytest.approx(0.95, abs=0.004)
    assert accuracy(taught, truth) == pytest.approx(0.9, abs=0.003)


@pytest.mark.parametrize("labels", [UNEVEN, SETS], ids=["classes", "sets"])
def test_simulated_labels_are_those_of_the_test_rows(labels: Any) -> None:
    truth, taught, learnt = student(answers(labels), 0.9, 0.0, 0.0, np.random.default_rng(0))
    assert truth.shape == labels.shape
    assert sorted(map(str, truth)) == sorted(map(str, labels))
    assert (taught == learnt).all()


def test_mistakes_are_other_answers_in_proportion_to_their_rows() -> None:
    truth, taught, _ = student(answers(np.tile(UNEVEN, 200)), 0.0, 0.0, 0.0, np.random.default_rng(0))
    assert (truth != taught).all()
    shares = np.bincount(taught[truth == 1], minlength=4) / (truth == 1).sum()
    assert shares == pytest.approx(np.array([600, 0, 100, 50]) / 750, abs=0.01)


def found(rows: int, retention: float = 0.95, runs: int = 60, **teacher: float) -> Power:
    gate = GateParams(retention={"accuracy": retention})
    labels = np.arange(rows) % 4
    return power(answers(labels), gate, Teacher(**teacher), runs, 0, 4)["accuracy"]


def test_more_rows_decide_about_students_nearer_the_threshold() -> None:
    few, many = found(200), found(2000)
    assert many.least[0.8] is not None
    assert 0.95 < many.least[0.8] < (few.least[0.8] or np.inf)
    assert many.least[0.95] is not None
    assert many.least[0.8] < many.least[0.95] < 1.0
    for one in (few, many):
        assert one.false_pass <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5


def test_the_least_retention_passes_as_often_as_it_says() -> None:
    teacher = Teacher(0.95, 0.3)
    least = found(1000, runs=150).least[0.8]
    assert least is not None
    gate = GateParams(retention={"accuracy": 0.95}, resamples=500)
    test = answers(np.arange(1000) % 4)
    lost = lost_for(test, "accuracy", least, teacher)
    passed = [
        retention(cells(*student(test, 0.95, lost, 0.3, np.random.default_rng([7, n]))), "accuracy", 0.95, 500, n).lower
        >= gate.retention["accuracy"]
        for n in range(150)
    ]
    assert 0.68 < np.mean(passed) < 0.92


def test_too_few_rows_pass_nobody_and_a_copy_needs_the_rule_of_three() -> None:
    few = found(40, retention=0.97)
    assert (few.false_pass, few.copy_pass, few.least) == (0.0, 0.0, {0.8: None, 0.95: None})
    assert found(400, retention=0.97).copy_pass == 1.0


def test_macro_f1_passes_nobody_where_a_class_has_too_few_rows() -> None:
    gate = GateParams(retention={"macro_f1": 0.5})
    thin = np.append(np.arange(300) % 3, [3] * 4)
    for labels, classes in ((thin, 4), (np.arange(300) % 3, 4)):
        one = power(count_answers(labels, classes), gate, Teacher(), 20, 0, classes)["macro_f1"]
        assert (one.copy_pass, one.least[0.8]) == (0.0, None)
    assert power(count_answers(np.arange(300) % 3, 3), gate, Teacher(), 20, 0, 3)["macro_f1"].copy_pass == 1.0


def test_the_seed_decides() -> None:
    assert found(300, runs=20) == found(300, runs=20)


def test_refused() -> None:
    with pytest.raises(InputError, match=r"most frequent answer has 60\.00%"):
        power(answers(UNEVEN), GateParams(), Teacher(accuracy=0.6), 20, 0, 4)
    with pytest.raises(InputError, match="9 test rows with one label"):
        count_answers(np.zeros(9, dtype=int), 4)
