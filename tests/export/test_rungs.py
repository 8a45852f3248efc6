import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from stillroom.batching import Tokens, load_tokeniser, tokenise
from stillroom.export.build import Model
from stillroom.export.onnx import export_onnx, onnx_logits
from stillroom.export.rungs import Quantiser
from tests.export.models import MAX_LENGTH, VALIDATION, sliced_model, static_model
from tests.toys import toy_rows

DYNAMIC = ("dynamic_int8", "dynamic_int8_per_channel")
INT8 = (TensorProto.INT8, TensorProto.UINT8)
STATIC = ("static_minmax", "static_entropy", "static_percentile")
FAMILIES: dict[str, Callable[[Path], Model]] = {"static": static_model, "sliced": sliced_model}


class Exported:
    """A model's graph, the tokens of validation rows and of others to calibrate with."""

    def __init__(self, folder: Path, family: str) -> None:
        model = FAMILIES[family](folder)
        self.graph = folder / "model.onnx"
        export_onnx(model.module, self.graph)
        self.tokeniser = load_tokeniser(model.tokeniser, MAX_LENGTH)
        self.tokens = tokenise(self.tokeniser, VALIDATION.text, MAX_LENGTH)
        self.calibration = self.rows(80)
        self.logits = onnx_logits(self.graph, self.tokens, 500)

    def rows(self, count: int) -> Tokens:
        return tokenise(self.tokeniser, toy_rows(count, seed=5, first_row=500).text, MAX_LENGTH)

    def quantiser(self, folder: Path) -> Quantiser:
        return Quantiser(self.graph, folder, lambda: self.calibration)


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("graph"), request.param)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("graph"), "static")


def types_of(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


def weights_of(path: Path) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in onnx.load(str(path)).graph.initializer}


@pytest.mark.parametrize("rung", [*DYNAMIC, *STATIC])
def test_a_rung_answers_nearly_as_fp32_and_holds_int8_weights_only(
    exported: Exported, tmp_path: Path, rung: str
) -> None:
    before = exported.graph.read_bytes()
    target = tmp_path / "rung.onnx"
    exported.quantiser(tmp_path).make(rung, target)
    assert exported.graph.read_bytes() == before
    onnx.checker.check_model(str(target))
    found = onnx_logits(target, exported.tokens, 500)
    assert np.isfinite(found).all()
    scale = float(exported.logits.std(axis=0).mean())
    assert 0 < float(np.abs(found - exported.logits).mean()) < 0.2 * scale
    made = weights_of(target).items()
    large = {name: weight for name, weight in made if len(weight.dims) == 2 and 1 not in weight.dims}
    assert types_of(target) & {"MatMulInteger", "DequantizeLinear"}
    assert {name for name, weight in large.items() if weight.data_type not in INT8} == set()
    assert len(large) >= 3
    assert target.stat().st_size < len(before)


def test_static_rungs_keep_attention_and_logits_in_float(exported: Exported, tmp_path: Path) -> None:
    exported.quantiser(tmp_path).make("static_minmax", tmp_path / "rung.onnx")
    graph = onnx.load(str(tmp_path / "rung.onnx")).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    constant = {weight.name for weight in graph.initializer}
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constant}
    for node in products:
        if node.input[1] in scaled:
            assert made_by[node.input[0]] == "DequantizeLinear"
        else:
            assert "DequantizeLinear" not in {made_by.get(name) for name in node.input}
    assert any(node.input[1] in scaled for node in products)
    assert made_by["logits"] != "DequantizeLinear"


@pytest.mark.parametrize("rung", [*DYNAMIC, *STATIC])
def test_the_table_of_a_static_student_is_int8(static: Exported, tmp_path: Path, rung: str) -> None:
    target = tmp_path / "rung.onnx"
    static.quantiser(tmp_path).make(rung, target)
    source, made = weights_of(static.graph)["table.weight"], weights_of(target)
    table = made["table.weight_quantized"]
    assert "table.weight" not in made
    assert table.data_type in INT8
    assert list(table.dims) == list(source.dims)
    rows = table.dims[0] if rung != "dynamic_int8" else 1
    assert int(np.prod(made["table.weight_scale"].dims)) == rows
    cells = sum(int(np.prod(weight.dims)) for weight in weights_of(static.graph).values())
    scales = sum(4 * int(np.prod(weight.dims)) for name, weight in made.items() if name.endswith("_scale"))
    # a byte a weight, three more for each bias and norm, scales and zero points, and the nodes themselves
    assert target.stat().st_size < cells + 2 * scales + 6500


