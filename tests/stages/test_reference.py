import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.data.splits import read_snapshot, read_split
from stillroom.export.predictions import read_probabilities
from stillroom.export.runtime import Package
from stillroom.files import file_digests, sha256_file
from stillroom.gate.metrics import agreement, classification_metrics
from stillroom.problem import probabilities
from stillroom.stages.receipt import read_receipt
from stillroom.teacher.inference import predict
from stillroom.teacher.model import TOKENISER, count_params, load_teacher
from tests.conftest import run_stage
from tests.toys import LABELS, Workspace


def test_the_teachers_test_predictions_are_its_calibrated_answers(finished: Workspace) -> None:
    test = read_split(layout.SPLIT, "test")
    model, description = load_teacher(layout.TEACHER)
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), test.text, 32)
    logits = predict(model, tokens, description.pad, 50)
    expected = probabilities(logits, "single_label", description.temperature)
    found = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_reference_tells_quality_and_size_of_both_forms(finished: Workspace) -> None:
    told = json.loads((layout.REFERENCE / "reference.json").read_text())
    test = read_split(layout.SPLIT, "test")
    found = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    assert told["metrics"] == pytest.approx(classification_metrics(test.label, found))
    assert told["metrics"].keys() == {"accuracy", "macro_f1", "ece"}
    assert told["params"] == count_params(load_teacher(layout.TEACHER)[0])
    files = [layout.TEACHER / name for name in ("model.safetensors", "tokenizer.json")]
    assert told["size_bytes"] == sum(path.stat().st_size for path in files)
    int8 = layout.REFERENCE / "onnx_int8"
    assert told["onnx_int8"]["size_bytes"] == sum(path.stat().st_size for path in int8.iterdir())
    predicted = Package.load(int8).predict(test.text)
    assert told["onnx_int8"]["metrics"] == pytest.approx(classification_metrics(test.label, predicted), abs=0.05)
    assert told["onnx_int8"]["agreement"] == pytest.approx(agreement(predicted, found), abs=0.05)
    for form in (told, told["onnx_int8"]):
        assert set(form["per_class"]) == set(LABELS)
        f1 = [figures["f1"] for figures in form["per_class"].values()]
        assert np.mean(f1) == pytest.approx(form["metrics"]["macro_f1"])
        assert sum(figures["support"] for figures in form["per_class"].values()) == len(test)
    receipt = read_receipt("reference")
    assert receipt is not None
    assert receipt.metrics == told["metrics"]


def test_the_reference_tells_speed_and_memory_of_both_forms_as_of_students(finished: Workspace) -> None:
    told = json.loads((layout.REFERENCE / "reference.json").read_text())
    student = json.loads((layout.EVALUATIONS / "static" / "evaluation.json").read_text())
    for name in ("throughput_rows_per_s", "load_ms", "peak_memory_bytes"):
        assert told["onnx_int8"][name] > 0
        assert told[name] > 0
        assert name in student
    assert told["peak_memory_bytes"] > 2 * told["onnx_int8"]["peak_memory_bytes"], "torch is in it"
    assert told["machine"].keys() == student["machine"].keys()


def test_the_fp32_graph_is_not_run_to_tell_what_int8_costs(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillroom.export import build, parity

    rows: list[int] = []
    run = build.onnx_logits
    for module in (parity, build):
        monkeypatch.setattr(
            module, "onnx_logits", lambda path, tokens, budget: rows.append(len(tokens)) or run(path, tokens, budget)
        )
    assert run_stage(monkeypatch, "reference") == 0
    validation = read_split(layout.SPLIT, "validation")
    assert rows == [min(64, len(validation)), len(validation)], "parity on few rows, then the int8 graph"
    package = Package.load(layout.REFERENCE / "onnx_int8")
    right = float((package.predict(validation.text).argmax(axis=1) == validation.label).mean())
    (rung,) = package.manifest["rungs"]
    accuracy = load_teacher(layout.TEACHER)[1].metrics["validation"]["accuracy"]
    assert rung["accuracy"] == pytest.approx(right, abs=0.05)
    assert rung["drop"] == pytest.approx(accuracy - rung["accuracy"])


def test_a_teacher_that_cannot_be_int8_is_no_yardstick(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stillroom.export.rungs import Quantiser

    make, before = Quantiser.make, file_digests(layout.REFERENCE)

    def refuse(self: Quantiser, rung: str, target: Path, nodes: Sequence[str] | None = None) -> None:
        if rung == "dynamic_int8":
            raise ValueError("no such operator")
        make(self, rung, target, nodes)

    monkeypatch.setattr(Quantiser, "make", refuse)
    assert run_stage(monkeypatch, "reference") == 2
    assert "has no int8 form to measure students against" in caplog.text
    assert "ValueError: no such operator; take another teacher" in caplog.text
    assert file_digests(layout.REFERENCE) == before


def test_the_int8_teacher_is_a_package_like_any_other(finished: Workspace) -> None:
    package = Package.load(layout.REFERENCE / "onnx_int8")
    assert package.labels == LABELS
    assert (package.manifest["family"], package.manifest["quantisation"]) == ("teacher", "dynamic_int8")
    assert package.manifest["lineage"] == {
        "data": read_snapshot(layout.SPLIT).sha256,
        "teacher": sha256_file(layout.TEACHER / "model.safetensors"),
    }
    test = read_split(layout.SPLIT, "test")
    teacher = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    assert (package.predict(test.text).argmax(1) == teacher.argmax(1)).mean() > 0.8


def test_no_scratch_is_left(finished: Workspace) -> None:
    assert {path.name for path in layout.REFERENCE.iterdir()} == {"predictions.parquet", "reference.json", "onnx_int8"}
    assert {path.name for path in layout.REFERENCE.parent.iterdir()} == {
        "ingested",
        "split",
        "grown",
        "teacher",
        "cache",
        "reference",
        "students",
        "packages",
        "evaluations",
    }
