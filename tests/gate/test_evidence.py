"""Evidence that is damaged, of other rows, or at odds with itself is refused by the name of its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillroom.errors import InputError
from stillroom.gate.evidence import Evidence, read_evaluation, read_evidence
from tests.gate.evaluations import NAMES, labels_of, one_hot, with_mistakes, write_evaluation

LABELS = labels_of(40)
ROWS = np.arange(40) + 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound evaluation of a student called tiny."""
    student, teacher = (one_hot(with_mistakes(LABELS, n), len(NAMES)) for n in (4, 2))
    write_evaluation(tmp_path / "tiny", LABELS, student, teacher, row=ROWS)
    return tmp_path / "tiny"


def read(folder: Path, rows: Any = ROWS, labels: Any = LABELS, classes: int = len(NAMES)) -> Evidence:
    return read_evidence(folder, rows, labels, classes)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the columns of predictions.parquet."""
    path = folder / "predictions.parquet"
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def test_sound_evidence_is_read(folder: Path) -> None:
    evidence = read(folder)
    assert evidence.evaluation.name == "tiny"
    assert (evidence.student.argmax(axis=1) == with_mistakes(LABELS, 4)).all()
    assert (evidence.teacher.argmax(axis=1) == with_mistakes(LABELS, 2)).all()


def test_variable_lists_are_read_alike(folder: Path) -> None:
    before = read(folder)
    rewrite(folder, lambda columns: None)
    assert not pa.types.is_fixed_size_list(pq.read_schema(folder / "predictions.parquet").field("student").type)
    assert (read(folder).student == before.student).all()


def swap(columns: dict[str, Any]) -> None:
    for values in columns.values():
        values[0], values[1] = values[1], values[0]


def not_finite(model: str, value: float = float("nan")) -> Callable[[dict[str, Any]], None]:
    return lambda columns: columns[model].__setitem__(3, [value] * len(NAMES))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap, r"row ids differ from the test split's from row 0 on \(8 is not 7\)"),
        (lambda columns: columns["label"].__setitem__(5, 3), "labels differ .* from row 5"),
        (lambda columns: [values.pop() for values in columns.values()], "holds 39 rows, the test split 40"),
        (not_finite("student"), r"\(student\): probabilities are not finite in 1 of 40"),
        (not_finite("teacher"), r"\(teacher\): probabilities are not finite"),
        (not_finite("baseline"), r"\(baseline\): probabilities are not finite"),
        (not_finite("student", float("inf")), r"\(student\): probabilities are not finite"),
        (lambda columns: columns["student"].__setitem__(0, None), "1 values of student are missing"),
        (lambda columns: columns["student"].__setitem__(0, [0.5, 0.5]), "differ in their number of classes"),
        (lambda columns: columns.pop("teacher"), "not readable as predictions"),
        (
            lambda columns: columns.update(student=[[0.0, *v] for v in columns["student"]]),
            "student has 5 classes, the split 4",
        ),
        (
            lambda columns: columns["student"].__setitem__(39, columns["student"][38]),
            "the student's accuracy is 0.900000, its predictions give 0.875000",
        ),
    ],
)
def test_predictions_refused(folder: Path, change: Callable[[dict[str, Any]], None], told: str) -> None:
    rewrite(folder, change)
    with pytest.raises(InputError, match=told) as refused:
        read(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_test_set_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no rows, so nothing can be judged"):
        read(folder, rows=ROWS[:0], labels=LABELS[:0])


@pytest.mark.parametrize("name", ["predictions.parquet", "evaluation.json"])
@pytest.mark.parametrize("content", [None, b"", b"\x00garbage"])
def test_missing_and_damaged_files_are_refused(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read(folder)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("agreement", None, "agreement"),
        ("name", "other", "is about 'other', not 'tiny'"),
        ("peak_memory_bytes", "much", "peak_memory_bytes"),
        ("metrics", {"accuracy": 0.99, "macro_f1": 0.9, "ece": 0.0}, "the student's accuracy is 0.990000"),
        ("latency_ms", {"p50": float("inf"), "p95": 1.0}, "latency_ms.p50"),
    ],
)
def test_figures_refused(folder: Path, key: str, value: Any, told: str) -> None:
    path = folder / "evaluation.json"
    figures = json.loads(path.read_text())
    path.write_text(json.dumps(figures | {key: value}))
    with pytest.raises(InputError, match=told):
        read(folder)


def test_a_missing_figure_is_named(folder: Path) -> None:
    path = folder / "evaluation.json"
    figures = json.loads(path.read_text())
    del figures["teacher"]["latency_ms"]["onnx_int8"]
    path.write_text(json.dumps(figures))
    with pytest.raises(InputError, match=r"evaluation\.json: teacher\.latency_ms\.onnx_int8: field required"):
        read_evaluation(folder)
