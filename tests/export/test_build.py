import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.batching import Tokens
from stillroom.cores import available_cores
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export import build
from stillroom.export.build import Model, build_package
from stillroom.export.runtime import Package
from stillroom.gate.metrics import classification_metrics
from stillroom.problem import probabilities
from stillroom.quantise_params import QuantiseParams
from tests.export.models import VALIDATION
from tests.toys import toy_rows


def test_a_package_says_how_it_was_made(built: Path, model: Model) -> None:
    manifest = json.loads((built / "int8" / "stillroom.json").read_text())
    assert manifest["quantisation"] == "dynamic_int8"
    assert [rung["rung"] for rung in manifest["rungs"]] == ["dynamic_int8"]
    assert (manifest["name"], manifest["family"], manifest["params"]) == ("toy", "static", model.params)
    assert (manifest["max_length"], manifest["lineage"]) == (24, {"data": "d" * 64})
    assert 1 <= manifest["threads"] <= available_cores()
    assert json.loads((built / "fp32" / "stillroom.json").read_text())["quantisation"] == "fp32"
    assert {path.name for path in (built / "int8").iterdir()} == {"model.onnx", "tokenizer.json", "stillroom.json"}
    assert {path.name for path in built.iterdir()} == {"fp32", "int8"}, "no scratch is left"


def test_the_temperature_calibrates_the_packaged_graph(built: Path) -> None:
    package = Package.load(built / "fp32")
    logits = np.log(package.predict(VALIDATION.text)) * package.manifest["temperature"]

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-scaled[np.arange(60), VALIDATION.label].mean())

    fitted = package.manifest["temperature"]
    assert fitted > 0.05
    assert fitted == pytest.approx(20, rel=1e-2) or loss(fitted) < min(loss(fitted * 0.9), loss(fitted * 1.1))


def test_the_manifest_tells_the_calibration_error_with_the_temperature_and_without(built: Path) -> None:
    package = Package.load(built / "int8")
    calibrated = package.predict(VALIDATION.text)
    raw = probabilities(np.log(calibrated), "single_label", 1 / package.manifest["temperature"])
    for when, shares in (("before", raw), ("after", calibrated)):
        expected = classification_metrics(VALIDATION.label, shares)["ece"]
        assert package.manifest["calibration"][f"ece_{when}"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("cores", "one", "batch", "chosen"),
    [
        (1, {}, {}, 1),
        (2, {1: 0.011, 2: 0.0109}, {1: 0.1, 2: 0.1}, 1),
        (2, {1: 0.011, 2: 0.0109}, {1: 0.2, 2: 0.1}, 2),
        (2, {1: 0.011, 2: 0.012}, {}, 1),
        (2, {1: 9.0, 2: 5.0}, {}, 2),
        (6, {1: 9.0, 2: 5.1, 4: 4.0, 6: 3.9}, {4: 70.0, 6: 69.0}, 4),
        (8, {1: 9.0, 2: 5.0, 4: 6.0, 8: 14.0}, {}, 2),
    ],
)
def test_threads_are_the_fewest_that_answer_one_text_and_then_a_batch_about_as_soon_as_any(
    monkeypatch: pytest.MonkeyPatch, cores: int, one: dict[int, float], batch: dict[int, float], chosen: int
) -> None:
    def timed(graphs: dict[str, tuple[Path, int]], texts: Tokens, at_once: int) -> dict[str, float]:
        taken = one if at_once == 1 else batch
        assert {threads for _, threads in graphs.values()} == taken.keys()
        return {name: taken[threads] for name, (_, threads) in graphs.items()}

    monkeypatch.setattr(build, "available_cores", lambda: cores)
    monkeypatch.setattr(build, "_timed", timed)
    none = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64))
    assert build.fewest_threads(Path("model.onnx"), none) == chosen


def test_a_packages_threads_are_chosen_for_the_graph_that_ships_and_its_rungs_timed_with_them(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int]] = []

    def timed(graphs: dict[str, tuple[Path, int]], texts: Tokens, at_once: int = 1) -> dict[str, float]:
        opened.extend((path.stem, threads) for path, threads in graphs.values())
        return {name: 0.5 / threads for name, (_, threads) in graphs.items()}

    monkeypatch.setattr(build, "available_cores", lambda: 2)
    monkeypatch.setattr(build, "_timed", timed)
    manifest = build_package(tmp_path, model, VALIDATION, QuantiseParams(rungs=("dynamic_int8", "fp32")), {})
    assert opened[:2] == [("dynamic_int8", 1), ("dynamic_int8", 2)]
    assert set(opened[2:]) == {("dynamic_int8", 2), ("model", 2)}
    assert manifest["threads"] == 2
    assert [figures["latency_ms"] for figures in (manifest["fp32"], *manifest["rungs"])] == [0.25, 0.25]


