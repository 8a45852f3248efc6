"""A workspace as it stands before the report stage: split, teacher, students, packages, verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillroom import layout
from stillroom.data.grown import write_grown
from stillroom.export.package import write_package
from stillroom.files import read_json, write_json
from stillroom.params import Params, validate
from stillroom.stages import select
from tests.gate.evaluations import (
    NAMES,
    Array,
    labels_of,
    one_hot,
    with_mistakes,
    write_evaluation,
    write_split,
)

LABELS = labels_of(400)
PRICES = {
    "api_per_1000_calls": 1,
    "machine_per_hour": 0.5,
    "calls_per_month": 1_000_000,
    "setup": 12_000,
    "upkeep_per_month": 135,
}


def write_student(
    name: str,
    student: Array,
    teacher: Array,
    labels: Array = LABELS,
    names: Sequence[str] = NAMES,
    **changes: Any,
) -> None:
    """Write what the stages distil, quantise and evaluate leave about a student, in the current folder."""
    package = layout.PACKAGES / name / "student"
    package.mkdir(parents=True, exist_ok=True)
    sources = {kind: layout.PACKAGES / f"{kind}.scratch" for kind in ("model", "tokeniser")}
    for kind, path in sources.items():
        path.write_bytes(f"{kind} of {name}".encode())
    manifest = write_package(
        package,
        **sources,
        name=name,
        family=changes.get("family", "static"),
        problem_type="single_label",
        labels=names,
        max_length=64,
        temperature=1.5,
        calibration={"ece_before": 0.125, "ece_after": 0.03125},
        quantisation=changes.get("quantisation", "dynamic_int8"),
        params=changes.get("params", 1000),
        threads=1,
        lineage={part: part[0] * 64 for part in ("data", "teacher", "cache", "code", "lock")},
        rungs=[
            {"rung": "dynamic_int8", "accuracy": 0.91, "drop": 0.001, "size_bytes": 5000, "latency_ms": 0.1},
        ],
    )
    for path in sources.values():
        path.unlink()
    curve = [
        {"epoch": n, "train_loss": 1 / n, "validation_accuracy": 0.95 - 0.5 / n, "seconds": 1.0} for n in range(1, 9)
    ]
    trimming = {"pieces": 900, "pieces_of": 30_522, "changed": 0.125, "unknown": 0.0012, "unknown_before": 0.0}
    told = {"name": name, "history": curve, "baseline_history": curve[:5], "trimming": trimming}
    write_json(layout.STUDENTS / name / "student.json", told)
    write_evaluation(
        layout.EVALUATIONS / name,
        labels,
        student,
        teacher,
        names,
        package_digest=manifest["digest"],
        **changes,
    )


def params_of(*students: str, **sections: Mapping[str, Any]) -> Params:
    """Params of a run with these students."""
    raw = {
        "data": {"source": "rows.csv", "licence": "CC0-1.0"},
        "teacher": {"source": "teachers/big", "licence": "Apache-2.0"},
        "students": {name: {"family": "static"} for name in students},
        "gate": {"resamples": 500},
    }
    return validate(raw | sections, "test")


def write_workspace() -> Params:
    """A workspace in the current folder with the students good, which passes, and bad, which fails."""
    write_split(layout.SPLIT, LABELS)
    history = [{"epoch": n, "train_loss": 1 / n, "validation_accuracy": 0.9 + n / 50, "seconds": 3.0} for n in (1, 2)]
    write_json(layout.TEACHER / "teacher.json", {"name": "big", "history": history})
    write_grown([], layout.GROWN)
    teacher = one_hot(with_mistakes(LABELS, 8), len(NAMES))
    for name, mistakes in (("good", 9), ("bad", 80)):
        write_student(name, one_hot(with_mistakes(LABELS, mistakes), len(NAMES)), teacher)
    params = params_of("good", "bad")
    select.run(params)
    return params


def write_large_workspace(rows: int = 480) -> Params:
    """A workspace in the current folder with many classes, slices, floors, budgets, seeds and prices. Names of classes
    are a burden: one is long, one looks like a tag, and one has no test rows."""
    names = [f"class {number:02d}" for number in range(13)]
    names[3] = "class 03, complaints about a card that was declined at a shop abroad"
    names[4] = "class 04 <script>alert(1)</script> | ![picture](https://example.org/x.png)"
    labels = labels_of(rows, len(names) - 1)
    write_split(layout.SPLIT, labels, names)
    history = [{"epoch": n, "train_loss": 1 / n, "validation_accuracy": 0.9 + n / 50, "seconds": 3.0} for n in (1, 2)]
    write_json(layout.TEACHER / "teacher.json", {"name": "big", "history": history})
    write_grown([], layout.GROWN)
    teacher = softened(labels, 0.95, len(names), 1)
    slow = {"latency_ms": {"p50": 1.25, "p95": 2.5}, "size_bytes": 90_000}
    for name, share, changes in (("static", 0.9, {}), ("sliced", 0.3, slow)):
        mixed = share * teacher + (1 - share) * softened(labels, 0.9, len(names), 2)
        student = (mixed / mixed.sum(axis=1, keepdims=True)).astype(np.float32)
        write_student(name, student, teacher, labels, names, **changes)
    path = layout.EVALUATIONS / "sliced/evaluation.json"
    told = read_json(path)
    told["teacher"]["latency_ms"]["torch_fp32"] = {"p50": 21.5, "p95": 33.5}  # each has the teacher measured beside it
    write_json(path, told)
    slices = {"tens": {"pattern": "0$", "retention": 0.9}, "short": {"max_chars": 7}}
    gate = {"resamples": 500, "class_recall": {"floor": 0.7}, "max_latency_p95_ms": 2.0, "slices": slices}
    students = {"static": {"family": "static"}, "sliced": {"family": "static", "seed": 1}}
    params = params_of(students=students, gate=gate, cost=PRICES)
    select.run(params)
    return params


def softened(labels: Array, accuracy: float, classes: int, seed: int, sharp: float = 3.0) -> Array:
    """Probabilities [rows, classes], float32, of a model about this accurate."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), classes))
    right = rng.random(len(labels)) < accuracy
    best = np.where(right, labels, (labels + 1 + rng.integers(0, 3, len(labels))) % classes)
    logits[np.arange(len(labels)), best] += sharp + rng.exponential(2.0, len(labels)) * np.where(right, 1.0, 0.3)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
