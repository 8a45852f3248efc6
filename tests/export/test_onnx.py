from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from stillroom.batching import Tokens, load_tokeniser, tokenise
from stillroom.export.build import Model
from stillroom.export.onnx import OPSET, export_onnx, onnx_logits, torch_logits
from tests.export.models import VALIDATION, static_model


@pytest.fixture(scope="module")
def tokens(model: Model) -> Tokens:
    return tokenise(load_tokeniser(model.tokeniser, 24), [*VALIDATION.text, ""], 24)


@pytest.fixture(scope="module")
def graph(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(model.module, path)
    return path


def test_the_graph_computes_what_the_model_computes_at_any_size(model: Model, graph: Path, tokens: Tokens) -> None:
    expected = torch_logits(model.module, tokens, 10_000)
    assert np.ptp(expected, axis=0).min() > 0.01
    for budget in (1, 50, 10_000):
        np.testing.assert_allclose(torch_logits(model.module, tokens, budget), expected, atol=1e-5)
        np.testing.assert_allclose(onnx_logits(graph, tokens, budget, threads=1), expected, atol=1e-5)


def test_the_graph_is_one_file_with_named_free_inputs(graph: Path) -> None:
    assert [path.name for path in graph.parent.iterdir()] == ["model.onnx"]
    found = onnx.load(str(graph), load_external_data=False)
    onnx.checker.check_model(found)
    assert [entry.name for entry in found.graph.input] == ["input_ids", "attention_mask"]
    assert [entry.name for entry in found.graph.output] == ["logits"]
    for entry in found.graph.input:
        assert entry.type.tensor_type.elem_type == onnx.TensorProto.INT64
        assert all(size.dim_param for size in entry.type.tensor_type.shape.dim)
    assert {entry.version for entry in found.opset_import if entry.domain == ""} == {OPSET}


def test_the_graph_tells_nothing_of_the_machine_and_code_that_made_it(graph: Path) -> None:
    content = graph.read_bytes()
    for told in (Path(torch.__file__).parent, Path(__file__).parent, Path.cwd(), Path.home()):
        assert str(told).encode() not in content
    for told in (b".py", b"stack_trace", b"site-packages"):
        assert told not in content


def test_equal_models_make_equal_graphs(graph: Path, tmp_path: Path) -> None:
    export_onnx(static_model(tmp_path).module, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == graph.read_bytes()