class Odd(nn.Module):
    """Computes something else while it is exported."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        sums = (input_ids * attention_mask).sum(dim=1, keepdim=True).float()
        off = 0.5 if torch.compiler.is_exporting() else 0.0
        return torch.cat([sums, -sums, sums + off], dim=1)


def test_a_graph_that_differs_from_pytorch_makes_no_package(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    with pytest.raises(InputError, match=r"differs from PyTorch by 0\.5"):
        build_package(folder, replace(model, module=Odd()), VALIDATION, QuantiseParams(rungs=("fp32",)), {})
    assert list(tmp_path.rglob("*")) == [folder]
    lax = QuantiseParams(rungs=("fp32",), parity_tolerance=0.6)
    assert build_package(folder, replace(model, module=Odd()), VALIDATION, lax, {})


def test_a_row_that_differs_is_named_by_its_id(tmp_path: Path, model: Model) -> None:
    (tmp_path / "package").mkdir()
    rows = Rows(VALIDATION.row + 7000, VALIDATION.text, VALIDATION.label)
    with pytest.raises(InputError, match=r"at row 70\d\d, class 2 of its output logits"):
        build_package(tmp_path / "package", replace(model, module=Odd()), rows, QuantiseParams(rungs=("fp32",)), {})


def test_every_rung_is_in_the_manifest_with_its_figures(tmp_path: Path, model: Model) -> None:
    settings = QuantiseParams(allowed_drop=0.0, calibration_rows=32)
    random = Rows(VALIDATION.row, VALIDATION.text, np.random.default_rng(3).permutation(VALIDATION.label))
    manifest = build_package(tmp_path, model, random, settings, {}, toy_rows(40, seed=8, first_row=900))
    assert manifest["rungs"][-1]["rung"] == manifest["quantisation"]
    for rung in (manifest["fp32"], *manifest["rungs"]):
        assert rung.keys() >= {"accuracy", "drop", "agreement", "size_bytes", "latency_ms", "difference"}
        assert 0 < rung["latency_ms"] < 1000
        assert rung["difference_row"] in VALIDATION.row
    assert manifest["fp32"]["difference"] < 1e-3
    assert json.loads((tmp_path / "stillroom.json").read_text()) == manifest


def test_static_rungs_are_calibrated_on_training_rows(tmp_path: Path, model: Model) -> None:
    settings = QuantiseParams(rungs=("static_minmax", "fp32"), calibration_rows=32, allowed_drop=1.0)
    graphs = []
    for seed in (8, 8, 9):
        folder = tmp_path / str(len(graphs))
        folder.mkdir()
        manifest = build_package(folder, model, VALIDATION, settings, {}, toy_rows(40, seed=seed, first_row=900))
        assert manifest["quantisation"] == "static_minmax"
        graphs.append((folder / "model.onnx").read_bytes())
    assert graphs[0] == graphs[1] != graphs[2]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            toy_rows(40, seed=8, first_row=900),
            "quantise.calibration_rows is 41, and there are 40 training rows; lower it for this rung to be tried",
        ),
        (None, "no training rows are given to take ranges from"),
    ],
)
def test_static_rungs_fail_where_rows_to_calibrate_with_lack(
    tmp_path: Path, model: Model, rows: Rows | None, reason: str
) -> None:
    static = QuantiseParams(rungs=("static_entropy", "dynamic_int8", "fp32"), calibration_rows=41, allowed_drop=1.0)
    manifest = build_package(tmp_path, model, VALIDATION, static, {}, rows)
    assert manifest["quantisation"] == "dynamic_int8"
    assert manifest["rungs"][0] == {"rung": "static_entropy", "ok": False, "reason": reason}


def test_parity_is_checked_on_few_rows_of_any_number(tmp_path: Path, model: Model) -> None:
    for count in (1, 60):
        folder = tmp_path / str(count)
        folder.mkdir()
        rows = Rows(VALIDATION.row[:count], VALIDATION.text[:count], VALIDATION.label[:count])
        manifest = build_package(folder, model, rows, QuantiseParams(rungs=("fp32",)), {})
        assert Package.load(folder).digest == manifest["digest"]
