"""What stages left on disk, told in names and values that MLflow takes."""

import math
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.files import write_json
from stillroom.registry import history
from stillroom.registry.history import Point


def test_curves_have_a_point_per_epoch(workspace: Any) -> None:
    told = history.told(workspace.root, "distil@static")
    losses = [(point.step, point.value) for point in told.points if point.key == "train_loss"]
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert sum(point.key == "baseline.validation_accuracy" for point in told.points) == 2
    assert told.tags == {"family": "static"}


def test_package_figures(workspace: Any) -> None:
    told = history.told(workspace.root, "evaluate@static")
    figures = {point.key: point.value for point in told.points}
    assert figures["accuracy"] == 0.95
    assert figures["baseline.accuracy"] == 0.9
    assert figures["teacher.accuracy"] == 0.96
    assert figures["latency_ms.p95"] == 0.2
    assert figures["f1.good/__"] == 0.91


def test_figures_of_both_forms_of_the_teacher(tmp_path: Path) -> None:
    form = {"throughput_rows_per_s": 90.0, "load_ms": 9.0, "peak_memory_bytes": 900, "size_bytes": 90}
    int8 = form | {"per_class": {"a": {"f1": 0.8, "support": 3}}, "agreement": 0.97}
    reference = form | {"params": 7, "per_class": {"a": {"f1": 0.9, "support": 3}}, "onnx_int8": int8}
    write_json(tmp_path / "artifacts/reference/reference.json", reference | {"machine": {"cores": 2}})
    told = {point.key: point.value for point in history.told(tmp_path, "reference").points}
    both = {f"onnx_int8.{name}": value for name, value in form.items()} | form
    others = {"params": 7, "f1.a": 0.9, "onnx_int8.f1.a": 0.8, "onnx_int8.agreement": 0.97}
    assert told == both | others


def test_hits_of_a_scan_for_personal_data_are_figures_of_ingest(tmp_path: Path) -> None:
    found = {"texts": 9, "texts_with_any": 2, "kinds": {"email": {"texts": 2, "hits": 3}}}
    path = tmp_path / "artifacts/ingested/report.json"
    write_json(path, {"personal_data": {"regions": ["DE"], "redacted": True, "files": {"train": found}}})
    told = {point.key: point.value for point in history.told(tmp_path, "ingest").points}
    assert told == {
        "personal_data.train.texts": 9,
        "personal_data.train.texts_with_any": 2,
        "personal_data.train.kinds.email.texts": 2,
        "personal_data.train.kinds.email.hits": 3,
    }
    write_json(path, {"files": {"train": {"rows": 9}}})
    assert history.told(tmp_path, "ingest").points == ()


def test_result_differs_when_the_file_differs(workspace: Any) -> None:
    before = history.told(workspace.root, "evaluate@static").result
    path = workspace.root / "artifacts/evaluations/static/evaluation.json"
    path.write_text(path.read_text().replace("0.95", "0.96"))
    assert history.told(workspace.root, "evaluate@static").result != before


def test_missing_output_tells_nothing(tmp_path: Path) -> None:
    for address in ("teach", "distil@static", "report", "unheard-of"):
        assert history.told(tmp_path, address).points == ()


def test_every_quantisation_rung_is_a_step(tmp_path: Path) -> None:
    rungs = [{"rung": "dynamic_int8", "accuracy": 0.8}, {"rung": "fp32", "accuracy": 0.9}]
    manifest = {"quantisation": "fp32", "digest": "d", "rungs": rungs}
    write_json(tmp_path / "artifacts/packages/s/student/stillroom.json", manifest)
    told = history.told(tmp_path, "quantise@s")
    assert told.points == (Point("accuracy", 0.8, 0), Point("accuracy", 0.9, 1))
    assert told.tags["rungs.tried"] == "dynamic_int8, fp32"


def test_stage_params_name_the_student(workspace: Any) -> None:
    params = history.stage_params(workspace.params, "distil@tiny")
    assert params["student.epochs"] == "2"
    assert params["seed"] == "0"
    assert not any(name.startswith("teacher") for name in params)


def test_flat_params_are_short_texts() -> None:
    flat = history.flat({"a": {"b": None, "c": [1, 2]}, "long": "x" * 7000, "bad ü?": True})
    assert flat["a.b"] == "none"
    assert flat["a.c"] == "1, 2"
    assert len(flat["long"]) == 6000
    assert flat["bad __"] == "True"


@settings(deadline=None)  # the first call imports mlflow
@given(st.text(max_size=400) | st.text(alphabet="./a ü", max_size=8) | st.just("a" * 249 + "/b"))
def test_keys_satisfy_mlflow(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    key = history.key(name)
    assert len(key) <= 250
    _validate_metric_name(key)
    _validate_param_name(key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(JSON)
def test_only_finite_numbers_are_told(value: Any) -> None:
    assert all(math.isfinite(point.value) for point in history.numbers(value))
