"""PASS only by proof: every way to fall short of it, and the words in which that is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import InputError
from stillroom.files import write_json
from stillroom.gate.evidence import Evaluation, Evidence
from stillroom.gate.verdict import GateReport, judge, read_gate_report
from stillroom.params import GateParams
from tests.gate.evaluations import DIGEST, NAMES, evaluation, labels_of, one_hot, with_mistakes

SHA = "d" * 64


def evidence(labels: Any, student: Any, teacher: Any, **changes: Any) -> Evidence:
    shares = [one_hot(np.asarray(chosen), len(NAMES)).astype(float) for chosen in (student, teacher)]
    figures = Evaluation.model_validate(evaluation("tiny", labels, *shares, **changes))
    return Evidence(figures, labels, shares[0], shares[0], shares[1])


def verdict_of(labels: Any, student: Any, teacher: Any, seed: int = 0, **gate: Any) -> GateReport:
    found = evidence(labels, student, teacher)
    return judge(found, GateParams(**{"resamples": 1000} | gate), NAMES, SHA, seed)


def test_a_copy_of_a_good_teacher_passes() -> None:
    labels = labels_of(400)
    teacher = with_mistakes(labels, 20)
    report = verdict_of(labels, teacher, teacher, retention={"accuracy": 0.97, "macro_f1": 0.97})
    assert report.verdict == "PASS"
    assert {metric: bounds.point for metric, bounds in report.retention.items()} == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
    }
    assert report.rows_to_decide is None
    assert report.reasons[0].startswith("accuracy: retention 1.0000, at least 0.99")
    assert report.test_rows == 400
    assert (report.data_sha256, report.package_digest) == (SHA, DIGEST)


def test_a_copy_on_few_rows_is_no_proof() -> None:
    labels = labels_of(48)
    report = verdict_of(labels, labels, labels)
    assert report.verdict == "INCONCLUSIVE"
    assert report.retention["accuracy"].point == 1.0
    assert report.rows_to_decide is not None
    assert f"about {report.rows_to_decide:,} test rows would decide, there are 48" in report.reasons[0]


def test_a_bad_student_fails() -> None:
    labels = labels_of(400)
    report = verdict_of(labels, with_mistakes(labels, 60), with_mistakes(labels, 8))
    assert report.verdict == "FAIL"
    assert "is below the threshold 0.97" in report.reasons[0]


def test_a_student_near_the_threshold_is_inconclusive_and_says_how_many_rows_would_do() -> None:
    labels = labels_of(400)
    report = verdict_of(labels, with_mistakes(labels, 16), with_mistakes(labels, 8))
    assert report.verdict == "INCONCLUSIVE"
    assert report.rows_to_decide is not None
    assert report.rows_to_decide > 400
    assert f"{report.rows_to_decide:,}" in report.reasons[0]


def test_one_metric_that_fails_outweighs_another_that_passes() -> None:
    labels = labels_of(400)
    args = (labels, with_mistakes(labels, 30), with_mistakes(labels, 8))
    report = verdict_of(*args, retention={"accuracy": 0.8, "macro_f1": 0.99})
    assert report.verdict == "FAIL"
    assert report.reasons[0].startswith("macro_f1")
    assert report.reasons[1].startswith("accuracy")


@pytest.mark.parametrize(
    ("budget", "limit", "holds"),
    [
        ("max_latency_p95_ms", 0.2, True),
        ("max_latency_p95_ms", 0.19, False),
        ("max_package_bytes", 5000, True),
        ("max_package_bytes", 4999, False),
        ("max_peak_memory_bytes", 89_999_999, False),
        ("max_ece", 0.5, True),
        ("max_ece", 0.05, False),
    ],
)
def test_budgets(budget: str, limit: float, holds: bool) -> None:
    labels = labels_of(400)
    report = verdict_of(labels, labels, labels, **{budget: limit})
    assert report.verdict == ("PASS" if holds else "FAIL")
    assert report.budgets[budget].limit == limit
    told = next(reason for reason in report.reasons if reason.startswith(budget.removeprefix("max_")))
    assert ("within" if holds else "breaks") in told


def test_a_broken_budget_outweighs_an_open_question() -> None:
    labels = labels_of(48)
    report = verdict_of(labels, labels, labels, max_package_bytes=1)
    assert report.verdict == "FAIL"
    assert report.rows_to_decide is None
    assert "package_bytes 5,000 breaks the budget 1" in report.reasons[0]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_teacher_no_better_than_chance_proves_nothing(share: float) -> None:
    labels = np.repeat([0, 0, 1, 2], 100)
    teacher = with_mistakes(labels, round(400 * (1 - share)))
    report = verdict_of(labels, teacher, teacher)
    assert report.verdict == "FAIL"
    assert report.reasons[0] == (
        f"the teacher is right on {share:.2%} of the test rows, and always answering 'auto' on 50.00%: "
        "keeping such quality proves nothing"
    )


def test_a_teacher_that_is_never_right_has_no_retention() -> None:
    labels = labels_of(400)
    report = verdict_of(labels, labels, (labels + 1) % 4, retention={"accuracy": 0.9, "macro_f1": 0.9})
    assert report.verdict == "FAIL"
    assert report.retention == {}
    assert any("retention is undefined" in reason for reason in report.reasons)


@pytest.mark.parametrize("thin", [0, 4])
def test_macro_f1_is_not_judged_without_rows_of_every_class(thin: int) -> None:
    labels = np.append(labels_of(399, classes=3), np.full(thin, 3))
    report = verdict_of(labels, labels, labels, retention={"macro_f1": 0.9})
    assert report.verdict == "INCONCLUSIVE"
    assert report.rows_to_decide is None
    assert report.reasons[0] == f"macro_f1: 'debt' has {thin} test rows; it takes 5 of every class to judge it"
    assert verdict_of(labels, labels, labels, retention={"accuracy": 0.9}).verdict == "PASS"


def test_a_test_set_of_one_class_proves_nothing() -> None:
    labels = np.zeros(200, dtype=int)
    assert verdict_of(labels, labels, labels).verdict == "FAIL"


def test_thresholds_and_bounds_are_told_apart_in_words() -> None:
    labels = labels_of(400)
    teacher = with_mistakes(labels, 8)
    lower = verdict_of(labels, teacher, teacher).retention["accuracy"].lower
    report = verdict_of(labels, teacher, teacher, retention={"accuracy": lower + 1e-7})
    assert report.verdict == "INCONCLUSIVE"
    told = float(report.reasons[0].split("between ")[1].split(" and")[0])
    assert told < lower + 1e-7


def test_report_survives_the_disk_and_refuses_edits_that_are_no_report(tmp_path: Path) -> None:
    labels = labels_of(100)
    report = verdict_of(labels, labels, labels)
    path = tmp_path / "tiny.json"
    write_json(path, report.model_dump(mode="json"))
    assert read_gate_report(path) == report
    for edit in ({"verdict": "OK"}, {"format": 2}, {"approved": True}):
        write_json(path, report.model_dump(mode="json") | edit)
        with pytest.raises(InputError, match=r"tiny\.json: "):
            read_gate_report(path)


def test_the_same_seed_gives_the_same_report() -> None:
    labels = labels_of(200)
    args = (labels, with_mistakes(labels, 12), with_mistakes(labels, 8))
    assert verdict_of(*args, seed=5) == verdict_of(*args, seed=5)
