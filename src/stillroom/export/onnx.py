"""Export a classifier to ONNX, and run it there and in PyTorch."""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom.batching import Floats, Ints, Tokens, in_batches
from stillroom.export.runtime import open_graph

OPSET = 18
_EXAMPLE = (2, 7)
_ANY_SIZE = 1 << 40


def export_onnx(model: nn.Module, path: Path) -> None:
    """Write a graph with inputs input_ids and attention_mask (int64 [texts, tokens], both free) and output logits."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = traced(model)
    # stack traces with the paths of this machine, which would also make equal models unequal elsewhere
    ClearMetadataAndDocStringPass()(program.model)
    program.save(path, external_data=False)


def traced(model: nn.Module) -> Any:
    """The graph as torch.onnx gives it, and PyTorch's trace that it comes from (torch.onnx.ONNXProgram)."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass
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
    return program


def torch_logits(model: nn.Module, tokens: Tokens, budget: int) -> Floats:
    """The model's logits in PyTorch, fp32, in row order."""

    def answer(ids: Ints, mask: Ints) -> Floats:
        logits: Floats = model(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
        return logits

    with torch.inference_mode():
        return in_batches(tokens, budget, answer)


def onnx_logits(path: Path, tokens: Tokens, budget: int, threads: int = 0) -> Floats:
    """A graph's logits by onnxruntime, in row order."""
    return in_batches(tokens, budget, partial(run_graph, open_graph(path, threads)))


def run_graph(session: Any, ids: Ints, mask: Ints) -> Floats:
    """Logits [texts, classes] of padded ids and mask [texts, tokens]."""
    logits: Floats = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return logits
