"""Which nodes of a graph int8 hurts most, measured: each is quantised alone, and the logits tell."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillroom.batching import Floats
from stillroom.export.rungs import Quantiser

log = logging.getLogger("stillroom")
_BROKEN = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class NodeChange:
    """change: root mean square by which the logits move when this node alone is quantised."""

    node: str
    change: float


def sensitivity(quantiser: Quantiser, rung: str, predict: Callable[[Path], Floats]) -> list[NodeChange]:
    """Every node that the rung quantises, the most harmful first.

    predict: logits [rows, classes] of a graph on a sample of rows. A node that cannot be quantised, or then gives
    logits that are no numbers, changes them by the greatest float32.
    """
    expected = predict(quantiser.source)
    path = quantiser.folder / "sensitivity.onnx"
    found: list[NodeChange] = []
    for node in quantiser.quantisable:
        try:
            quantiser.make(rung, path, [node])
            change = float(np.sqrt(np.square(predict(path).astype(np.float64) - expected).mean()))
        except Exception as error:  # onnxruntime raises what it likes
            log.info("quantise: node %s cannot be quantised (%s)", node, " ".join(str(error).split())[:200])
            change = np.inf
        found.append(NodeChange(node, change if np.isfinite(change) else _BROKEN))
    return sorted(found, key=lambda entry: -entry.change)
