"""The teacher's forward pass over many texts: little padding, no gradients, results as they come."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.batching import Floats, Ints, Tokens, token_batches
from stillroom.errors import InputError
from stillroom.teacher.model import layers_of

_CPU_IS_FULL = "DefaultCPUAllocator: "
"""How torch's allocator for the CPU begins; the error itself is a bare RuntimeError."""

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Answer:
    """What the teacher says of some texts.

    rows: [n]; logits: [n, classes]; pooled: the pooled hidden state, [n, width]; hidden: by layer, its own output
    [tokens of all these texts, width], before any norm that closes the encoder, texts one after another in the order
    of rows, without padding.
    """

    rows: Ints
    logits: Floats
    pooled: Floats
    hidden: Mapping[int, Floats]


def answers(
    model: nn.Module, tokens: Tokens, pad: int, batches: Iterable[Ints], layers: Sequence[int] = ()
) -> Iterator[Answer]:
    """Answer batches of rows in order, with the outputs of some encoder layers, which count from 1.

    Computes on the device and in the precision that the model has. A batch that memory can't hold is cut in
    halves, and no later batch is larger than those. Raises InputError for a layer that the teacher lacks, and for
    one text that does not fit.
    """
    where = next(model.parameters()).device
    lengths = tokens.lengths
    chosen = layers_named(model.encoder, layers) if layers else {}
    limit = math.inf
    for batch in batches:
        waiting = [batch]
        while waiting:
            rows = waiting.pop()
            halves = np.array_split(rows, 2)
            if len(rows) == 1 or _cells(lengths, rows) <= limit:
                answer = _tried(model, chosen, tokens, rows, pad, where)
                if answer is not None:
                    yield answer
                    continue
                limit = max(_cells(lengths, half) for half in halves)
                log.warning("out of memory on %s: batches of at most %d tokens from now on", where, limit)
                if where.type == "cuda":
                    torch.cuda.empty_cache()
            waiting += reversed(halves)


def forward_batches(model: nn.Module, tokens: Tokens, pad: int, budget: int) -> Iterator[tuple[Ints, Floats, Floats]]:
    """Yield (rows, logits [rows, classes], pooled hidden state [rows, width]) for every text once, by length."""
    for answer in answers(model, tokens, pad, token_batches(tokens.lengths, budget)):
        yield answer.rows, answer.logits, answer.pooled


def predict(model: nn.Module, tokens: Tokens, pad: int, budget: int) -> Floats:
    """Logits of every text in order, float32 [texts, classes]."""
    result: Floats | None = None
    for rows, logits, _ in forward_batches(model, tokens, pad, budget):
        if result is None:
            result = np.zeros((len(tokens), logits.shape[1]), dtype=np.float32)
        result[rows] = logits
    return result if result is not None else np.zeros((0, 0), dtype=np.float32)


def layers_named(encoder: Any, numbers: Sequence[int]) -> dict[int, nn.Module]:
    """An encoder's layers with these numbers, from 1. Raises InputError for one that it lacks."""
    _, _, found = layers_of(encoder)
    for number in numbers:
        if not 1 <= number <= len(found):
            raise InputError(
                f"params.yaml: capture.signals names layer {number}; the teacher has {len(found)} layers, "
                f"so name 1 to {len(found)}"
            )
    return {number: found[number - 1] for number in numbers}


def _cells(lengths: Ints, rows: Ints) -> int:
    return len(rows) * max(int(lengths[rows].max(initial=0)), 1)


def _tried(
    model: nn.Module, layers: Mapping[int, nn.Module], tokens: Tokens, rows: Ints, pad: int, where: torch.device
) -> Answer | None:
    """The answer, or None for several texts that memory can't hold; on return nothing of the attempt is held."""
    try:
        return _answer(model, layers, tokens, rows, pad, where)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _CPU_IS_FULL not in str(error):
            raise
        if len(rows) == 1:
            raise InputError(
                f"a text of {len(tokens.one(rows[0]))} tokens does not fit the memory of {where}; "
                "lower teacher.max_length, or set compute.precision to bf16"
            ) from error
        return None


def _answer(
    model: nn.Module, layers: Mapping[int, nn.Module], tokens: Tokens, rows: Ints, pad: int, where: torch.device
) -> Answer:
    ids, mask = tokens.padded(rows, pad)
    hidden: dict[int, torch.Tensor] = {}
    with torch.inference_mode(), ExitStack() as hooks:
        if layers:
            real = torch.from_numpy(np.flatnonzero(mask)).to(where)
        for number, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(_keep, hidden, number, real)))
        logits, pooled = model(torch.from_numpy(ids).to(where), torch.from_numpy(mask).to(where))
        return Answer(rows, _array(logits), _array(pooled), {number: _array(hidden.pop(number)) for number in layers})


def _keep(
    hidden: dict[int, torch.Tensor], number: int, real: torch.Tensor, layer: nn.Module, inputs: Any, output: Any
) -> None:
    """A forward hook that keeps a layer's states without padding, so that the padded ones can go at once."""
    states = output[0] if isinstance(output, tuple) else output
    hidden[number] = states.flatten(0, 1).index_select(0, real)


def _array(tensor: torch.Tensor) -> Floats:
    result: Floats = tensor.cpu().float().numpy()
    return result
