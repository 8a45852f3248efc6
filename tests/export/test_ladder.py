import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.batching import Floats, load_tokeniser, tokenise
from stillroom.errors import InputError
from stillroom.export.build import Model
from stillroom.export.ladder import Climbed, Trial, climb
from stillroom.export.onnx import export_onnx, onnx_logits, torch_logits
from stillroom.export.rungs import Quantiser
from stillroom.quantise_params import QuantiseParams
from tests.export.models import MAX_LENGTH, VALIDATION, poisoned

LABELS = np.arange(100) % 4
ROWS = np.arange(100) + 1000
DYNAMIC = ("dynamic_int8", "dynamic_int8_per_channel", "fp32")


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


def trial_of(predict: Callable[[Path], Floats], **changes: Any) -> Trial:
    """100 rows, with PyTorch's logits of two of them as `predict` gives them for fp32."""
    checked = np.array([3, 60])
    expected = predict(Path("model.onnx"))[checked]
    trial = Trial(predict, predict, LABELS, ROWS, expected, checked)
    return replace(trial, **changes)


def no_rows() -> Any:
    raise AssertionError("only static rungs calibrate")


def climbed(graph: Path, folder: Path, trial: Trial, rungs: tuple[str, ...], **settings: Any) -> Climbed:
    params = QuantiseParams(rungs=rungs, **settings)  # type: ignore[arg-type]
    return climb(Quantiser(graph, folder, no_rows), params, trial)


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
    found = climbed(graph, tmp_path, trial_of(predict), DYNAMIC, allowed_drop=0.0201)
    assert found.path == tmp_path / f"{chosen}.onnx"
    assert [step.rung for step in found.steps] == list(DYNAMIC[:tried])
    assert [step.ok for step in found.steps] == [False] * (tried - 1) + [True]
    np.testing.assert_array_equal(found.logits, predict(found.path))
    for step in found.steps:
        wrong = mistakes.get(step.rung, mistakes["model"])
        assert step.accuracy == pytest.approx(1 - wrong / 100)
        assert step.drop == pytest.approx((wrong - mistakes["model"]) / 100)
        assert step.agreement == pytest.approx(1 - abs(wrong - mistakes["model"]) / 100)
        assert step.size_bytes == (tmp_path / f"{step.rung}.onnx").stat().st_size
    assert {path.stem for path in tmp_path.iterdir()} == set(DYNAMIC[:tried]), "a rung above costs nothing"
    assert found.fp32 is not None
    assert (found.fp32.rung, found.fp32.accuracy, found.fp32.drop) == ("fp32", pytest.approx(0.9), 0)
    assert found.fp32.size_bytes == graph.stat().st_size
    own = {rung: tmp_path / f"{rung}.onnx" for rung in DYNAMIC[:tried]}
    assert found.compared == own | {"fp32": graph}


def test_the_largest_difference_from_pytorch_is_named_with_its_row(graph: Path, tmp_path: Path) -> None:
    def predict(path: Path) -> Floats:
        logits = answers(model=10)(path)
        if path.stem != "model":
            logits[3, 2] += 0.25
            logits[60, 1] -= 0.5
            logits[70, 1] -= 5  # PyTorch was not asked for this row
        return logits

    found = climbed(graph, tmp_path, trial_of(predict), DYNAMIC, allowed_drop=1.0)
    assert (found.steps[0].difference, found.steps[0].difference_row) == (0.5, 1060)
    assert found.fp32 is not None
    assert found.fp32.difference == 0


def test_with_no_drop_allowed_fp32_is_still_taken(graph: Path, tmp_path: Path) -> None:
    predict = answers(model=10, dynamic_int8=11, dynamic_int8_per_channel=11)
    found = climbed(graph, tmp_path, trial_of(predict), DYNAMIC, allowed_drop=0.0)
    assert found.path.read_bytes() == graph.read_bytes()
    assert found.steps[-1].drop == 0


