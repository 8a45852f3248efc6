"""From a model in PyTorch to a package: export, parity, ladder, calibration, folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from stillroom.batching import Tokens, load_tokeniser, tokenise
from stillroom.calibration import fit_temperature
from stillroom.data.splits import Rows
from stillroom.export.ladder import climb, rungs_json
from stillroom.export.onnx import Floats, check_parity, export_onnx, onnx_logits, torch_logits
from stillroom.export.package import write_package
from stillroom.params import QuantiseParams

_BUDGET = 8192
_PARITY_ROWS = 64


@dataclass(frozen=True)
class Model:
    """What is to be packaged. module: ids and mask to logits; tokeniser: its tokenizer.json; threads: 0 for all.

    accuracy: of the module on the validation rows, where it is known already.
    """

    name: str
    family: str
    module: nn.Module
    tokeniser: Path
    labels: Sequence[str]
    max_length: int
    params: int
    threads: int
    accuracy: float | None = None


def build_package(
    folder: Path, model: Model, validation: Rows, settings: QuantiseParams, lineage: Mapping[str, str]
) -> dict[str, Any]:
    """Fill an empty folder with a package and return its manifest. Validation rows choose the rung and temperature."""
    tokens = tokenise(load_tokeniser(model.tokeniser, model.max_length), validation.text, model.max_length)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        graph = Path(scratch) / "model.onnx"
        export_onnx(model.module, graph)
        _check_parity(model, graph, tokens, settings)

        def predict(path: Path) -> Floats:
            return onnx_logits(path, tokens, _BUDGET)

        chosen, logits, steps = climb(graph, Path(scratch), settings, predict, validation.label, model.accuracy)
        temperature = fit_temperature(logits, validation.label)
        return write_package(
            folder,
            model=chosen,
            tokeniser=model.tokeniser,
            name=model.name,
            family=model.family,
            labels=model.labels,
            max_length=model.max_length,
            temperature=round(temperature, 6),
            quantisation=steps[-1].rung,
            params=model.params,
            threads=model.threads,
            lineage=lineage,
            rungs=rungs_json(steps),
        )


def _check_parity(model: Model, graph: Path, tokens: Tokens, settings: QuantiseParams) -> None:
    """On the longest and the shortest rows, where padding and positions go wrong first."""
    order = np.argsort(tokens.lengths, kind="stable")
    rows = np.unique(np.concatenate([order[: _PARITY_ROWS // 2], order[-_PARITY_ROWS // 2 :]]))
    lengths = tokens.lengths[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sample = Tokens(np.concatenate([tokens.one(int(row)) for row in rows]), offsets)
    expected = torch_logits(model.module, sample, _BUDGET)
    check_parity(expected, onnx_logits(graph, sample, _BUDGET), settings.parity_tolerance, graph)
