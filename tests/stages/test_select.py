"""The stage select on files as the stages before it leave them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillroom import layout
from stillroom.data.cases import FILE, Cases, write_cases
from stillroom.data.splits import Rows, read_snapshot
from stillroom.errors import InputError
from stillroom.export.predictions import write_predictions
from stillroom.files import file_digests, read_json, sha256_file, write_json
from stillroom.gate.approval import Approval
from stillroom.gate.verdict import CasesFinding, Scores, read_gate_report
from stillroom.gate_params import GateParams
from stillroom.governance_params import GovernanceParams
from stillroom.params import Params, validate
from stillroom.stages import select
from tests.gate.evaluations import NAMES, labels_of, one_hot, with_mistakes, write_evaluation, write_split

LABELS = labels_of(400)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A workspace with the students good and bad."""
    monkeypatch.chdir(tmp_path)
    write_split(layout.SPLIT, LABELS)
    evaluate("good", mistakes=9)
    evaluate("bad", mistakes=80)
    raw: dict[str, Any] = {
        "data": {"source": "rows.csv"},
        "teacher": {"source": "teacher"},
        "students": {"good": {"family": "static"}, "bad": {"family": "static"}},
        "gate": {"resamples": 500},
    }
    return validate(raw, "test")


def evaluate(name: str, mistakes: int, teachers: int = 8) -> None:
    student, teacher = (one_hot(with_mistakes(LABELS, n), len(NAMES)) for n in (mistakes, teachers))
    write_evaluation(layout.EVALUATIONS / name, LABELS, student, teacher)


def test_verdicts_and_summary_are_written(params: Params) -> None:
    metrics = select.run(params)
    assert (metrics["students"], metrics["passed"]) == (2.0, 1.0)
    summary = read_json(layout.SUMMARY)
    assert summary["selected"] == "good"
    assert [student["verdict"] for student in summary["students"].values()] == ["PASS", "FAIL"]
    assert summary["data"]["rows"]["test"] == 400
    report = read_gate_report(layout.GATE_REPORTS / "good.json")
    assert report.verdict == "PASS"
    assert report.data_sha256 == summary["data"]["sha256"]
    assert report.retention["accuracy"].lower == metrics["good_accuracy_retention_lower"]


def test_every_report_says_who_must_agree(params: Params) -> None:
    select.run(params)
    assert read_gate_report(layout.GATE_REPORTS / "good.json").approval == Approval(required=False)
    select.run(params.model_copy(update={"governance": GovernanceParams(ai_act="high")}))
    for name in ("good", "bad"):
        approval = read_gate_report(layout.GATE_REPORTS / f"{name}.json").approval
        assert approval == Approval(required=True, because="governance.ai_act is high")


def test_the_same_inputs_give_the_same_bytes(params: Params) -> None:
    select.run(params)
    before = file_digests(Path("reports"))
    select.run(params)
    assert file_digests(Path("reports")) == before


def test_nobody_passing_is_a_result(params: Params) -> None:
    evaluate("good", mistakes=100)
    assert select.run(params)["passed"] == 0.0
    assert read_json(layout.SUMMARY)["selected"] is None


def test_a_report_of_a_student_that_was_removed_goes_away(params: Params) -> None:
    select.run(params)
    select.run(params.model_copy(update={"students": {"good": params.students["good"]}}))
    assert [path.name for path in layout.GATE_REPORTS.iterdir()] == ["good.json"]


def test_evidence_of_another_split_stops_the_stage_and_writes_nothing(params: Params) -> None:
    write_split(layout.SPLIT, labels_of(404))
    with pytest.raises(InputError, match="holds 400 rows, the test split 404"):
        select.run(params)
    assert not Path("reports").exists()


def rewrite(change: Callable[[dict[str, Any]], object]) -> None:
    """Change the columns of the good student's predictions."""
    path = layout.EVALUATIONS / "good/predictions.parquet"
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def no_test_rows() -> None:
    write_split(layout.SPLIT, LABELS[:0])


