"""From a model in PyTorch to a package: export, parity, ladder, calibration, folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from stillroom.batching import Ints, Tokens, load_tokeniser, tokenise
from stillroom.calibration import fit_temperature
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export.ladder import Trial, climb
from stillroom.export.measure import latencies_ms
from stillroom.export.onnx import Floats, check_parity, export_onnx, onnx_logits, open_graph, torch_logits
from stillroom.export.package import write_package
from stillroom.export.rungs import Quantiser
from stillroom.gate.metrics import expected_calibration_error
from stillroom.problem import ProblemType, probabilities
from stillroom.quantise_params import QuantiseParams

_BUDGET = 8192
_PARITY_ROWS = 64
_SAMPLE_ROWS = 128
_TIMED_ROWS = 100


@dataclass(frozen=True)
class Model:
    """What is to be packaged. module: ids and mask to logits; tokeniser: its tokenizer.json; threads: 0 for all.

    accuracy: of the module on the validation rows, where it is known already; then rungs are not compared with fp32.
    """

    name: str
    family: str
    module: nn.Module
    tokeniser: Path
    problem_type: ProblemType
    labels: Sequence[str]
    max_length: int
    params: int
    threads: int
    accuracy: float | None = None


def build_package(
    folder: Path,
    model: Model,
    validation: Rows,
    settings: QuantiseParams,
    lineage: Mapping[str, str],
    train: Rows | None = None,
) -> dict[str, Any]:
    """Fill an empty folder with a package and return its manifest.

    Validation rows choose the rung and temperature; training rows give the static rungs their ranges, and with too few
    of them those rungs fail.
    """
    tokeniser = load_tokeniser(model.tokeniser, model.max_length)
    tokens = tokenise(tokeniser, validation.text, model.max_length)
    sample = tokens.take(_spread(len(tokens), _SAMPLE_ROWS))

    def calibration() -> Tokens:
        if train is None:
            raise InputError("no training rows are given to take ranges from")
        if len(train) < settings.calibration_rows:
            raise InputError(
                f"quantise.calibration_rows is {settings.calibration_rows}, and there are {len(train)} training rows; "
                "lower it for this rung to be tried"
            )
        texts = [train.text[row] for row in _spread(len(train), settings.calibration_rows)]
        return tokenise(tokeniser, texts, model.max_length)

    def timed(graphs: Mapping[str, Path]) -> dict[str, float]:
        rows = _spread(len(tokens), _TIMED_ROWS)
        inputs = [tokens.padded(rows[place : place + 1], pad=0) for place in range(len(rows))]
        sessions = {name: open_graph(path, model.threads) for name, path in graphs.items()}
        taken = latencies_ms({name: partial(_run, session) for name, session in sessions.items()}, inputs, {})
        return {name: float(f"{figures['p50']:.3g}") for name, figures in taken.items()}

    with TemporaryDirectory(dir=folder.parent) as scratch:
        graph = Path(scratch) / "model.onnx"
        export_onnx(model.module, graph)
        checked = _extremes(tokens)
        expected = torch_logits(model.module, tokens.take(checked), _BUDGET)
        found = onnx_logits(graph, tokens.take(checked), _BUDGET)
        check_parity(expected, found, settings.parity_tolerance, graph, validation.row[checked])
        trial = Trial(
            predict=lambda path: onnx_logits(path, tokens, _BUDGET),
            predict_some=lambda path: onnx_logits(path, sample, _BUDGET),
            time=timed,
            label=validation.label,
            row=validation.row,
            expected=expected,
            checked=checked,
            accuracy=model.accuracy,
        )
        climbed = climb(Quantiser(graph, Path(scratch), calibration), settings, trial)
        temperature = round(fit_temperature(climbed.logits, validation.label), 6)
        error = {
            when: expected_calibration_error(validation.label, probabilities(climbed.logits, model.problem_type, scale))
            for when, scale in (("before", 1.0), ("after", temperature))
        }
        return write_package(
            folder,
            model=climbed.path,
            tokeniser=model.tokeniser,
            name=model.name,
            family=model.family,
            problem_type=model.problem_type,
            labels=model.labels,
            max_length=model.max_length,
            temperature=temperature,
            quantisation=climbed.steps[-1].rung,
            params=model.params,
            threads=model.threads,
            lineage=lineage,
            rungs=[step.as_json() for step in climbed.steps],
            calibration={f"ece_{when}": value for when, value in error.items()},
            fp32=None if climbed.fp32 is None else climbed.fp32.as_json(),
        )


def _run(session: Any, inputs: tuple[Ints, Ints]) -> Floats:
    logits: Floats = session.run(None, {"input_ids": inputs[0], "attention_mask": inputs[1]})[0]
    return logits


def _spread(rows: int, count: int) -> Ints:
    """At most `count` of so many rows, evenly spread and the same each time."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _extremes(tokens: Tokens) -> Ints:
    """The longest and the shortest rows, where padding and positions go wrong first."""
    order = np.argsort(tokens.lengths, kind="stable")
    return np.unique(np.concatenate([order[: _PARITY_ROWS // 2], order[-_PARITY_ROWS // 2 :]]))
