import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stillroom import layout
from stillroom.data.cases import FILE, Cases, read_cases, write_cases
from stillroom.data.splits import read_snapshot, read_split
from stillroom.export.predictions import read_probabilities
from stillroom.export.runtime import Package
from stillroom.files import file_digests, sha256_file
from stillroom.gate.cases import read_case_answers
from stillroom.gate.evidence import read_evaluation
from stillroom.gate.metrics import agreement, classification_metrics
from stillroom.stages import evaluate
from stillroom.stages.receipt import read_receipt
from tests.conftest import run_stage
from tests.toys import LABELS, Workspace

STUDENTS = ("static", "sliced")


def told_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.EVALUATIONS / name / "evaluation.json").read_text())
    return found


def predictions(name: str) -> dict[str, Any]:
    test = read_split(layout.SPLIT, "test")
    path = layout.EVALUATIONS / name / "predictions.parquet"
    return {model: read_probabilities(path, model, test) for model in ("student", "baseline", "teacher")}


@pytest.mark.parametrize("name", STUDENTS)
def test_predictions_are_those_of_the_packages_and_the_teacher(finished: Workspace, name: str) -> None:
    test = read_split(layout.SPLIT, "test")
    found = predictions(name)
    for variant in ("student", "baseline"):
        package = Package.load(layout.PACKAGES / name / variant)
        np.testing.assert_allclose(found[variant], package.predict(test.text), atol=1e-5)
    reference = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    np.testing.assert_array_equal(found["teacher"], reference)
    assert {path.name for path in (layout.EVALUATIONS / name).iterdir()} == {"predictions.parquet", "evaluation.json"}


@pytest.mark.parametrize("name", STUDENTS)
def test_quality_is_told_of_the_same_rows_for_all(finished: Workspace, name: str) -> None:
    test, found, told = read_split(layout.SPLIT, "test"), predictions(name), told_of(name)
    assert told["metrics"] == pytest.approx(classification_metrics(test.label, found["student"]))
    assert told["baseline_metrics"] == pytest.approx(classification_metrics(test.label, found["baseline"]))
    assert told["teacher"]["metrics"] == pytest.approx(classification_metrics(test.label, found["teacher"]))
    assert told["agreement"] == agreement(found["student"], found["teacher"])
    assert set(told["per_class"]) == set(LABELS)
    for figures in told["per_class"].values():
        assert figures.keys() == {"precision", "recall", "f1", "support"}
    assert sum(figures["support"] for figures in told["per_class"].values()) == len(test)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_shape_is_what_the_gate_and_the_report_read(finished: Workspace, name: str) -> None:
    told = told_of(name)
    assert told.keys() >= {
        "name",
        "family",
        "params",
        "size_bytes",
        "quantisation",
        "package_digest",
        "metrics",
        "per_class",
        "baseline_metrics",
        "agreement",
        "latency_ms",
        "tokenise_latency_ms",
        "throughput_rows_per_s",
        "load_ms",
        "peak_memory_bytes",
        "teacher",
        "speedup",
        "machine",
    }
    package = layout.PACKAGES / name / "student"
    assert told["package_digest"] == Package.load(package).digest
    assert told["size_bytes"] == sum(path.stat().st_size for path in package.iterdir())
    reference = json.loads((layout.REFERENCE / "reference.json").read_text())
    assert {name: figure for name, figure in told["teacher"].items() if name != "latency_ms"} == reference
    assert told["teacher"]["latency_ms"].keys() == {"torch_fp32", "onnx_int8"}


@pytest.mark.parametrize("name", STUDENTS)
def test_each_speed_up_is_a_ratio_of_medians_of_the_same_run(finished: Workspace, name: str) -> None:
    told = told_of(name)
    own = told["latency_ms"]
    assert 0 < own["p50"] <= own["p95"]
    forms = told["teacher"]["latency_ms"] | {"tokenise": told["tokenise_latency_ms"]}
    assert {f"vs_{form}" for form in forms} == told["speedup"].keys()
    for form, taken in forms.items():
        assert 0 < taken["p50"] <= taken["p95"]
        assert told["speedup"][f"vs_{form}"] == pytest.approx(taken["p50"] / own["p50"])
    assert told["throughput_rows_per_s"] > 0
    assert told["load_ms"] > 0
    assert told["peak_memory_bytes"] > 10e6
    receipt = read_receipt(f"evaluate@{name}")
    assert receipt is not None
    assert receipt.metrics["latency_p50_ms"] == own["p50"]
    assert receipt.metrics["accuracy"] == told["metrics"]["accuracy"] > 0.5