def nan_in_the_student() -> None:
    rewrite(lambda columns: columns["student"].__setitem__(7, [float("nan")] * len(NAMES)))


def nan_in_the_teacher() -> None:
    rewrite(lambda columns: columns["teacher"].__setitem__(7, [float("nan")] * len(NAMES)))


def another_order() -> None:
    rewrite(lambda columns: [values.reverse() for values in columns.values()])


def the_student_s_answers_in_another_order() -> None:
    rewrite(lambda columns: columns["student"].insert(0, columns["student"].pop()))


def better_figures() -> None:
    path = layout.EVALUATIONS / "good/evaluation.json"
    figures = read_json(path)
    write_json(path, figures | {"metrics": figures["metrics"] | {"accuracy": 1.0}})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_test_rows, "no rows, so nothing can be judged"),
        (nan_in_the_student, r"\(student\): probabilities are not finite"),
        (nan_in_the_teacher, r"\(teacher\): probabilities are not finite"),
        (another_order, "row ids differ"),
        (the_student_s_answers_in_another_order, "its predictions give"),
        (better_figures, "the student's accuracy is 1.000000"),
    ],
)
def test_no_verdict_on_spoilt_evidence(params: Params, spoil: Callable[[], None], told: str) -> None:
    spoil()
    with pytest.raises(InputError, match=told):
        select.run(params)
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("labels", "teachers", "metric", "verdict", "told"),
    [
        (LABELS, 320, "accuracy", "FAIL", "keeping such quality proves nothing"),
        (LABELS, 400, "accuracy", "FAIL", "retention is undefined"),
        (labels_of(400, classes=3), 8, "macro_f1", "INCONCLUSIVE", "'debt' has 0 test rows"),
        (LABELS * 0, 8, "accuracy", "FAIL", "keeping such quality proves nothing"),
    ],
    ids=["teacher below chance", "teacher never right", "class without rows", "one class only"],
)
def test_nobody_is_selected_where_retention_means_nothing(
    params: Params, labels: Any, teachers: int, metric: str, verdict: str, told: str
) -> None:
    write_split(layout.SPLIT, labels)
    student, teacher = (one_hot(with_mistakes(labels, n), len(NAMES)) for n in (0, teachers))
    write_evaluation(layout.EVALUATIONS / "good", labels, student, teacher)
    gate = GateParams(resamples=500, retention={metric: 0.9})
    one = {"good": params.students["good"]}
    assert select.run(params.model_copy(update={"gate": gate, "students": one}))["passed"] == 0.0
    assert read_json(layout.SUMMARY)["selected"] is None
    report = read_gate_report(layout.GATE_REPORTS / "good.json")
    assert report.verdict == verdict
    assert any(told in reason for reason in report.reasons)


def with_slices(params: Params, **slices: dict[str, Any]) -> Params:
    return params.model_copy(update={"gate": GateParams(resamples=500, slices=slices)})


def test_slices_are_rows_of_the_split_s_texts(params: Params) -> None:
    sliced = with_slices(params, tens={"pattern": "0$", "retention": 0.5}, short={"max_chars": 7, "retention": 0.5})
    select.run(sliced)
    report = read_gate_report(layout.GATE_REPORTS / "good.json")
    assert {name: part.rows for name, part in report.slices.items()} == {"tens": 40, "short": 100}
    # the texts count up from 0; the student's 9 mistakes are in the first rows, and the teacher's 8 too
    assert report.slices["tens"].scores == Scores(student=39 / 40, teacher=39 / 40)
    assert report.slices["short"].scores == Scores(student=91 / 100, teacher=92 / 100)


