import json

import numpy as np
import pytest

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.calibration import softmax
from stillroom.data.splits import read_snapshot, read_split
from stillroom.export.predictions import read_probabilities
from stillroom.export.runtime import Package
from stillroom.files import sha256_file
from stillroom.gate.metrics import classification_metrics
from stillroom.stages.receipt import read_receipt
from stillroom.teacher.inference import predict
from stillroom.teacher.model import TOKENISER, count_params, load_teacher
from tests.toys import LABELS, Workspace


def test_the_teachers_test_predictions_are_its_calibrated_answers(finished: Workspace) -> None:
    test = read_split(layout.SPLIT, "test")
    model, description = load_teacher(layout.TEACHER)
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), test.text, 32)
    expected = softmax(predict(model, tokens, description.pad, 50), description.temperature)
    found = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_reference_tells_quality_and_size_of_both_forms(finished: Workspace) -> None:
    told = json.loads((layout.REFERENCE / "reference.json").read_text())
    test = read_split(layout.SPLIT, "test")
    found = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test)
    assert told["metrics"] == pytest.approx(classification_metrics(test.label, found))
    assert told["metrics"].keys() == {"accuracy", "macro_f1", "ece"}
    assert set(told["per_class"]) == set(LABELS)
    assert told["params"] == count_params(load_teacher(layout.TEACHER)[0])
    files = [layout.TEACHER / name for name in ("model.safetensors", "tokenizer.json")]
    assert told["size_bytes"] == sum(path.stat().st_size for path in files)
    int8 = layout.REFERENCE / "onnx_int8"
    assert told["onnx_int8"]["size_bytes"] == sum(path.stat().st_size for path in int8.iterdir())
    predicted = Package.load(int8).predict(test.text)
    assert told["onnx_int8"]["metrics"] == pytest.approx(classification_metrics(test.label, predicted), abs=0.05)
    receipt = read_receipt("reference")
    assert receipt is not None
    assert receipt.metrics == told["metrics"]


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
        "split",
        "teacher",
        "cache",
        "reference",
        "students",
        "packages",
        "evaluations",
    }
