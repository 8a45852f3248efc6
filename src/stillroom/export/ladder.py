"""Quantisation as a ladder: try the rungs in order, take the first whose drop on validation is allowed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.batching import Floats, Ints
from stillroom.errors import InputError, StillroomError
from stillroom.export.rungs import Quantiser
from stillroom.export.sensitivity import NodeChange, sensitivity
from stillroom.problem import accuracy, chosen_by, problem_of
from stillroom.quantise_params import QuantiseParams

log = logging.getLogger("stillroom")
_LEFT_OUT = (1, 2, 4, 8)
"""How many of the worst nodes mixed_int8 leaves in fp32, until its drop is allowed."""


@dataclass(frozen=True)
class Step:
    """One rung tried; what was not measured is None.

    ok: within what is allowed; accuracy: on validation, and drop: against fp32; agreement: share of validation rows
    with the class that fp32 gives; difference: the largest of a logit from PyTorch's, and the id of its row;
    latency_ms: median of one text through the graph, timed after the climb; left_out: nodes left in fp32; reason: why
    it failed.
    """

    rung: str
    ok: bool = False
    accuracy: float | None = None
    drop: float | None = None
    agreement: float | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    difference: float | None = None
    difference_row: int | None = None
    left_out: tuple[NodeChange, ...] = ()
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is known of it, as plain values for the manifest."""
        told = asdict(self) | {"left_out": [asdict(entry) for entry in self.left_out]}
        return {name: value for name, value in told.items() if value not in (None, [])}


@dataclass(frozen=True)
class Trial:
    """The validation rows that graphs are tried on, and how.

    predict: a graph's logits [rows, classes]; predict_some: on a sample of the rows; label and row: label and id of
    each row; expected: PyTorch's logits of the rows at `checked`. accuracy: what fp32 reaches, where it is known: then
    it is run for the rung fp32 only.
    """

    predict: Callable[[Path], Floats]
    predict_some: Callable[[Path], Floats]
    label: Ints
    row: Ints
    expected: Floats
    checked: Ints
    accuracy: float | None = None


@dataclass(frozen=True)
class Climbed:
    """The graph that ships and its validation logits; every rung tried, that graph's last; fp32 for comparison.

    compared: graphs of fp32 and every rung that could be run, by name.
    """

    path: Path
    logits: Floats
    steps: list[Step]
    fp32: Step | None
    compared: Mapping[str, Path]


def climb(quantiser: Quantiser, settings: QuantiseParams, trial: Trial) -> Climbed:
    """Try the rungs until one is allowed. A rung that onnxruntime refuses has failed, and the climb goes on."""
    return _Climb(quantiser, settings, trial).run()