def test_no_text_is_timed_that_the_package_has_met(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, timing = Package.predict, evaluate.latencies_ms
    met: dict[int, list[str]] = {}
    packages: list[Package] = []  # kept, so that no id is given twice
    asked: list[tuple[int, list[str]]] = []

    def watched(self: Package, texts: Sequence[str]) -> Any:
        if self.folder.name == "student":
            packages.append(self)
            met.setdefault(id(self), []).extend(texts)
        return predict(self, texts)

    def timed(predictors: Any, texts: list[str], counts: dict[str, int], warm: list[str]) -> Any:
        asked.append((id(packages[-1]), list(met[id(packages[-1])])))
        return timing(predictors, texts, counts, warm)

    monkeypatch.setattr(Package, "predict", watched)
    monkeypatch.setattr(evaluate, "latencies_ms", timed)
    assert run_stage(monkeypatch, "evaluate", "static") == 0
    validation, test = (read_split(layout.SPLIT, name).text for name in ("validation", "test"))
    ((package, before),) = asked
    assert before == validation, "met before it was timed"
    after = met[package][len(validation) :]
    assert sorted(text for text in after if text not in validation) == sorted(test)
    ((_, whole),) = [item for item in met.items() if item[0] != package]
    assert whole == [*validation, *test], "quality and throughput are those of another, which met the test rows once"


def test_a_damaged_package_is_not_evaluated(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = file_digests(layout.EVALUATIONS / "static")
    model = layout.PACKAGES / "static" / "baseline" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    assert run_stage(monkeypatch, "evaluate", "static") == 2
    assert "model.onnx: sha256 is" in caplog.text
    assert file_digests(layout.EVALUATIONS / "static") == before


def test_a_reference_of_other_test_rows_is_refused(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stillroom.data.examples import read_examples, write_examples

    path = layout.SPLIT / "test.parquet"
    rows = read_examples(path)
    write_examples(rows.take([True] * 40 + [False] * 5), path)
    assert run_stage(monkeypatch, "evaluate", "static") == 2
    assert "holds other rows, or another order, than the split" in caplog.text


@pytest.mark.parametrize("labelled", [True, False])
def test_cases_are_answered_by_the_package_and_kept_beside_its_predictions(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    test, snapshot = read_split(layout.SPLIT, "test"), read_snapshot(layout.SPLIT)
    texts = [*test.text[:6], "of the again"]
    given = [
        snapshot.labels[(label + 1) % len(LABELS)] for label in [*test.label[:6], 0]
    ]  # most are answered otherwise
    write_cases(
        Cases([f"line {n}" for n in range(2, 9)], texts, [*given] if labelled else None), layout.INGESTED / FILE
    )
    before = predictions("static")
    if not labelled:
        assert run_stage(monkeypatch, "evaluate", "static") == 2, "the teacher has not answered them"
        assert run_stage(monkeypatch, "reference") == 0
    assert run_stage(monkeypatch, "evaluate", "static") == 0
    np.testing.assert_array_equal(predictions("static")["student"], before["student"])
    folder = layout.EVALUATIONS / "static"
    cases, told = read_cases(layout.INGESTED / FILE), read_evaluation(folder)
    answers = read_case_answers(folder, told, cases, sha256_file(layout.INGESTED / FILE), len(LABELS))
    assert answers is not None
    if labelled:
        demanded = np.array([snapshot.labels.index(name) for name in given])
    else:
        teacher = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
        demanded = np.append(teacher[:6].argmax(axis=1), -1)
    chosen = Package.load(layout.PACKAGES / "static/student").predict(texts).argmax(axis=1)
    assert answers.changed[:6].tolist() == (chosen != demanded)[:6].tolist()
    assert answers.demanded == ("labels" if labelled else "teacher")
    assert answers.changed.any() or not labelled
