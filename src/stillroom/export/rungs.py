"""How each rung is made of an exported fp32 graph: by onnxruntime's quantiser, and tables row by row."""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.batching import Tokens, token_batches

_BUDGET = 2048
_PRODUCTS = ("MatMul", "Gemm")
_METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "static_minmax": ("MinMax", {}),
    # with onnxruntime's own 128 bins there is nothing to choose between
    "static_entropy": ("Entropy", {"num_bins": 512}),
    "static_percentile": ("Percentile", {"percentile": 99.99, "symmetric": False}),
}
"""A static rung's calibration method and its settings."""


class Quantiser:
    """Makes rungs of one graph. calibration: gives the rows for the static rungs, and is asked by them only.

    Weights of products are int8, per tensor for dynamic_int8 and per channel for the others; so are embedding tables,
    which onnxruntime's quantiser can only scale as a whole: here a table has a scale for each row but in dynamic_int8.
    """

    def __init__(self, source: Path, folder: Path, calibration: Callable[[], Tokens]) -> None:
        self.source = source
        self.folder = folder
        self._calibration = calibration

    def make(self, rung: str, target: Path, nodes: Sequence[str] | None = None) -> None:
        """Write a rung; nodes: names of those that are quantised, by default every one of `quantisable`.

        Whatever onnxruntime raises on a graph that it cannot quantise comes through.
        """
        if rung == "fp32":
            shutil.copyfile(self.source, target)
            return
        chosen = self.quantisable if nodes is None else nodes
        tables = [] if rung == "dynamic_int8" else [name for name in chosen if self._kinds[name] == "Gather"]
        products = [name for name in chosen if name not in tables]
        with _quiet():
            if not products:
                shutil.copyfile(self.source, target)
            elif rung in _METHODS:
                self._static(target, rung, products)
            else:
                self._dynamic(target, products, per_channel=rung == "dynamic_int8_per_channel")
        _finish(target, tables)

    @property
    def quantisable(self) -> list[str]:
        """Names of the nodes that a rung quantises: products with, and look-ups in, a float32 weight.

        An LSTM is quantised by the dynamic rungs alone; onnxruntime's static quantiser has none.
        """
        return list(self._kinds)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """Name and operator of every node that can be quantised."""
        import onnx

        graph = onnx.load(str(self.source)).graph
        weights = {weight.name for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT}
        place = {"Gather": 0, "LSTM": 1} | dict.fromkeys(_PRODUCTS, 1)
        return {
            node.name: node.op_type
            for node in graph.node
            if node.op_type in place and node.input[place[node.op_type]] in weights
        }

    def _dynamic(self, target: Path, nodes: Sequence[str], per_channel: bool) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # the quantiser first turns a Gemm into a MatMul of this name
        names = [*nodes, *(f"{name}_MatMul" for name in nodes)]
        quantize_dynamic(
            self.source, target, weight_type=QuantType.QInt8, per_channel=per_channel, nodes_to_quantize=names
        )

    def _static(self, target: Path, rung: str, nodes: Sequence[str]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        quantize_static(
            self.source,
            target,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(nodes),
            calibrate_method=CalibrationMethod[_METHODS[rung][0]],
            calibration_cache_path=self._ranges(rung),
            # a product's sums stay float32: the last ones are the logits
            extra_options={"OpTypesToExcludeOutputQuantization": list(_PRODUCTS)},
        )

    def _ranges(self, rung: str) -> Path:
        """The file with the range of every activation, computed once for a rung.

        Batch by batch: the quantiser's own loop keeps every activation in memory, and all batches must be of one shape.
        """
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

        path = self.folder / f"{rung}.ranges.json"
        if not path.exists():
            method, settings = _METHODS[rung]
            tokens = self._calibration()
            calibrator = create_calibrator(
                self.source,
                list(_PRODUCTS),
                augmented_model_path=str(self.folder / f"{rung}.calibration.onnx"),
                calibrate_method=CalibrationMethod[method],
                extra_options=dict(settings),
            )
            # long texts first: the bins of a histogram are as wide as the first batch makes them
            for rows in reversed(token_batches(tokens.lengths, _BUDGET)):
                ids, mask = tokens.padded(rows, pad=0)
                calibrator.collect_data(_Once({"input_ids": ids, "attention_mask": mask}))
            save_tensors_data(calibrator.compute_data(), path)
        return path


class _Once:
    """A batch, as a calibrator asks for it."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batches = iter([batch])

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._batches, None)


def _finish(path: Path, names: Sequence[str]) -> None:
    """Give the tables of these look-ups a scale for each row, and drop the shapes that only the quantiser needed.

    Gather of a float32 table becomes Gather of an int8 table, Cast, Gather of its scales, Mul.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    nodes: list[Any] = []
    made: set[str] = set()
    for node in graph.node:
        if node.name not in names or len(weights[node.input[0]].dims) < 2 or any(a.i for a in node.attribute):
            nodes.append(node)
            continue
        table, ids, output = node.input[0], node.input[1], node.output[0]
        if table not in made:
            values = numpy_helper.to_array(weights[table])
            largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
            scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
            graph.initializer.extend(
                [
                    numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{table}_quantized"),
                    numpy_helper.from_array(scale, f"{table}_scale"),
                ]
            )
            made.add(table)
        nodes += [
            helper.make_node("Gather", [f"{table}_quantized", ids], [f"{output}_quantized"], f"{node.name}_quant"),
            helper.make_node("Cast", [f"{output}_quantized"], [f"{output}_cast"], f"{node.name}_cast", to=1),
            helper.make_node("Gather", [f"{table}_scale", ids], [f"{output}_scale"], f"{node.name}_scale"),
            helper.make_node("Mul", [f"{output}_cast", f"{output}_scale"], [output], f"{node.name}_mul"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser gives advice through the root logger and tells its progress on standard output."""
    logging.getLogger().disabled = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().disabled = False
