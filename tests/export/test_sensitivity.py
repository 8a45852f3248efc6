from pathlib import Path

import numpy as np
import pytest

from stillroom.batching import Floats, load_tokeniser, tokenise
from stillroom.export.build import Model
from stillroom.export.onnx import export_onnx, onnx_logits
from stillroom.export.rungs import Quantiser
from stillroom.export.sensitivity import sensitivity
from tests.export.models import MAX_LENGTH, VALIDATION, poisoned


def quantiser_of(model: Model, folder: Path) -> Quantiser:
    export_onnx(model.module, folder / "model.onnx")
    return Quantiser(folder / "model.onnx", folder, lambda: pytest.fail("no dynamic rung calibrates"))


@pytest.mark.parametrize("rung", ["dynamic_int8", "dynamic_int8_per_channel"])
def test_the_poisoned_node_is_the_worst_by_far(model: Model, tmp_path: Path, rung: str) -> None:
    tokens = tokenise(load_tokeniser(model.tokeniser, MAX_LENGTH), VALIDATION.text, MAX_LENGTH)
    found = []
    for name, version in (("sound", model), ("poisoned", poisoned(model))):
        (tmp_path / name).mkdir()
        quantiser = quantiser_of(version, tmp_path / name)
        found.append(sensitivity(quantiser, rung, lambda path: onnx_logits(path, tokens, 500)))
        assert {entry.node for entry in found[-1]} == set(quantiser.quantisable)
    sound, ill = found
    assert [entry.change for entry in ill] == sorted((entry.change for entry in ill), reverse=True)
    assert ill[0].node == "node_linear"
    assert ill[0].change > 10 * ill[1].change
    before = {entry.node: entry.change for entry in sound}
    assert ill[0].change > 10 * before["node_linear"]
    assert 0 < max(before.values()) < 1


def test_a_node_that_fails_or_gives_no_numbers_is_the_worst(model: Model, tmp_path: Path) -> None:
    quantiser = quantiser_of(model, tmp_path)
    names = list(quantiser.quantisable)
    calls: list[Path] = []

    def predict(path: Path) -> Floats:
        calls.append(path)
        if len(calls) == 3:
            raise RuntimeError("not this one")
        return np.full((2, 3), {1: 0.0, 2: 0.25, 4: np.nan}[len(calls)], np.float32)

    found = sensitivity(quantiser, "dynamic_int8", predict)
    assert [entry.node for entry in found] == [names[1], names[2], names[0]]
    assert np.isfinite([entry.change for entry in found]).all()
    assert found[-1].change == 0.25
