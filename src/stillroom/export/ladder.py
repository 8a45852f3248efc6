"""Quantisation as a ladder: try the rungs in order, take the first whose drop on validation is allowed."""

import functools
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillroom.batching import Ints
from stillroom.export.onnx import Floats
from stillroom.params import QuantiseParams

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Step:
    """One rung tried. accuracy: on validation; drop: against fp32; ok: within what is allowed."""

    rung: str
    accuracy: float
    drop: float
    size_bytes: int
    ok: bool


def quantise(source: Path, target: Path, rung: str) -> None:
    """Write one rung of a fp32 graph by onnxruntime's own quantiser."""
    if rung == "fp32":
        shutil.copyfile(source, target)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().disabled = True  # the quantiser advises pre-processing through the root logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(
                source, target, weight_type=QuantType.QInt8, per_channel=rung == "dynamic_int8_per_channel"
            )
    finally:
        logging.getLogger().disabled = False


def climb(
    source: Path,
    folder: Path,
    settings: QuantiseParams,
    predict: Callable[[Path], Floats],
    labels: Ints,
    accuracy: float | None = None,
) -> tuple[Path, Floats, list[Step]]:
    """The first rung's graph whose validation accuracy is allowed, its validation logits, and every rung tried.

    predict: logits [rows, classes] of a graph on the validation rows; labels: class ids [rows]. accuracy: what the
    source reaches on them, where it is known: then the source is run for the rung fp32 only.
    """
    reference = functools.cache(lambda: predict(source))
    expected = _accuracy(reference(), labels) if accuracy is None else accuracy
    tried: list[Step] = []
    for rung in settings.rungs:
        path = folder / f"{rung}.onnx"
        quantise(source, path, rung)
        logits = predict(path) if rung != "fp32" else reference()
        reached = _accuracy(logits, labels)
        drop = expected - reached
        step = Step(rung, reached, drop, path.stat().st_size, rung == "fp32" or drop <= settings.allowed_drop)
        tried.append(step)
        log.info("quantise: %s has accuracy %.4f, a drop of %.4f; %d bytes", rung, reached, drop, step.size_bytes)
        if step.ok:
            return path, logits, tried
    raise AssertionError("the ladder ends with fp32, which loses nothing")


def _accuracy(logits: Floats, labels: Ints) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def rungs_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """All rungs tried, for the manifest."""
    return [asdict(step) for step in steps]
