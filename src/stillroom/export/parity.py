"""Whether an exported graph computes what PyTorch computes and, where it does not, from which node on."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.batching import Floats, Ints, Tokens
from stillroom.errors import InputError
from stillroom.export.onnx import onnx_logits, torch_logits, traced


def check_parity(module: nn.Module, graph: Path, tokens: Tokens, ids: Ints, budget: int, tolerance: float) -> Floats:
    """PyTorch's logits [texts, classes], from which the graph's differ by no more than the tolerance.

    ids: by which the error names rows. Raises InputError with row, class and the first node that differs.
    """
    expected, found = torch_logits(module, tokens, budget), onnx_logits(graph, tokens, budget)
    difference = np.abs(expected - found)
    worst = float(difference.max())
    if not worst <= tolerance:
        row, column = np.unravel_index(int(difference.argmax()), difference.shape)
        longest, shortest = int(tokens.lengths.argmax()), int(tokens.lengths.argmin())
        beside = shortest if row == longest else longest  # padding may be what goes wrong
        raise InputError(
            f"{graph}: the exported graph differs from PyTorch by {worst:.2g} at row {ids[row]}, class {column} of its "
            f"output logits; at most {tolerance:.2g} is allowed (quantise.parity_tolerance); "
            f"{_where(module, *tokens.padded(np.array([row, beside]), pad=0), tolerance)}"
        )
    return expected


def _where(module: nn.Module, ids: Ints, mask: Ints, tolerance: float) -> str:
    """The first node of the graph whose value is not what PyTorch's trace of the model has under the same name."""
    program = traced(module)
    recorder = _Recorder(program.exported_program.module())
    with torch.inference_mode():
        output = recorder.run(torch.from_numpy(ids), torch.from_numpy(mask))
    recorder.values["logits"] = output.float().numpy()  # the one name that the graph has of its own
    for node, value, name in _values(program.model_proto, recorder.values.keys(), ids, mask):
        expected = recorder.values[name]
        difference = float(np.abs(expected - value).max(initial=0)) if expected.shape == value.shape else np.inf
        if not difference <= tolerance * max(1.0, float(np.abs(expected).max(initial=0))):
            return f"the first node that differs is {node}, by {difference:.2g}"
    return "no node differs from PyTorch's own trace of the model"


class _Recorder(torch.fx.Interpreter):
    """Runs a traced model and keeps the value of every node."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.values: dict[str, Floats] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, torch.Tensor):
            self.values[n.name] = value.float().numpy()
        return value


def _values(graph: Any, names: Collection[str], ids: Ints, mask: Ints) -> Iterator[tuple[str, Floats, str]]:
    """Node with operator, value and the value's name, in the graph's order, for values of these names."""
    import onnx
    import onnxruntime

    made = {name: f"{node.name} ({node.op_type})" for node in graph.graph.node for name in node.output if name in names}
    given = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in given)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(made), {"input_ids": ids, "attention_mask": mask})
    for (name, node), value in zip(made.items(), values, strict=True):
        yield node, value.astype(np.float32), name
