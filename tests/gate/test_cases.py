"""Must-not-change cases: one other answer fails, and what was answered must be about these very cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.data.cases import Cases
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export.predictions import write_predictions
from stillroom.gate.cases import CaseAnswers, read_case_answers, unchanged
from stillroom.gate.evidence import Evaluation
from stillroom.gate.verdict import judge
from stillroom.gate_params import GateParams
from tests.gate.evaluations import NAMES, evaluation, labels_of, one_hot
from tests.gate.test_verdict import SHA, evidence

DEMANDED = np.array([0, 3, 1])
CASES = Cases(["line 2", "line 3", "line 5"], ["x", "y", "z"], ["auto", "debt", "bank"])
DIGEST = "e" * 64


def write(folder: Path, given: Any, digest: str | None = DIGEST) -> Evaluation:
    rows = Rows(np.arange(len(given)), list("xyz")[: len(given)], DEMANDED[: len(given)])
    write_predictions(folder / "cases.parquet", rows, {"student": one_hot(np.asarray(given), len(NAMES))})
    labels = labels_of(40)
    shares = one_hot(labels, len(NAMES))
    return Evaluation.model_validate(evaluation("tiny", labels, shares, shares, cases_sha256=digest))


def test_answers_are_compared_with_what_is_demanded(tmp_path: Path) -> None:
    found = read_case_answers(tmp_path, write(tmp_path, [0, 2, 1]), CASES, DIGEST, len(NAMES))
    assert found is not None
    assert (found.demanded, found.place, found.changed.tolist()) == ("labels", CASES.place, [False, True, False])
    assert found.where == ("line 3",)
    told = unchanged(found)
    assert told.verdict == "FAIL"
    assert told.reason == "cases: 1 of 3 answers are not the label's: line 3 of data.cases"


def test_without_cases_nothing_is_asked_of_the_folder(tmp_path: Path) -> None:
    folder, none = tmp_path / "nowhere", Cases([], [], None)
    assert read_case_answers(folder, write(tmp_path, [0], None), none, DIGEST, len(NAMES)) is None


@pytest.mark.parametrize("digest", ["f" * 64, None])
def test_answers_to_other_cases_are_refused(tmp_path: Path, digest: str | None) -> None:
    with pytest.raises(InputError, match=r"answers other cases than those of data\.cases; run evaluate again"):
        read_case_answers(tmp_path, write(tmp_path, [0, 3, 1], digest), CASES, DIGEST, len(NAMES))


def test_missing_answers_are_refused(tmp_path: Path) -> None:
    told = write(tmp_path, [0, 3])
    with pytest.raises(InputError, match=r"answers have shape \(2, 4\), not \(3, 4\)"):
        read_case_answers(tmp_path, told, CASES, DIGEST, len(NAMES))
    (tmp_path / "cases.parquet").unlink()
    with pytest.raises(InputError, match=r"cases\.parquet: not readable as predictions"):
        read_case_answers(tmp_path, told, CASES, DIGEST, len(NAMES))


@pytest.mark.parametrize(("changed", "verdict"), [([], "PASS"), ([7], "FAIL"), (range(8), "FAIL")])
def test_one_changed_case_fails_a_perfect_student(changed: Any, verdict: str) -> None:
    labels = labels_of(400)
    wrong = np.isin(np.arange(40), list(changed))
    answers = CaseAnswers("teacher", [f"row {n}" for n in range(1, 41)], wrong)
    gate = GateParams(resamples=200)
    report = judge(evidence(labels, labels, labels), gate, NAMES, SHA, 0, cases=answers)
    assert report.verdict == verdict
    assert report.cases is not None
    assert (report.cases.rows, report.cases.changed, report.cases.verdict) == (40, wrong.sum(), verdict)
    assert report.cases.where == tuple(f"row {n + 1}" for n in changed)
    reason = next(reason for reason in report.reasons if reason.startswith("cases:"))
    if not len(changed):
        assert reason == "cases: all 40 answers are the teacher's"
    elif len(changed) > 5:
        assert reason.endswith("row 1, row 2, row 3, row 4, row 5 and 3 more of data.cases")
