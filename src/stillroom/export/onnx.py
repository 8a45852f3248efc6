"""Export a classifier to ONNX and check that the graph computes what PyTorch computes."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stillroom.batching import Ints, Tokens, token_batches
from stillroom.cores import available_cores
from stillroom.errors import InputError

OPSET = 18
_EXAMPLE = (2, 7)
_ANY_SIZE = 1 << 40

Floats = npt.NDArray[np.float32]


def export_onnx(model: nn.Module, path: Path) -> None:
    """Write a graph with inputs input_ids and attention_mask (int64 [texts, tokens], both free) and output logits."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    ids = torch.ones(_EXAMPLE, dtype=torch.int64)
    mask = torch.ones(_EXAMPLE, dtype=torch.int64)
    free = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # PyTorch 2.13 exports an LSTM as a loop by changing the op's kernels, and overlooks those that the op has cached:
    # after a first export, or a training, it would unroll the loop to the tokens of the example
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals; the parity check decides
        program: Any = torch.onnx.export(
            model,
            (ids, mask),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=(free, free),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        # an LSTM's weights come in another order than PyTorch's: put them so here, or no quantiser finds them
        fold_constants(program.model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
        RemoveUnusedNodesPass()(program.model)
        # stack traces with the paths of this machine, which would also make equal models unequal elsewhere
        ClearMetadataAndDocStringPass()(program.model)
        program.save(path, external_data=False)


def torch_logits(model: nn.Module, tokens: Tokens, budget: int) -> Floats:
    """The model's logits in PyTorch, fp32, in row order."""
    parts: list[tuple[Any, Floats]] = []
    with torch.inference_mode():
        for rows in token_batches(tokens.lengths, budget):
            ids, mask = tokens.padded(rows, pad=0)
            parts.append((rows, model(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()))
    result = np.zeros((len(tokens), parts[0][1].shape[1]), dtype=np.float32)
    for rows, logits in parts:
        result[rows] = logits
    return result


def open_graph(path: Path, threads: int = 0) -> Any:
    """A session of onnxruntime; threads: 0 for every core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()  # as the runtime does
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_logits(path: Path, tokens: Tokens, budget: int, threads: int = 0) -> Floats:
    """A graph's logits by onnxruntime, in row order."""
    session = open_graph(path, threads)
    result: Floats | None = None
    for rows in token_batches(tokens.lengths, budget):
        ids, mask = tokens.padded(rows, pad=0)
        logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        if result is None:
            result = np.zeros((len(tokens), logits.shape[1]), dtype=np.float32)
        result[rows] = logits
    assert result is not None
    return result


def check_parity(expected: Floats, found: Floats, tolerance: float, where: Path, ids: Ints | None = None) -> float:
    """Largest difference of a logit between PyTorch and the graph on real rows; beyond the tolerance an InputError.

    ids: by which the error names rows; default, their places.
    """
    difference = np.abs(expected - found)
    worst = float(difference.max())
    if not worst <= tolerance:
        place, column = np.unravel_index(int(difference.argmax()), difference.shape)
        row = place if ids is None else ids[place]
        raise InputError(
            f"{where}: the exported graph differs from PyTorch by {worst:.2g} at row {row}, class {column} "
            f"of its output logits; at most {tolerance:.2g} is allowed (quantise.parity_tolerance)"
        )
    return worst
