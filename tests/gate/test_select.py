"""The cheapest student that passes, and the summary's shape as other tools rely on it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import InputError
from stillroom.gate.evidence import Evaluation
from stillroom.gate.select import Judged, cheapest, summarise
from stillroom.gate.verdict import Bounds, GateReport, Verdict
from tests.gate.evaluations import DIGEST, evaluation, labels_of, one_hot

LABELS = labels_of(40)
ROWS = {"train": 80, "validation": 10, "test": 40}


def student(name: str, p50: float = 1.0, size: int = 100, verdict: Verdict = "PASS", **changes: Any) -> Judged:
    shares = one_hot(LABELS, 4)
    changes = {"latency_ms": {"p50": p50, "p95": 2 * p50}, "size_bytes": size} | changes
    report = GateReport(
        student=name,
        verdict=verdict,
        reasons=("because",),
        retention={"accuracy": Bounds(point=0.99, lower=0.98, upper=1.0)},
        scores={},
        thresholds={"accuracy": 0.97},
        budgets={},
        rows_to_decide=None,
        confidence=0.95,
        resamples=1000,
        seed=0,
        test_rows=40,
        data_sha256="d" * 64,
        package_digest=DIGEST,
    )
    return Judged(Evaluation.model_validate(evaluation(name, LABELS, shares, shares, **changes)), report)


def test_the_fastest_that_passes_is_cheapest() -> None:
    students = [student("slow", 5.0), student("fast", 1.0), student("faster", 0.1, verdict="INCONCLUSIVE")]
    assert cheapest(students) == "fast"


def test_latency_that_cannot_be_told_apart_leaves_it_to_size_and_then_to_the_name() -> None:
    assert cheapest([student("a", 1.00, 300), student("b", 1.04, 200), student("c", 1.06, 100)]) == "b"
    assert cheapest([student("b"), student("a")]) == "a"


def test_nobody_passes() -> None:
    students = [student("a", verdict="FAIL"), student("b", verdict="INCONCLUSIVE")]
    assert cheapest(students) is None
    assert summarise(students, ROWS, "d" * 64)["selected"] is None


@given(st.permutations([("a", 1.0, 3), ("b", 1.02, 2), ("c", 1.04, 2), ("d", 4.0, 1)]))
def test_order_of_the_students_plays_no_part(order: list[tuple[str, float, int]]) -> None:
    assert cheapest([student(*one) for one in order]) == "b"


def test_the_teacher_shown_is_the_one_measured_beside_the_selected_student() -> None:
    slow = student("slow", 5.0)
    quick = student("quick", 1.0)
    teacher = quick.evaluation.teacher.model_copy(
        update={
            "latency_ms": quick.evaluation.teacher.latency_ms.model_copy(
                update={"onnx_int8": quick.evaluation.latency_ms}
            )
        }
    )
    quick = Judged(quick.evaluation.model_copy(update={"teacher": teacher}), quick.report)
    summary = summarise([slow, quick], ROWS, "d" * 64)
    assert summary["teacher"]["latency_ms"]["onnx_int8"] == {"p50": 1.0, "p95": 2.0}


def test_evaluations_beside_different_teachers_are_refused() -> None:
    other = student("other")
    teacher = other.evaluation.teacher.model_copy(update={"params": 7})
    other = Judged(other.evaluation.model_copy(update={"teacher": teacher}), other.report)
    with pytest.raises(InputError, match="static and other are beside different teachers"):
        summarise([student("static"), other], ROWS, "d" * 64)


NUMBER = (int, float)
METRICS = {"accuracy": NUMBER, "macro_f1": NUMBER, "ece": NUMBER}
LATENCY = {"p50": NUMBER, "p95": NUMBER}
COST = {"size_bytes": int, "throughput_rows_per_s": NUMBER, "load_ms": NUMBER, "peak_memory_bytes": int}
SHAPE = {
    "task": str,
    "data": {"rows": {"train": int, "validation": int, "test": int}, "sha256": str},
    "teacher": {
        "name": str,
        "params": int,
        "metrics": METRICS,
        "latency_ms": {"torch_fp32": LATENCY, "onnx_int8": LATENCY},
        "onnx_int8": {"metrics": METRICS, "agreement": NUMBER} | COST,
    }
    | COST,
    "students": {
        "tiny": {
            "family": str,
            "params": int,
            "quantisation": str,
            "metrics": METRICS,
            "baseline_metrics": METRICS,
            "retention": {"accuracy": {"point": NUMBER, "lower": NUMBER, "upper": NUMBER}},
            "latency_ms": LATENCY,
            "tokenise_latency_ms": LATENCY,
            "speedup": {"vs_torch_fp32": NUMBER, "vs_onnx_int8": NUMBER, "vs_tokenise": NUMBER},
            "agreement": NUMBER,
            "verdict": str,
            "reasons": list,
        }
        | COST
    },
    "selected": (str, type(None)),
}


def check(value: Any, shape: Any, where: str = "summary") -> None:
    if not isinstance(shape, dict):
        assert isinstance(value, shape), where
        return
    assert isinstance(value, dict), where
    for key, part in shape.items():
        assert key in value, f"{where}.{key}"
        check(value[key], part, f"{where}.{key}")


def test_the_summary_has_the_shape_that_other_tools_rely_on() -> None:
    summary = summarise([student("tiny")], ROWS, "d" * 64)
    check(summary, SHAPE)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["selected"] == "tiny"
    assert summary["students"]["tiny"]["reasons"] == ["because"]
