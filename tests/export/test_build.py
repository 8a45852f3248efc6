import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export.build import Model, build_package
from stillroom.export.runtime import Package
from stillroom.params import QuantiseParams
from tests.export.models import VALIDATION


def test_a_package_says_how_it_was_made(built: Path, model: Model) -> None:
    manifest = json.loads((built / "int8" / "stillroom.json").read_text())
    assert manifest["quantisation"] == "dynamic_int8"
    assert [rung["rung"] for rung in manifest["rungs"]] == ["dynamic_int8"]
    assert (manifest["name"], manifest["family"], manifest["params"]) == ("toy", "static", model.params)
    assert (manifest["max_length"], manifest["threads"], manifest["lineage"]) == (24, 1, {"data": "d" * 64})
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


def test_parity_is_checked_on_few_rows_of_any_number(tmp_path: Path, model: Model) -> None:
    for count in (1, 60):
        folder = tmp_path / str(count)
        folder.mkdir()
        rows = Rows(VALIDATION.row[:count], VALIDATION.text[:count], VALIDATION.label[:count])
        manifest = build_package(folder, model, rows, QuantiseParams(rungs=("fp32",)), {})
        assert Package.load(folder).digest == manifest["digest"]
