"""Make the evaluation folders and splits that the gate reads, as the stages before it write them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.data.examples import Examples
from stillroom.data.manifest import DataSource, FileSource, SnapshotManifest
from stillroom.data.splits import write_splits
from stillroom.data.splitting import Splits
from stillroom.files import write_json
from stillroom.gate.metrics import agreement, classification_metrics, per_class
from stillroom.problem import problem_of
from tests.toys import write_no_cases

NAMES = ("auto", "bank", "card", "debt")
DIGEST = hashlib.sha256(b"package").hexdigest()

Array = NDArray[Any]


def one_hot(predicted: Array, classes: int, sure: float = 0.9) -> Array:
    """Probabilities [rows, classes], float32, that choose `predicted` with probability `sure`."""
    shares = np.full((len(predicted), classes), (1 - sure) / (classes - 1), dtype=np.float32)
    shares[np.arange(len(predicted)), predicted] = sure
    return shares


def labels_of(rows: int, classes: int = len(NAMES)) -> Array:
    """Class ids that go round."""
    return np.arange(rows) % classes


def with_mistakes(labels: Array, mistakes: int, start: int = 0, classes: int = len(NAMES)) -> Array:
    """The labels, wrong in `mistakes` rows from `start` on."""
    chosen = labels.copy()
    chosen[start : start + mistakes] = (labels[start : start + mistakes] + 1) % classes
    return chosen


def evaluation(
    name: str, labels: Array, student: Array, teacher: Array, names: Sequence[str] = NAMES, **changes: Any
) -> dict[str, Any]:
    """The contents of evaluation.json."""
    figures = {
        "name": name,
        "family": "static",
        "params": 1_000,
        "size_bytes": 5_000,
        "quantisation": "dynamic_int8",
        "package_digest": DIGEST,
        "metrics": classification_metrics(labels, student),
        "per_class": per_class(labels, student, names),
        "baseline_metrics": classification_metrics(labels, student),
        "agreement": agreement(student, teacher, problem_of(labels)),
        "latency_ms": {"p50": 0.1, "p95": 0.2},
        "tokenise_latency_ms": {"p50": 0.05, "p95": 0.06},
        "throughput_rows_per_s": 20_000.0,
        "load_ms": 12.0,
        "peak_memory_bytes": 90_000_000,
        "teacher": {
            "name": "big",
            "params": 100_000,
            "size_bytes": 400_000,
            "metrics": classification_metrics(labels, teacher),
            "throughput_rows_per_s": 100.0,
            "load_ms": 3_000.0,
            "peak_memory_bytes": 700_000_000,
            "onnx_int8": {
                "size_bytes": 100_000,
                "metrics": classification_metrics(labels, teacher),
                "agreement": 0.99,
                "throughput_rows_per_s": 300.0,
                "load_ms": 300.0,
                "peak_memory_bytes": 400_000_000,
            },
            "latency_ms": {"torch_fp32": {"p50": 20.0, "p95": 30.0}, "onnx_int8": {"p50": 5.0, "p95": 7.0}},
        },
        "speedup": {"vs_torch_fp32": 200.0, "vs_onnx_int8": 50.0, "vs_tokenise": 0.5},
        "machine": {"cpu": "Testium 4", "cores": 2, "threads": 2},
    }
    return figures | changes


def write_evaluation(
    folder: Path,
    labels: Array,
    student: Array,
    teacher: Array,
    names: Sequence[str] = NAMES,
    row: Array | None = None,
    baseline: Array | None = None,
    **changes: Any,
) -> None:
    """Write artifacts/evaluations/NAME from probabilities; by default the baseline answers as the student."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"row": np.arange(len(labels)) if row is None else row, "label": labels}
    baseline = student if baseline is None else baseline
    changes = {"baseline_metrics": classification_metrics(labels, baseline)} | changes
    for model, shares in (("student", student), ("baseline", baseline), ("teacher", teacher)):
        flat = pa.array(np.ascontiguousarray(shares).ravel())
        columns[model] = pa.FixedSizeListArray.from_arrays(flat, shares.shape[1])
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    write_json(folder / "evaluation.json", evaluation(folder.name, labels, student, teacher, names, **changes))


def write_split(folder: Path, labels: Array, names: Sequence[str] = NAMES) -> SnapshotManifest:
    """Write artifacts/split with these test labels, a row of each class in the other splits, and no cases."""
    test = Examples(list(range(len(labels))), [f"text {n}" for n in range(len(labels))], [names[c] for c in labels])
    ids = [len(labels) + n for n in range(2 * len(names))]
    halves = [
        Examples(part, [f"text {n}" for n in part], list(names)) for part in (ids[: len(names)], ids[len(names) :])
    ]
    splits = Splits({"train": halves[0], "validation": halves[1], "test": test}, {"exact_duplicates": 0}, [])
    source = DataSource(train=FileSource(uri="rows.csv", sha256="a" * 64, file="train.csv"), licence="CC0-1.0")
    write_no_cases(folder.parent.parent)
    return write_splits(splits, source, [], folder)
