"""What a stage left on disk, as curves and figures: recorded alike whether the stage ran or was cached."""

import hashlib
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom import layout
from stillroom.files import read_json, sha256_file
from stillroom.params import Params

_NOT_ALLOWED = re.compile(r"[^\w\-. :/]", re.ASCII)
_MAX_KEY = 250
_MAX_PARAM = 6000
# What of params.yaml tells one run of a stage from another; a student's stages show the student's section.
_SECTIONS = {
    "ingest": ("data", "governance"),
    "split": ("data", "seed"),
    "teach": ("teacher", "seed"),
    "capture": ("capture",),
    "distil": ("seed",),
    "quantise": ("quantise",),
    "select": ("gate", "seed"),
}


@dataclass(frozen=True)
class Point:
    """One value of a metric; `step` is the epoch of a curve, or the position in a list, else 0."""

    key: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Told:
    """What a stage's files say. `result` is a digest over them: equal results are never logged twice."""

    points: tuple[Point, ...]
    tags: Mapping[str, str]
    result: str


def told(workspace: Path, address: str) -> Told:
    """Read the outputs of a stage (`distil@static`); files that are not there tell nothing."""
    stage, _, item = address.partition("@")
    reader = _READERS.get(stage)
    if reader is None:
        return Told((), {}, "")
    path, read = reader
    file = workspace / (str(path).replace("ITEM", item))
    if not file.is_file():
        return Told((), {}, "")
    value = read_json(file)
    points, tags = read(value)
    return Told(tuple(points), tags, sha256_file(file))


def trials(workspace: Path, address: str) -> list[Mapping[str, Any]]:
    """What the search of a student tried, and whether it was chosen; nothing for other stages and for students whose
    settings are given."""
    stage, _, item = address.partition("@")
    file = workspace / layout.STUDENTS / item / "student.json"
    if stage != "distil" or not file.is_file():
        return []
    student = read_json(file)
    return [trial | {"chosen": trial["settings"] == student.get("settings")} for trial in student.get("search", ())]


def numbers(value: Any, prefix: str = "") -> Iterator[Point]:
    """Every finite number below a JSON value, under its dotted path; truth values and texts are left out."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from numbers(child, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield Point(key(prefix), float(value))


def curves(history: Sequence[Mapping[str, Any]], prefix: str = "", start: int = 1) -> Iterator[Point]:
    """One point per entry and figure, of a training history or another list; start: the step of the first entry that
    names no epoch."""
    for position, epoch in enumerate(history, start=start):
        step = int(epoch.get("epoch", position))
        for name, value in epoch.items():
            if name != "epoch":
                yield from (Point(point.key, point.value, step) for point in numbers(value, f"{prefix}{name}"))


def key(name: str) -> str:
    """A metric or param name as MLflow allows it: at most 250 letters, digits and `_-. :/`, a plain path."""
    allowed = _NOT_ALLOWED.sub("_", name)
    if posixpath.normpath(allowed) != allowed or allowed.startswith((".", "/")):
        allowed = "_" + allowed.replace("/", "_")
    return allowed[:_MAX_KEY].rstrip("/")


def stage_params(params: Params, address: str) -> dict[str, str]:
    """The params that describe a stage, flat."""
    stage, _, item = address.partition("@")
    whole = params.model_dump(mode="json")
    chosen = {name: whole[name] for name in _SECTIONS.get(stage, ())}
    if item:
        chosen["student"] = whole["students"].get(item, {})
    return flat(chosen)


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Params under dotted names, as texts of at most 6,000 characters; lists join by commas."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for name, child in value.items():
            found |= flat(child, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(value, list | tuple):
        text = ", ".join(str(item) for item in value)
    else:
        text = "none" if value is None else str(value)
    return {key(prefix): text if len(text) <= _MAX_PARAM else text[: _MAX_PARAM - 1] + "…"}


def measured(evaluation: Mapping[str, Any]) -> list[Point]:
    """The figures of a student's package on the test rows."""
    named = {
        "baseline": evaluation.get("baseline_metrics"),
        "teacher": evaluation.get("teacher", {}).get("metrics"),
        "latency_ms": evaluation.get("latency_ms"),
        "speedup": evaluation.get("speedup"),
        "f1": _f1(evaluation),
    }
    single = ("params", "size_bytes", "agreement", "throughput_rows_per_s", "load_ms", "peak_memory_bytes")
    return [
        *numbers(evaluation.get("metrics", {})),
        *numbers(named),
        *numbers({name: evaluation.get(name) for name in single}),
    ]