def test_a_source_whose_accuracy_is_known_is_run_for_the_rung_fp32_only(graph: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def predict(path: Path) -> Floats:
        seen.append(path.stem)
        return answers(model=10, dynamic_int8=13, dynamic_int8_per_channel=11)(path)

    trial = trial_of(predict, accuracy=0.9)
    seen.clear()
    found = climbed(graph, tmp_path, trial, DYNAMIC, allowed_drop=0.0251)
    assert seen == ["dynamic_int8", "dynamic_int8_per_channel"]
    assert found.path == tmp_path / "dynamic_int8_per_channel.onnx"
    assert [step.drop for step in found.steps] == pytest.approx([0.03, 0.01])
    assert (found.fp32, found.compared) == (None, {})
    seen.clear()
    found = climbed(graph, tmp_path, replace(trial, accuracy=0.91), DYNAMIC, allowed_drop=0.0)
    assert seen == ["dynamic_int8", "dynamic_int8_per_channel", "model"]
    assert found.path.stem == found.steps[-1].rung == "fp32", "fp32 is taken whatever was told of it"
    np.testing.assert_array_equal(found.logits, answers(model=10)(found.path))


def test_only_the_rungs_that_are_named_are_tried(graph: Path, tmp_path: Path) -> None:
    found = climbed(graph, tmp_path, trial_of(answers(model=0)), ("fp32",))
    assert [step.rung for step in found.steps] == ["fp32"]
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx"]


class Refusing(Quantiser):
    """Cannot make some of the rungs."""

    refused: tuple[str, ...] = ()

    def make(self, rung: str, target: Path, nodes: Any = None) -> None:
        if rung in self.refused:
            raise ValueError(f"no {rung}\nof this graph")
        super().make(rung, target, nodes)


def test_a_rung_that_the_quantiser_refuses_has_failed_and_the_climb_goes_on(graph: Path, tmp_path: Path) -> None:
    quantiser = Refusing(graph, tmp_path, no_rows)
    quantiser.refused = ("dynamic_int8",)
    found = climb(quantiser, QuantiseParams(rungs=DYNAMIC), trial_of(answers(model=10)))  # type: ignore[arg-type]
    failed, chosen = found.steps
    assert (failed.ok, failed.accuracy) == (False, None)
    assert failed.reason == "ValueError: no dynamic_int8 of this graph"
    assert chosen.rung == "dynamic_int8_per_channel"
    quantiser.refused = DYNAMIC[:2]
    found = climb(quantiser, QuantiseParams(rungs=DYNAMIC), trial_of(answers(model=10)))  # type: ignore[arg-type]
    assert found.path.read_bytes() == graph.read_bytes()


def test_a_graph_that_onnxruntime_cannot_run_or_that_gives_no_numbers_has_failed(graph: Path, tmp_path: Path) -> None:
    def predict(path: Path) -> Floats:
        if path.stem == "dynamic_int8":
            raise RuntimeError("NOT_IMPLEMENTED")
        logits = answers(model=10)(path)
        if path.stem != "model":
            logits[7, 0] = np.nan
        return logits

    found = climbed(graph, tmp_path, trial_of(predict), DYNAMIC)
    assert found.steps[0].reason == "RuntimeError: NOT_IMPLEMENTED"
    assert found.steps[1].reason == "gives a logit that is no number at row 1007"
    assert found.steps[2].ok


def test_fp32_that_fails_is_an_error(graph: Path, tmp_path: Path) -> None:
    def predict(path: Path) -> Floats:
        raise RuntimeError("cannot run")

    with pytest.raises(RuntimeError, match="cannot run"):
        climbed(graph, tmp_path, replace(trial_of(answers(model=1)), predict=predict), ("fp32",))


def test_fp32_that_gives_no_numbers_is_an_error_that_names_the_row_whichever_rung_meets_it(
    graph: Path, tmp_path: Path
) -> None:
    def predict(path: Path) -> Floats:
        logits = answers(model=10)(path)
        if path.stem == "model":
            logits[7, 2] = np.inf
        return logits

    told = r"fp32 gives class 2 of validation row 1007 the logit inf, which is no number; train the model again"
    trial = replace(trial_of(answers(model=10)), predict=predict)
    for rungs in (("fp32",), DYNAMIC):
        with pytest.raises(InputError, match=told):
            climbed(graph, tmp_path, trial, rungs)
    with pytest.raises(InputError, match=told):
        climbed(graph, tmp_path, replace(trial, accuracy=1.0), DYNAMIC)


def test_a_drop_that_is_exactly_what_is_allowed_is_allowed(graph: Path, tmp_path: Path) -> None:
    labels, rows = np.arange(1000) % 4, np.arange(1000)

    def predict(path: Path) -> Floats:
        wrong = {"model": 100, "dynamic_int8": 104}.get(path.stem, 103)
        return np.eye(4, dtype=np.float32)[(labels + (rows < wrong)) % 4]

    assert 0.9 - 0.897 > 0.003, "as floats reckon"
    trial = trial_of(predict, label=labels, row=rows)
    found = climbed(graph, tmp_path, trial, DYNAMIC, allowed_drop=0.003)
    assert [(step.rung, step.ok, step.drop) for step in found.steps] == [
        ("dynamic_int8", False, 0.004),
        ("dynamic_int8_per_channel", True, 0.003),
    ]


def test_too_few_rows_to_calibrate_with_fail_a_rung_and_the_climb_goes_on(graph: Path, tmp_path: Path) -> None:
    def too_few() -> Any:
        raise InputError("too few rows")

    settings = QuantiseParams(rungs=("static_minmax", "dynamic_int8", "fp32"))
    found = climb(Quantiser(graph, tmp_path, too_few), settings, trial_of(answers(model=1)))
    assert [(step.rung, step.reason) for step in found.steps] == [
        ("static_minmax", "too few rows"),
        ("dynamic_int8", None),
    ]


def test_an_attempt_that_fails_leaves_nothing_of_the_one_before_to_be_timed(graph: Path, tmp_path: Path) -> None:
    class Breaking(Quantiser):
        def make(self, rung: str, target: Path, nodes: Any = None) -> None:
            if target.stem == "mixed_int8" and len(nodes) == 1:
                target.write_bytes(b"half")
                raise ValueError("disk full")
            super().make(rung, target, nodes)

    trial = trial_of(answers(model=10, dynamic_int8=90, mixed_int8=80))
    settings = QuantiseParams(rungs=("dynamic_int8", "mixed_int8", "fp32"))
    found = climb(Breaking(graph, tmp_path, no_rows), settings, trial)
    assert sorted(found.compared) == ["dynamic_int8", "fp32"]
    mixed = found.steps[1]
    assert (mixed.reason, mixed.accuracy) == ("ValueError: disk full", None)


def real_trial(model: Model) -> Trial:
    """The validation rows of the toys, labelled by PyTorch itself: every change of a class is a mistake."""
    tokens = tokenise(load_tokeniser(model.tokeniser, MAX_LENGTH), VALIDATION.text, MAX_LENGTH)
    expected = torch_logits(model.module, tokens, 500)

    def predict(path: Path) -> Floats:
        return onnx_logits(path, tokens, 500, threads=1)

    label = expected.argmax(axis=1).astype(np.int64)
    return Trial(predict, predict, label, VALIDATION.row, expected, np.arange(len(tokens)))


def test_a_poisoned_node_is_found_and_left_in_fp32(model: Model, tmp_path: Path) -> None:
    ill = poisoned(model)
    export_onnx(ill.module, tmp_path / "model.onnx")
    rungs = ("dynamic_int8", "dynamic_int8_per_channel", "mixed_int8", "fp32")
    found = climbed(tmp_path / "model.onnx", tmp_path, real_trial(ill), rungs, allowed_drop=0.05)
    tensor, channel, mixed = found.steps
    assert tensor.drop is not None
    assert channel.drop is not None
    assert min(tensor.drop, channel.drop) > 0.05
    assert mixed.rung == "mixed_int8"
    assert [entry.node for entry in mixed.left_out] == ["node_linear"]
    assert mixed.size_bytes is not None
    assert mixed.size_bytes < (tmp_path / "model.onnx").stat().st_size
    assert mixed.difference is not None
    assert tensor.difference is not None
    assert mixed.difference < tensor.difference / 5
    told = mixed.as_json()
    assert told["left_out"][0]["node"] == "node_linear"
    assert told["left_out"][0]["change"] > 0


def test_nodes_are_left_out_until_the_drop_is_allowed_and_never_all(graph: Path, tmp_path: Path) -> None:
    tried: list[list[str]] = []

    class Watched(Quantiser):
        def make(self, rung: str, target: Path, nodes: Any = None) -> None:
            if target.stem == "mixed_int8":
                tried.append(list(nodes))
            super().make(rung, target, nodes)

    quantiser = Watched(graph, tmp_path, no_rows)
    assert len(quantiser.quantisable) == 3
    predict = answers(model=10, dynamic_int8=90, mixed_int8=80)
    rungs = ("dynamic_int8", "mixed_int8", "fp32")
    found = climb(quantiser, QuantiseParams(rungs=rungs), trial_of(predict))
    assert [len(nodes) for nodes in tried] == [2, 1]
    assert [step.rung for step in found.steps] == list(rungs)
    assert len(found.steps[1].left_out) == 2
    assert not found.steps[1].ok


def test_the_rungs_are_told_as_plain_values(graph: Path, tmp_path: Path) -> None:
    found = climbed(graph, tmp_path, trial_of(answers(model=10)), DYNAMIC)
    told = [step.as_json() for step in found.steps]
    assert json.loads(json.dumps(told)) == told
    assert told[0].keys() == {
        *("rung", "ok", "accuracy", "drop", "agreement", "size_bytes", "difference", "difference_row")
    }
