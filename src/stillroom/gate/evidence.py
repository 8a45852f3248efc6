"""What the gate judges by: one student's evaluation folder, checked against the test rows and against
itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.errors import InputError
from stillroom.files import read_json
from stillroom.gate.metrics import Floats, Ints, checked, classification_metrics
from stillroom.problem import equal

PREDICTIONS = "predictions.parquet"
EVALUATION = "evaluation.json"
_MODELS = ("student", "baseline", "teacher")
_TOLERANCE = 1e-6


class _Part(BaseModel):
    """A part of evaluation.json: immutable; keys that the gate does not read are left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Quality(_Part):
    """Metrics on the test rows."""

    accuracy: float
    macro_f1: float
    ece: float


class ClassQuality(_Part):
    """Metrics of one class; support is its number of test rows."""

    precision: float
    recall: float
    f1: float
    support: int


class Latency(_Part):
    """Milliseconds for one text end to end."""

    p50: float
    p95: float


class TeacherLatency(_Part):
    """The teacher's latency in PyTorch and as an int8 package."""

    torch_fp32: Latency
    onnx_int8: Latency


class Int8Figures(_Part):
    """The teacher as an int8 package; agreement is with the teacher in PyTorch fp32."""

    size_bytes: int
    metrics: Quality
    agreement: float
    throughput_rows_per_s: float
    load_ms: float
    peak_memory_bytes: int


class TeacherFigures(_Part):
    """The teacher; its latency was measured in the same process and run as the student's."""

    name: str
    params: int
    size_bytes: int
    metrics: Quality
    throughput_rows_per_s: float
    load_ms: float
    peak_memory_bytes: int
    onnx_int8: Int8Figures
    latency_ms: TeacherLatency


class SpeedUp(_Part):
    """Teacher's p50 ÷ student's p50, and that of tokenising alone, by the tokenizers library, ÷ student's p50."""

    vs_torch_fp32: float
    vs_onnx_int8: float
    vs_tokenise: float


class Evaluation(_Part):
    """evaluation.json of the evaluate stage."""

    name: str
    family: str
    params: int
    size_bytes: int
    quantisation: str
    package_digest: str
    metrics: Quality
    per_class: dict[str, ClassQuality]
    baseline_metrics: Quality
    agreement: float
    latency_ms: Latency
    tokenise_latency_ms: Latency
    throughput_rows_per_s: float
    load_ms: float
    peak_memory_bytes: int
    teacher: TeacherFigures
    speedup: SpeedUp
    machine: dict[str, Any]
    cases_sha256: str | None = None


@dataclass(frozen=True)
class Evidence:
    """One student's figures and the probabilities [rows, classes] behind them; labels as in stillroom.problem."""

    evaluation: Evaluation
    labels: Ints
    student: Floats
    baseline: Floats
    teacher: Floats


def read_evidence(folder: Path, row: Ints, label: Ints, classes: int) -> Evidence:
    """Read an evaluation folder for a test split with these row ids and labels, in this order.

    Raises InputError where a file is missing or damaged, where predictions are of other rows, of another
    order or with other labels, where a probability is not finite, and where evaluation.json tells other
    metrics than its predictions give.
    """
    evaluation = read_evaluation(folder)
    path = folder / PREDICTIONS
    if not len(row):
        raise InputError(f"{path}: the test split has no rows, so nothing can be judged; give data.test more rows")
    columns = read_predictions(path, _MODELS)
    _same(path, "row ids", columns["row"], row)
    _same(path, "labels", columns["label"], label)
    shares = {}
    for name in _MODELS:
        _, shares[name] = checked(label, columns[name], f"{path} ({name})")
        if shares[name].shape[1] != classes:
            raise InputError(
                f"{path}: {name} has {shares[name].shape[1]} classes, the split {classes}; run evaluate again"
            )
    stated = {
        "student": evaluation.metrics,
        "baseline": evaluation.baseline_metrics,
        "teacher": evaluation.teacher.metrics,
    }
    for name, quality in stated.items():
        found = classification_metrics(label, shares[name])
        for metric in ("accuracy", "macro_f1"):
            told = getattr(quality, metric)
            if abs(told - found[metric]) > _TOLERANCE:
                raise InputError(
                    f"{folder / EVALUATION}: the {name}'s {metric} is {told:.6f}, its predictions give "
                    f"{found[metric]:.6f}; run evaluate again"
                )
    return Evidence(evaluation, label, shares["student"], shares["baseline"], shares["teacher"])


def read_evaluation(folder: Path) -> Evaluation:
    """Read evaluation.json; raises InputError naming the field that is missing or wrong."""
    path = folder / EVALUATION
    try:
        evaluation = Evaluation.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].lower()}; run the evaluate stage again") from error
    if evaluation.name != folder.name:
        raise InputError(f"{path}: is about {evaluation.name!r}, not {folder.name!r}; run the evaluate stage again")
    return evaluation


def read_predictions(path: Path, models: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns as arrays: [rows] for row, [rows, classes] for the models; the labels are either. Raises InputError for
    what is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["row", "label", *models])
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are of these kinds
        told = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as predictions ({told}); run the evaluate stage again") from error
    arrays: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if column.null_count:
            raise InputError(f"{path}: {column.null_count} values of {name} are missing; run evaluate again")
        if not pa.types.is_nested(column.type):
            arrays[name] = column.to_numpy()
            continue
        values = column.flatten().to_numpy(zero_copy_only=False)
        lengths = np.diff(column.offsets.to_numpy()) if pa.types.is_list(column.type) else column.type.list_size
        if np.unique(lengths).size > 1:
            raise InputError(f"{path}: rows of {name} differ in their number of classes; run evaluate again")
        arrays[name] = values.reshape(len(column), -1)
    return arrays


def _same(path: Path, what: str, found: NDArray[Any], expected: Ints) -> None:
    if len(found) != len(expected):
        raise InputError(f"{path}: holds {len(found)} rows, the test split {len(expected)}; run evaluate again")
    if found.shape != expected.shape:
        raise InputError(f"{path}: {what} have shape {found.shape}, not {expected.shape}; run evaluate again")
    differs = ~equal(found, expected)
    if differs.any():
        place = int(np.argmax(differs))
        raise InputError(
            f"{path}: {what} differ from the test split's from row {place} on ({found[place]} is not "
            f"{expected[place]}); run evaluate again"
        )