def test_a_slice_without_rows_stops_the_stage_and_writes_nothing(params: Params) -> None:
    with pytest.raises(InputError, match=r"gate\.slices\.none selects none of the 400 test rows"):
        select.run(with_slices(params, none={"pattern": "nowhere"}))
    assert not Path("reports").exists()


def with_languages(params: Params, *values: str) -> Params:
    """The raw file of the split, with a column; its first 400 rows are the test rows."""
    cells = [("de", "fr", "en", "en")[n % 4] if n < 400 else "xx" for n in range(400 + 2 * len(NAMES))]
    rows = [f"text {n},{NAMES[n % 4]},{cell}" for n, cell in enumerate(cells)]
    layout.SOURCE_DATA.mkdir(parents=True)
    (layout.SOURCE_DATA / "train.csv").write_text("\n".join(["text,label,language", *rows]))
    write_json(layout.SOURCE_DATA / "source.json", read_snapshot(layout.SPLIT).source.model_dump(mode="json"))
    return with_slices(params, language={"column": "language", "values": values, "retention": 0.5})


def test_a_slice_of_a_column_is_found_in_the_raw_file(params: Params) -> None:
    select.run(with_languages(params, "de", "fr"))
    part = read_gate_report(layout.GATE_REPORTS / "good.json").slices["language"]
    # the student errs in the first 9 rows, five of which are in the slice, the teacher in the first 8, four of them
    assert (part.rows, part.scores) == (200, Scores(student=195 / 200, teacher=196 / 200))


def test_a_value_of_no_test_row_stops_the_stage_and_writes_nothing(params: Params) -> None:
    with pytest.raises(InputError, match=r"gate\.slices\.language\.values has 'xx', which none of the 400") as told:
        select.run(with_languages(params, "de", "xx"))
    assert "'fr'" not in str(told.value), "what the column holds may be personal data"
    assert not Path("reports").exists()


def test_cases_are_judged_by_the_answers_beside_the_evaluation(params: Params) -> None:
    cases = Cases(["line 2", "line 3"], ["x", "y"], ["bank", "card"])
    write_cases(cases, layout.INGESTED / FILE)
    with pytest.raises(InputError, match="good: answers other cases"):
        select.run(params)
    for name, given in (("good", [1, 2]), ("bad", [1, 1])):
        folder = layout.EVALUATIONS / name
        rows = Rows(np.arange(2), cases.text, np.array([1, 2]))
        write_predictions(folder / FILE, rows, {"student": one_hot(np.array(given), len(NAMES))})
        told = read_json(folder / "evaluation.json")
        write_json(folder / "evaluation.json", {**told, "cases_sha256": sha256_file(layout.INGESTED / FILE)})
    select.run(params)
    found = {name: read_gate_report(layout.GATE_REPORTS / f"{name}.json").cases for name in ("good", "bad")}
    assert found["good"] == CasesFinding(rows=2, demanded="labels", changed=0, where=(), verdict="PASS")
    assert found["bad"] == CasesFinding(rows=2, demanded="labels", changed=1, where=("line 3",), verdict="FAIL")


def test_the_spread_over_seeds_is_in_the_summary_and_in_the_reports(params: Params) -> None:
    evaluate("again", mistakes=11)
    raw = params.model_dump(mode="json")
    raw["students"] |= {"bad": {"family": "cnn"}, "again": {**raw["students"]["good"], "seed": 5}}
    select.run(validate(raw, "test"))
    (told,) = read_json(layout.SUMMARY)["seeds"]
    assert (told["students"], told["seeds"]) == (["good", "again"], [0, 5])
    assert (told["accuracy"]["least"], told["accuracy"]["most"]) == (389 / 400, 391 / 400)
    reports = {name: read_gate_report(layout.GATE_REPORTS / f"{name}.json").seeds for name in raw["students"]}
    assert reports["bad"] is None
    assert reports["good"] == reports["again"]
    assert reports["good"] is not None
    assert reports["good"].retention["accuracy"].most == pytest.approx(391 / 392)