class _Climb:
    def __init__(self, quantiser: Quantiser, settings: QuantiseParams, trial: Trial) -> None:
        self.quantiser = quantiser
        self.settings = settings
        self.trial = trial
        self.logits: dict[str, Floats] = {}

    @cached_property
    def fp32(self) -> Floats:
        logits = self.trial.predict(self.quantiser.source)
        if (place := _no_number(logits)) is not None:
            row, column = place
            raise InputError(
                f"quantise: the graph in fp32 gives class {column} of validation row {self.trial.row[row]} the logit "
                f"{logits[row, column]}, which is no number; train the model again, with a smaller learning rate"
            )
        return logits

    @cached_property
    def expected_accuracy(self) -> float:
        known = self.trial.accuracy
        return _accuracy(self.fp32, self.trial.label) if known is None else known

    def run(self) -> Climbed:
        steps: list[Step] = []
        for rung in self.settings.rungs:
            step = self._mixed() if rung == "mixed_int8" else self._try(rung, rung, None)
            steps.append(step)
            _tell(step)
            if step.ok:
                break
        chosen, alone = steps[-1].rung, self.trial.accuracy is not None
        if alone:
            return Climbed(self._path(chosen), self.logits[chosen], steps, None, {})
        fp32 = self._step("fp32", self.fp32, self.quantiser.source)
        ran = {step.rung: self._path(step.rung) for step in steps if step.rung in self.logits}
        compared = ran | {"fp32": self.quantiser.source}
        return Climbed(self._path(chosen), self.logits[chosen], steps, fp32, compared)

    def _path(self, rung: str) -> Path:
        return self.quantiser.folder / f"{rung}.onnx"

    def _try(self, rung: str, kind: str, nodes: list[str] | None) -> Step:
        """Make a rung's graph of the given kind and judge it."""
        path = self._path(rung)
        self.logits.pop(rung, None)  # of an earlier attempt, whose graph may be half overwritten when this one fails
        try:
            self.quantiser.make(kind, path, nodes)
            logits = self.fp32 if rung == "fp32" else self.trial.predict(path)
        except Exception as error:  # onnxruntime's quantiser asserts and raises what it likes
            if rung == "fp32":
                raise
            told = " ".join(str(error).split())[:300]
            return Step(rung, reason=told if isinstance(error, StillroomError) else f"{type(error).__name__}: {told}")
        self.logits[rung] = logits
        return self._step(rung, logits, path)

    def _step(self, rung: str, logits: Floats, path: Path) -> Step:
        trial, size_bytes = self.trial, path.stat().st_size
        if (place := _no_number(logits)) is not None:
            row = int(trial.row[place[0]])
            return Step(rung, size_bytes=size_bytes, reason=f"gives a logit that is no number at row {row}")
        reached = _accuracy(logits, trial.label)
        drop = round(self.expected_accuracy - reached, 9)  # a difference of two shares of rows, free of float's dust
        differences = np.abs(logits[trial.checked] - trial.expected).max(axis=1)
        worst = int(differences.argmax())
        alone = trial.accuracy is not None
        agreement = None if alone else _accuracy(logits, chosen_by(self.fp32, problem_of(trial.label)))
        return Step(
            rung=rung,
            ok=rung == "fp32" or drop <= self.settings.allowed_drop,
            accuracy=reached,
            drop=drop,
            agreement=agreement,
            size_bytes=size_bytes,
            difference=float(differences[worst]),
            difference_row=int(trial.row[trial.checked[worst]]),
        )

    def _mixed(self) -> Step:
        """The first int8 rung again, without the 1, 2, 4 or 8 nodes that it hurts most."""
        base = self.settings.rungs[0]
        ranked = sensitivity(self.quantiser, base, self.trial.predict_some)
        step = Step("mixed_int8", reason=f"{base} quantises {len(ranked)} nodes; leaving out the worst needs 2")
        for count in _LEFT_OUT:
            if count >= len(ranked):
                break
            step = self._try("mixed_int8", base, [entry.node for entry in ranked[count:]])
            step = replace(step, left_out=tuple(ranked[:count]))
            if step.ok:
                break
        return step


def _no_number(logits: Floats) -> tuple[int, int] | None:
    """Row and class of the first logit that is not finite."""
    places = np.argwhere(~np.isfinite(logits))
    return (int(places[0, 0]), int(places[0, 1])) if len(places) else None


def _accuracy(logits: Floats, labels: Ints) -> float:
    return accuracy(chosen_by(logits, problem_of(labels)), labels)


def _tell(step: Step) -> None:
    if step.reason is not None or step.accuracy is None or step.drop is None:
        log.info("quantise: %s fails: %s", step.rung, step.reason)
        return
    left_out = f"; in fp32: {', '.join(entry.node for entry in step.left_out)}" if step.left_out else ""
    log.info(
        "quantise: %s has accuracy %.4f, a drop of %.4f; %d bytes; a logit of row %s differs by %.2g from PyTorch%s",
        *(step.rung, step.accuracy, step.drop, step.size_bytes, step.difference_row, step.difference, left_out),
    )