def test_one_great_row_of_a_table_harms_the_others_only_where_rows_share_a_scale(
    static: Exported, tmp_path: Path
) -> None:
    model = onnx.load(str(static.graph))
    (weight,) = (weight for weight in model.graph.initializer if weight.name == "table.weight")
    values = numpy_helper.to_array(weight).copy()
    unused = sorted(set(range(1, len(values))) - set(static.tokens.ids.tolist()) | {len(values) - 1})[-1]
    values[unused] = 1e4
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    source = tmp_path / "great.onnx"
    onnx.save(model, str(source))
    harmed = [row for row in range(len(static.tokens)) if unused in static.tokens.one(row)]
    spared = np.setdiff1d(np.arange(len(static.tokens)), harmed)
    assert len(spared) > 10
    expected = onnx_logits(source, static.tokens, 500)[spared]
    differences = []
    for rung in DYNAMIC:
        Quantiser(source, tmp_path, lambda: static.calibration).make(rung, tmp_path / "rung.onnx")
        found = onnx_logits(tmp_path / "rung.onnx", static.tokens, 1)[spared]
        differences.append(float(np.abs(found - expected).mean()))
    assert differences[1] < differences[0] / 5


def test_only_the_nodes_that_are_named_are_quantised(exported: Exported, tmp_path: Path) -> None:
    quantiser = exported.quantiser(tmp_path)
    names = quantiser.quantisable
    assert len(names) == len(set(names)) >= 3
    for rung in (*DYNAMIC, "static_minmax"):
        for name in (names[0], names[-1]):
            quantiser.make(rung, tmp_path / "one.onnx", [name])
            made = weights_of(tmp_path / "one.onnx").items()
            (int8,) = (key for key, weight in made if weight.data_type in INT8 and len(weight.dims) == 2)
            (node,) = (node for node in onnx.load(str(exported.graph)).graph.node if node.name == name)
            assert any(int8.startswith(weight) for weight in node.input)


def test_entropy_and_percentile_clip_what_the_extremes_would_not(static: Exported, tmp_path: Path) -> None:
    # in a histogram of few values entropy finds nothing to clip
    quantiser = Quantiser(static.graph, tmp_path, lambda: static.rows(1000))
    steps = {}
    for rung in STATIC:
        quantiser.make(rung, tmp_path / f"{rung}.onnx")
        steps[rung] = float(numpy_helper.to_array(weights_of(tmp_path / f"{rung}.onnx")["relu_scale"]))
    assert steps["static_entropy"] < steps["static_percentile"] < steps["static_minmax"]


def test_ranges_are_those_of_the_calibration_rows_and_taken_once(static: Exported, tmp_path: Path) -> None:
    asked: list[int] = []

    def calibration(count: int) -> Callable[[], Tokens]:
        def take() -> Tokens:
            asked.append(count)
            return static.calibration.first(count)

        return take

    graphs = []
    for count in (2, 80):
        folder = tmp_path / str(count)
        folder.mkdir()
        quantiser = Quantiser(static.graph, folder, calibration(count))
        for _ in range(2):
            quantiser.make("static_minmax", folder / "rung.onnx")
        graphs.append((folder / "rung.onnx").read_bytes())
        quantiser.make("dynamic_int8_per_channel", folder / "other.onnx")
    assert asked == [2, 80]
    assert graphs[0] != graphs[1]


@pytest.mark.parametrize("rung", [*DYNAMIC, *STATIC])
def test_quantising_is_deterministic(exported: Exported, tmp_path: Path, rung: str) -> None:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        exported.quantiser(tmp_path / name).make(rung, tmp_path / name / "rung.onnx")
        made.append((tmp_path / name / "rung.onnx").read_bytes())
    assert made[0] == made[1]


def test_quantising_is_silent_and_logging_works_after_it_and_after_its_failure(
    static: Exported, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_bytes(b"no graph")
    with caplog.at_level(logging.DEBUG):
        for rung in ("dynamic_int8", "static_percentile"):
            static.quantiser(tmp_path).make(rung, tmp_path / "one")
        assert caplog.records == []
        with pytest.raises(Exception, match=r"\S"):
            Quantiser(tmp_path / "broken", tmp_path, lambda: static.calibration).make("dynamic_int8", tmp_path / "two")
        logging.getLogger().info("still heard")
    assert "still heard" in caplog.text
    told = capfd.readouterr()
    assert told.out == told.err == ""
