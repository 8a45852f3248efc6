"""PASS only by proof: every way to fall short of it, and the words in which that is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import InputError
from stillroom.files import write_json
from stillroom.gate.evidence import Evaluation, Evidence
from stillroom.gate.findings import Need
from stillroom.gate.verdict import GateReport, judge, read_gate_report
from stillroom.params import GateParams
from tests.gate.evaluations import DIGEST, NAMES, evaluation, labels_of, one_hot, with_mistakes

SHA = "d" * 64


def evidence(labels: Any, student: Any, teacher: Any, **changes: Any) -> Evidence:
    shares = [one_hot(np.asarray(chosen), len(NAMES)).astype(float) for chosen in (student, teacher)]
    figures = Evaluation.model_validate(evaluation("tiny", labels, *shares, **changes))
    return Evidence(figures, labels, shares[0], shares[0], shares[1])


def verdict_of(labels: Any, student: Any, teacher: Any, seed: int = 0, masks: Any = None, **gate: Any) -> GateReport:
    found = evidence(labels, student, teacher)
    return judge(found, GateParams(**{"resamples": 1000} | gate), NAMES, SHA, seed, masks)


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
        ("max_load_ms", 12.0, True),
        ("max_load_ms", 11.9, False),
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
    assert report.needs == (Need("macro_f1", "debt", 5, thin),)
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
    for edit in ({"verdict": "OK"}, {"format": 2}, {"approved": True}, {"agreement": {"point": 1.0}}):
        write_json(path, report.model_dump(mode="json") | edit)
        with pytest.raises(InputError, match=r"tiny\.json: "):
            read_gate_report(path)


def test_the_same_seed_gives_the_same_report() -> None:
    labels = labels_of(200)
    args = (labels, with_mistakes(labels, 12), with_mistakes(labels, 8))
    assert verdict_of(*args, seed=5) == verdict_of(*args, seed=5)


def test_reports_of_older_versions_still_read(tmp_path: Path) -> None:
    labels = labels_of(400)
    told = verdict_of(labels, labels, labels).model_dump(mode="json")
    for key in ("agreement", "ece", "disagreements", "class_recall", "slices"):
        del told[key]
    write_json(tmp_path / "tiny.json", told)
    old = read_gate_report(tmp_path / "tiny.json")
    assert (old.verdict, old.slices, old.class_recall, old.ece) == ("PASS", {}, None, None)


def test_what_is_told_beside_the_verdict_decides_nothing() -> None:
    labels = labels_of(4000)
    student = with_mistakes(labels, 20, start=2000)
    report = verdict_of(labels, student, labels)
    assert report.verdict == "PASS"
    assert report.disagreements is not None
    assert (report.disagreements.teacher_only, report.disagreements.student_only) == (20, 0)
    assert report.disagreements.p_value == pytest.approx(2 / 2**20)
    assert report.agreement is not None
    assert report.agreement.lower < report.agreement.point == 0.995 < report.agreement.upper
    assert report.ece is not None
    assert report.ece.lower <= report.ece.point <= report.ece.upper


def test_a_class_that_falls_below_its_floor_fails_the_student_that_accuracy_passes() -> None:
    labels = np.append(labels_of(4000, classes=3), np.full(40, 3))
    student = labels.copy()
    student[-30:] = 0
    assert verdict_of(labels, student, labels).verdict == "PASS"
    report = verdict_of(labels, student, labels, class_recall={"floor": 0.9})
    assert report.verdict == "FAIL"
    assert report.reasons[0].startswith(
        "recall of 'debt': 0.2500 on 40 test rows, the teacher's 1.0000, is below 0.9 of it (p = "
    )
    assert report.class_recall is not None
    assert {name: one.verdict for name, one in report.class_recall.classes.items()} == {
        "auto": "PASS",
        "bank": "PASS",
        "card": "PASS",
        "debt": "FAIL",
    }


@pytest.mark.parametrize("rows", [0, 3])
def test_a_class_with_too_few_rows_is_told_and_not_failed(rows: int) -> None:
    labels = np.append(labels_of(4000, classes=3), np.full(rows, 3))
    student = np.where(labels == 3, 0, labels)
    report = verdict_of(labels, student, labels, class_recall={})
    assert report.verdict == "PASS"
    told = next(reason for reason in report.reasons if reason.startswith("recall"))
    assert told == (
        f"recall: no class of {4 if rows else 3} is shown to fall below 0.9 of the teacher's; "
        f"too few test rows to tell of 'debt' (has {rows}, it takes about 7)"
    )
    assert report.needs == (Need("class_recall", "debt", 7, rows),)


SLICED = {"slices": {"vip": {"pattern": "vip"}}}


def in_slice(start: int, rows: int) -> Any:
    mask = np.zeros(4000, dtype=bool)
    mask[start : start + rows] = True
    return {"vip": mask}


@pytest.mark.parametrize(
    ("rows", "mistakes", "verdict"),
    [(600, 0, "PASS"), (600, 15, "INCONCLUSIVE"), (600, 60, "FAIL"), (40, 0, "INCONCLUSIVE")],
)
def test_a_slice_is_judged_by_its_own_rows(rows: int, mistakes: int, verdict: str) -> None:
    labels = labels_of(4000)
    student = with_mistakes(labels, mistakes, start=100)
    assert verdict_of(labels, student, labels).verdict == "PASS"
    report = verdict_of(labels, student, labels, masks=in_slice(100, rows), **SLICED)
    assert report.verdict == report.slices["vip"].verdict == verdict
    assert report.reasons[0].startswith("accuracy" if verdict == "PASS" else "slice vip: retention ")
    part = report.slices["vip"]
    assert (part.rows, part.threshold) == (rows, 0.97)
    assert part.retention is not None
    alone = verdict_of(labels[100 : 100 + rows], student[100 : 100 + rows], labels[100 : 100 + rows])
    assert part.retention == alone.retention["accuracy"]


def test_a_slice_says_how_many_rows_of_its_kind_and_in_all_would_decide() -> None:
    labels = labels_of(4000)
    report = verdict_of(labels, labels, labels, masks=in_slice(0, 40), **SLICED)
    needed = int(report.reasons[0].split("about ")[1].split(" test rows of slice vip")[0])
    assert needed > 40
    assert report.rows_to_decide == 100 * needed
    assert report.needs == (Need("slice", "vip", needed, 40),)


def test_what_is_open_is_listed_by_kind_of_rows_and_read_back(tmp_path: Path) -> None:
    labels = np.append(labels_of(400, classes=3), np.full(3, 3))
    mask = {"vip": np.arange(403) < 30}
    asked = {**SLICED, "class_recall": {}, "retention": {"accuracy": 0.995, "macro_f1": 0.9}}
    report = verdict_of(labels, labels, labels, masks=mask, **asked)
    assert report.verdict == "INCONCLUSIVE"
    found = {(need.criterion, need.of): need for need in report.needs}
    assert found.keys() == {("accuracy", None), ("macro_f1", "debt"), ("slice", "vip"), ("class_recall", "debt")}
    assert all(need.rows is not None and need.rows > need.there for need in report.needs)
    write_json(tmp_path / "gate.json", report.model_dump(mode="json"))
    assert read_gate_report(tmp_path / "gate.json") == report


def test_a_slice_has_a_floor_of_its_own() -> None:
    labels = labels_of(4000)
    student = with_mistakes(labels, 60, start=100)
    lenient = {"slices": {"vip": {"pattern": "vip", "retention": 0.8}}}
    assert verdict_of(labels, student, labels, masks=in_slice(100, 600), **lenient).verdict == "PASS"


def test_a_slice_in_which_the_teacher_is_never_right_fails() -> None:
    labels = labels_of(4000)
    teacher = with_mistakes(labels, 50)
    report = verdict_of(labels, teacher, teacher, masks=in_slice(0, 50), **SLICED)
    assert report.verdict == "FAIL"
    assert report.reasons[0].startswith("slice vip: gate: the teacher's accuracy on 50 rows is 0")
    assert report.slices["vip"].retention is None


def test_a_slice_whose_rows_are_not_given_is_never_passed_over() -> None:
    labels = labels_of(4000)
    with pytest.raises(KeyError):
        verdict_of(labels, labels, labels, **SLICED)


def test_the_order_of_rows_changes_nothing_in_the_report() -> None:
    labels = labels_of(4000)
    student = with_mistakes(labels, 30, start=90)
    order = np.random.default_rng(0).permutation(4000)
    mask = in_slice(0, 300)["vip"]
    asked = {**SLICED, "class_recall": {}}
    first = verdict_of(labels, student, labels, masks={"vip": mask}, **asked)
    assert verdict_of(labels[order], student[order], labels[order], masks={"vip": mask[order]}, **asked) == first


def test_texts_with_several_labels_are_judged_by_class_and_slice_too() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 4)) < 0.4).astype(np.int64)
    student = labels.copy()
    student[:, 3] = np.where(rng.random(2000) < 0.5, 0, student[:, 3])
    shares = [np.where(chosen == 1, 0.9, 0.1) for chosen in (student, labels)]
    figures = Evaluation.model_validate(evaluation("tiny", labels, *shares))
    found = Evidence(figures, labels, shares[0], shares[0], shares[1])
    gate = GateParams(resamples=500, retention={"accuracy": 0.5}, class_recall={}, **SLICED)
    mask = labels[:, 3] == 0
    report = judge(found, gate, NAMES, SHA, 0, {"vip": mask})
    assert report.class_recall is not None
    assert [one.verdict for one in report.class_recall.classes.values()] == ["PASS", "PASS", "PASS", "FAIL"]
    assert report.slices["vip"].rows == mask.sum()
    assert report.slices["vip"].retention is not None
    assert report.slices["vip"].retention.point == 1.0


def several(labels: Any, student: Any, teacher: Any, **gate: Any) -> GateReport:
    """The verdict where a row may have several labels: arrays of 0 and 1 [rows, classes]."""
    figures = Evaluation.model_validate(
        evaluation("tiny", labels, *(given.astype(float) for given in (student, teacher)))
    )
    found = Evidence(figures, labels, *(given.astype(float) for given in (student, student, teacher)))
    return judge(found, GateParams(**{"resamples": 500} | gate), NAMES, SHA, 0)


def rare(rows: int = 2000) -> Any:
    """Labels that seven rows in eight do not have."""
    rng = np.random.default_rng(4)
    return ((rng.random((rows, len(NAMES))) < 0.3) & (rng.random((rows, 1)) < 0.125)).astype(np.int64)


def test_where_most_rows_have_no_label_a_good_teacher_is_judged_by_what_is_guarded() -> None:
    labels, rng = rare(), np.random.default_rng(5)
    teacher = np.where(rng.random(labels.shape) < 0.97, labels, 1 - labels)
    guarded = several(labels, teacher, teacher, retention={"macro_f1": 0.97})
    assert guarded.verdict == "PASS", guarded.reasons
    exact = several(labels, teacher, teacher, retention={"accuracy": 0.97})
    assert exact.verdict == "FAIL"
    assert "always answering 'no label' on" in exact.reasons[0]


def test_a_teacher_that_gives_every_label_proves_nothing() -> None:
    labels = rare()
    every = np.ones_like(labels)
    report = several(labels, every, every, retention={"macro_f1": 0.97})
    assert report.verdict == "FAIL"
    assert "always giving every label" in report.reasons[0]
