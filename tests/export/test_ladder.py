import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from stillroom.export.build import Model
from stillroom.export.ladder import climb, quantise, rungs_json
from stillroom.export.onnx import Floats, export_onnx
from stillroom.params import QuantiseParams

LABELS = np.arange(100) % 4
ALL = ("dynamic_int8", "dynamic_int8_per_channel", "fp32")


@pytest.fixture(scope="module")
def graph(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(model.module, path)
    return path


def answers(**mistakes: int) -> Callable[[Path], Floats]:
    """Logits of 100 rows with so many mistakes for the graph of each rung, by file name."""

    def predict(path: Path) -> Floats:
        chosen = LABELS.copy()
        wrong = mistakes.get(path.stem, mistakes["model"])
        chosen[:wrong] = (chosen[:wrong] + 1) % 4
        return np.eye(4, dtype=np.float32)[chosen]

    return predict


def types_of(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


@pytest.mark.parametrize(
    ("mistakes", "chosen", "tried"),
    [
        ({"model": 10, "dynamic_int8": 10, "dynamic_int8_per_channel": 10}, "dynamic_int8", 1),
        ({"model": 10, "dynamic_int8": 9, "dynamic_int8_per_channel": 10}, "dynamic_int8", 1),
        ({"model": 10, "dynamic_int8": 12, "dynamic_int8_per_channel": 10}, "dynamic_int8", 1),
        ({"model": 10, "dynamic_int8": 13, "dynamic_int8_per_channel": 11}, "dynamic_int8_per_channel", 2),
        ({"model": 10, "dynamic_int8": 40, "dynamic_int8_per_channel": 13}, "fp32", 3),
    ],
)
def test_the_first_rung_whose_drop_is_allowed_wins(
    graph: Path, tmp_path: Path, mistakes: dict[str, int], chosen: str, tried: int
) -> None:
    predict = answers(**mistakes)
    path, logits, steps = climb(graph, tmp_path, QuantiseParams(rungs=ALL, allowed_drop=0.0201), predict, LABELS)
    assert path == tmp_path / f"{chosen}.onnx"
    assert [step.rung for step in steps] == list(ALL[:tried])
    assert [step.ok for step in steps] == [False] * (tried - 1) + [True]
    np.testing.assert_array_equal(logits, predict(path))
    for step in steps:
        wrong = mistakes.get(step.rung, mistakes["model"])
        assert step.accuracy == pytest.approx(1 - wrong / 100)
        assert step.drop == pytest.approx((wrong - mistakes["model"]) / 100)
        assert step.size_bytes == (tmp_path / f"{step.rung}.onnx").stat().st_size
    assert (tmp_path / "fp32.onnx").exists() == (tried == 3)


def test_with_no_drop_allowed_fp32_is_still_taken(graph: Path, tmp_path: Path) -> None:
    predict = answers(model=10, dynamic_int8=11, dynamic_int8_per_channel=11)
    path, _, steps = climb(graph, tmp_path, QuantiseParams(allowed_drop=0.0), predict, LABELS)
    assert path.read_bytes() == graph.read_bytes()
    assert steps[-1].drop == 0


def test_a_source_whose_accuracy_is_known_is_run_for_the_rung_fp32_only(graph: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def predict(path: Path) -> Floats:
        seen.append(path.stem)
        return answers(model=10, dynamic_int8=13, dynamic_int8_per_channel=11)(path)

    settings = QuantiseParams(rungs=ALL, allowed_drop=0.0251)
    path, _, steps = climb(graph, tmp_path, settings, predict, LABELS, accuracy=0.9)
    assert seen == ["dynamic_int8", "dynamic_int8_per_channel"]
    assert path == tmp_path / "dynamic_int8_per_channel.onnx"
    assert [step.drop for step in steps] == pytest.approx([0.03, 0.01])
    seen.clear()
    path, logits, steps = climb(graph, tmp_path, QuantiseParams(allowed_drop=0.0), predict, LABELS, accuracy=0.91)
    assert seen == ["dynamic_int8", "dynamic_int8_per_channel", "model"]
    assert path.stem == steps[-1].rung == "fp32", "fp32 is taken whatever was told of it"
    np.testing.assert_array_equal(logits, answers(model=10)(path))


def test_only_the_rungs_that_are_named_are_tried(graph: Path, tmp_path: Path) -> None:
    _, _, steps = climb(graph, tmp_path, QuantiseParams(rungs=("fp32",)), answers(model=0), LABELS)
    assert [step.rung for step in steps] == ["fp32"]
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx"]


def test_the_rungs_are_different_graphs_and_the_source_stays(graph: Path, tmp_path: Path) -> None:
    before = graph.read_bytes()
    for rung in ALL:
        quantise(graph, tmp_path / rung, rung)
        onnx.checker.check_model(str(tmp_path / rung))
    assert graph.read_bytes() == before == (tmp_path / "fp32").read_bytes()
    assert (tmp_path / "dynamic_int8").read_bytes() != (tmp_path / "dynamic_int8_per_channel").read_bytes()
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= types_of(tmp_path / "dynamic_int8")
    assert "MatMulInteger" not in types_of(tmp_path / "fp32")
    assert (tmp_path / "dynamic_int8").stat().st_size < len(before)


def test_quantising_is_deterministic(graph: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        quantise(graph, tmp_path / name, "dynamic_int8")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_logging_works_after_quantising_and_after_its_failure(
    graph: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantise(graph, tmp_path / "one", "dynamic_int8")
    (tmp_path / "broken").write_bytes(b"no graph")
    with pytest.raises(Exception, match=r"\S"):
        quantise(tmp_path / "broken", tmp_path / "two", "dynamic_int8")
    with caplog.at_level(logging.INFO):
        logging.getLogger().info("still heard")
    assert "still heard" in caplog.text


def test_the_rungs_are_told_as_plain_values(graph: Path, tmp_path: Path) -> None:
    import json

    _, _, steps = climb(graph, tmp_path, QuantiseParams(), answers(model=10), LABELS)
    told = rungs_json(steps)
    assert json.loads(json.dumps(told)) == told
    assert told[0].keys() == {"rung", "accuracy", "drop", "size_bytes", "ok"}
