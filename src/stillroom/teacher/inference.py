"""The teacher's forward pass over many texts: little padding, no gradients, results as they come."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stillroom.batching import Ints, Tokens, token_batches

Floats = npt.NDArray[np.float32]


def forward_batches(
    model: torch.nn.Module, tokens: Tokens, pad: int, budget: int
) -> Iterator[tuple[Ints, Floats, Floats]]:
    """Yield (rows, logits [rows, classes], pooled hidden state [rows, width]) for every text once, by length.

    Computes on the device and in the precision that the model has.
    """
    where = next(model.parameters()).device
    with torch.inference_mode():
        for rows in token_batches(tokens.lengths, budget):
            ids, mask = tokens.padded(rows, pad)
            logits, pooled = model(torch.from_numpy(ids).to(where), torch.from_numpy(mask).to(where))
            yield rows, _array(logits), _array(pooled)


def predict(model: torch.nn.Module, tokens: Tokens, pad: int, budget: int) -> Floats:
    """Logits of every text in order, float32 [texts, classes]."""
    result: Floats | None = None
    for rows, logits, _ in forward_batches(model, tokens, pad, budget):
        if result is None:
            result = np.zeros((len(tokens), logits.shape[1]), dtype=np.float32)
        result[rows] = logits
    return result if result is not None else np.zeros((0, 0), dtype=np.float32)


def _array(tensor: Any) -> Floats:
    result: Floats = tensor.float().cpu().numpy()
    return result
