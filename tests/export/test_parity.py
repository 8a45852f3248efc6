from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.batching import Floats, Tokens, load_tokeniser, tokenise
from stillroom.errors import InputError
from stillroom.export import onnx, parity
from stillroom.export.build import Model
from stillroom.export.parity import check_parity
from tests.export.models import MAX_LENGTH, VALIDATION

Families = dict[str, Model]
IDS = np.arange(60) + 500


@pytest.fixture(scope="module")
def tokens(model: Model) -> Tokens:
    return tokenise(load_tokeniser(model.tokeniser, MAX_LENGTH), VALIDATION.text, MAX_LENGTH)


class Odd(nn.Module):
    """Computes something else while it is exported."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        sums = (input_ids * attention_mask).sum(dim=1, keepdim=True).float()
        off = 1.0 if torch.compiler.is_exporting() else 0.0
        return torch.cat([sums, sums + off], dim=1)


def test_a_graph_that_computes_what_pytorch_does_gives_its_logits(model: Model, tokens: Tokens, tmp_path: Path) -> None:
    onnx.export_onnx(model.module, tmp_path / "model.onnx")
    found = check_parity(model.module, tmp_path / "model.onnx", tokens, IDS, 500, 1e-3)
    np.testing.assert_array_equal(found, onnx.torch_logits(model.module, tokens, 500))


@pytest.mark.parametrize("bad", [0.25, np.nan, np.inf])
def test_the_worst_class_is_named_with_its_row_and_what_is_allowed(
    bad: float, model: Model, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path, tokens: Tokens, budget: int) -> Floats:
        logits = onnx.torch_logits(model.module, tokens, budget)
        logits[7, 2] -= 0.125
        logits[3, 1] += bad
        return logits

    monkeypatch.setattr(parity, "onnx_logits", wrong)
    with pytest.raises(
        InputError,
        match=rf"x\.onnx: .* by {bad:.2g} at row 503, class 1 of its output logits; at most 0\.001 is allowed "
        r"\(quantise\.parity_tolerance\)",
    ):
        check_parity(model.module, Path("x.onnx"), tokens, IDS, 500, 1e-3)
    if np.isfinite(bad):
        check_parity(model.module, Path("x.onnx"), tokens, IDS, 500, 0.26)


Spoil = Callable[[Any], None]


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spoil], None]:
    """Has the exporter make a mistake."""
    trace = onnx.traced

    def install(spoil: Spoil) -> None:
        def traced(model: nn.Module) -> Any:
            program = trace(model)
            spoil(program.model.graph)
            return program

        for module in (onnx, parity):
            monkeypatch.setattr(module, "traced", traced)

    return install


def scaled(name: str, factor: float) -> Spoil:
    def spoil(graph: Any) -> None:
        import onnx_ir

        weight = graph.initializers[name]
        weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * np.float32(factor), name=name)

    return spoil


@pytest.mark.parametrize(
    ("weight", "node"), [("body.1.weight", r"node_linear \(Gemm\)"), ("body.3.bias", r"node_linear_1 \(Gemm\)")]
)
def test_the_first_node_that_differs_is_named(
    weight: str,
    node: str,
    model: Model,
    tokens: Tokens,
    tmp_path: Path,
    spoilt: Callable[[Spoil], None],
) -> None:
    spoilt(scaled(weight, 1.5))
    onnx.export_onnx(model.module, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=rf"; the first node that differs is {node}, by \d"):
        check_parity(model.module, tmp_path / "model.onnx", tokens, IDS, 500, 1e-4)


def test_a_model_that_computes_something_else_while_it_is_traced_has_no_such_node(
    tmp_path: Path, tokens: Tokens
) -> None:
    onnx.export_onnx(Odd(), tmp_path / "model.onnx")
    with pytest.raises(
        InputError, match=r"differs from PyTorch by 1 at row 500, class 1 of .*; no node differs from PyTorch's own"
    ):
        check_parity(Odd(), tmp_path / "model.onnx", tokens, IDS, 500, 1e-3)