def _f1(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {label: scores.get("f1") for label, scores in figures.get("per_class", {}).items()}


def digest(parts: Sequence[str]) -> str:
    """One sha256 over some texts, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_Reading = tuple[list[Point], dict[str, str]]


def _ingest(value: Mapping[str, Any]) -> _Reading:
    scan = value.get("personal_data") or {}
    return list(numbers({"personal_data": scan.get("files", {})})), {}


def _split(value: Mapping[str, Any]) -> _Reading:
    counted = {name: value.get(name, {}) for name in ("rows", "dropped")}
    return list(numbers(counted)), {"data.sha256": str(value.get("sha256"))}


def _grown(value: Mapping[str, Any]) -> _Reading:
    counted = {name: value.get(name, {}) for name in ("kept", "refused", "factor")}
    return [*numbers(counted), *curves(value.get("curve", ()), "curve.", start=0)], {}


def _teacher(value: Mapping[str, Any]) -> _Reading:
    single = {name: value.get(name) for name in ("params", "temperature", "tokens_per_second")}
    points = [*curves(value.get("history", ())), *numbers(value.get("metrics", {})), *numbers(single)]
    return points, {"teacher": str(value.get("name")), "precision": str(value.get("precision"))}


def _reference(value: Mapping[str, Any]) -> _Reading:
    int8 = value.get("onnx_int8", {})
    single = ("params", "size_bytes", "throughput_rows_per_s", "load_ms", "peak_memory_bytes")
    named = {
        **{name: value.get(name) for name in single},
        "onnx_int8": {name: figure for name, figure in int8.items() if name != "per_class"} | {"f1": _f1(int8)},
        "f1": _f1(value),
    }
    return [*numbers(value.get("metrics", {})), *numbers(named)], {"teacher": str(value.get("name"))}


def _student(value: Mapping[str, Any]) -> _Reading:
    points = [
        *curves(value.get("history", ())),
        *curves(value.get("baseline_history", ()), "baseline."),
        *numbers({name: value.get(name) for name in ("params", "seconds")}),
    ]
    return points, {"family": str(value.get("family"))}


def _package(value: Mapping[str, Any]) -> _Reading:
    tried = ", ".join(str(rung.get("rung")) for rung in value.get("rungs", ()))
    return [*curves(value.get("rungs", ()), start=0)], {
        "quantisation": str(value.get("quantisation")),
        "rungs.tried": tried,
        "package.digest": str(value.get("digest")),
    }


def _evaluation(value: Mapping[str, Any]) -> _Reading:
    tags = {name: str(value.get(name)) for name in ("family", "quantisation")}
    return measured(value), tags | {"package.digest": str(value.get("package_digest"))}


def _summary(value: Mapping[str, Any]) -> _Reading:
    students = value.get("students", {})
    points = [point for name, student in students.items() for point in numbers(student.get("retention", {}), name)]
    verdicts = {f"gate.{name}": str(student.get("verdict")) for name, student in students.items()}
    return points, verdicts | {"selected": str(value.get("selected") or "none")}


_READERS: dict[str, tuple[Path, Callable[[Mapping[str, Any]], _Reading]]] = {
    "ingest": (layout.INGESTED / "report.json", _ingest),
    "split": (layout.SPLIT / "snapshot.json", _split),
    "grow": (layout.GROWN / "grown.json", _grown),
    "teach": (layout.TEACHER / "teacher.json", _teacher),
    "reference": (layout.REFERENCE / "reference.json", _reference),
    "distil": (layout.STUDENTS / "ITEM/student.json", _student),
    "quantise": (layout.PACKAGES / "ITEM/student/stillroom.json", _package),
    "evaluate": (layout.EVALUATIONS / "ITEM/evaluation.json", _evaluation),
    "select": (layout.SUMMARY, _summary),
}
