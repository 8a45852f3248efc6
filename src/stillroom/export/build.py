"""From a model in PyTorch to a package: export, parity, ladder, calibration, folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from stillroom.batching import Floats, Ints, Tokens, load_tokeniser, tokenise
from stillroom.calibration import fit_temperature
from stillroom.cores import available_cores
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export.ladder import Trial, climb
from stillroom.export.measure import latencies_ms
from stillroom.export.onnx import export_onnx, onnx_logits, run_graph
from stillroom.export.package import write_package
from stillroom.export.parity import check_parity
from stillroom.export.rungs import Quantiser
from stillroom.export.runtime import open_graph
from stillroom.gate.metrics import expected_calibration_error
from stillroom.problem import ProblemType, probabilities
from stillroom.quantise_params import QuantiseParams

_BUDGET = 8192
_PARITY_ROWS = 64
_SAMPLE_ROWS = 128
_TIMED_ROWS = 100
_AT_ONCE = 16
_AS_SOON = 1.05
"""Times the least time: by less, one hour differs from the next."""


@dataclass(frozen=True)
class Model:
    """What is to be packaged. module: ids and mask to logits; tokeniser: its tokenizer.json.

    accuracy: of the module on the validation rows, where it is known already; then rungs are not compared with fp32,
    nor timed.
    """

    name: str
    family: str
    module: nn.Module
    tokeniser: Path
    problem_type: ProblemType
    labels: Sequence[str]
    max_length: int
    params: int
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

    Validation rows choose the rung, the temperature and the threads; training rows give the static rungs their ranges,
    and with too few of them those rungs fail.
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

    with TemporaryDirectory(dir=folder.parent) as scratch:
        graph = Path(scratch) / "model.onnx"
        export_onnx(model.module, graph)
        checked = _extremes(tokens)
        expected = check_parity(
            model.module, graph, tokens.take(checked), validation.row[checked], _BUDGET, settings.parity_tolerance
        )
        trial = Trial(
            predict=lambda path: onnx_logits(path, tokens, _BUDGET),
            predict_some=lambda path: onnx_logits(path, sample, _BUDGET),
            label=validation.label,
            row=validation.row,
            expected=expected,
            checked=checked,
            accuracy=model.accuracy,
        )
        climbed = climb(Quantiser(graph, Path(scratch), calibration), settings, trial)
        texts = tokens.take(_spread(len(tokens), _TIMED_ROWS))
        threads = fewest_threads(climbed.path, texts)
        taken = _timed({name: (path, threads) for name, path in climbed.compared.items()}, texts)
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
            threads=threads,
            lineage=lineage,
            rungs=[replace(step, latency_ms=taken.get(step.rung)).as_json() for step in climbed.steps],
            calibration={f"ece_{when}": value for when, value in error.items()},
            fp32=None if climbed.fp32 is None else replace(climbed.fp32, latency_ms=taken["fp32"]).as_json(),
        )


def fewest_threads(graph: Path, texts: Tokens) -> int:
    """CPU threads that a graph should have, of 1, 2, 4 and so on, and all cores.

    Those that answer one text about as soon as any; of them, those that answer a batch about as soon as any; of them,
    the fewest.
    """
    cores = available_cores()
    counts = sorted({cores, *(1 << power for power in range(cores.bit_length()))})
    for at_once in (1, _AT_ONCE):
        if len(counts) > 1:
            taken = _timed({str(count): (graph, count) for count in counts}, texts, at_once)
            counts = [count for count in counts if taken[str(count)] <= _AS_SOON * min(taken.values())]
    return counts[0]


def _timed(graphs: Mapping[str, tuple[Path, int]], texts: Tokens, at_once: int = 1) -> dict[str, float]:
    """Median milliseconds of so many texts at once through each graph with so many threads; graphs take turns."""
    batches = np.array_split(np.arange(len(texts)), -(-len(texts) // at_once))
    sessions = {name: open_graph(path, threads) for name, (path, threads) in graphs.items()}

    def run(session: Any, inputs: tuple[Ints, Ints]) -> Floats:
        return run_graph(session, *inputs)

    taken = latencies_ms(
        {name: partial(run, session) for name, session in sessions.items()},
        [texts.padded(rows, pad=0) for rows in batches],
        {},
    )
    return {name: float(f"{figures['p50']:.3g}") for name, figures in taken.items()}


def _spread(rows: int, count: int) -> Ints:
    """At most `count` of so many rows, evenly spread and the same each time."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _extremes(tokens: Tokens) -> Ints:
    """The longest and the shortest rows, where padding and positions go wrong first."""
    order = np.argsort(tokens.lengths, kind="stable")
    return np.unique(np.concatenate([order[: _PARITY_ROWS // 2], order[-_PARITY_ROWS // 2 :]]))
