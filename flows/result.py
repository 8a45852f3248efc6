"""The result of a run as data, as a sentence and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from stillroom import layout
from stillroom.files import read_json
from stillroom.pipeline.workspace import Workspace


def result_of(place: Workspace, executed: Sequence[str], recorded: Any) -> dict[str, Any]:
    """Small and JSON-able: selected student, verdicts, what was executed, where it is recorded."""
    summary = read_json(place.path / layout.SUMMARY)
    students: Mapping[str, Any] = summary.get("students", {})
    result = {
        "selected": summary.get("selected"),
        "verdicts": {name: student.get("verdict") for name, student in students.items()},
        "retention": {name: student.get("retention", {}) for name, student in students.items()},
        "confidence": place.params.gate.confidence,
        "executed": list(executed),
        "workspace": str(place.path),
        "recorded": asdict(recorded) if is_dataclass(recorded) and not isinstance(recorded, type) else recorded,
    }
    return {**result, "told": in_words(result)}


def in_words(result: Mapping[str, Any]) -> str:
    """One sentence for a log."""
    verdicts = ", ".join(f"{name} {verdict}" for name, verdict in result["verdicts"].items())
    ran = f"{len(result['executed'])} stages executed" if result["executed"] else "everything was up to date"
    if result["selected"] is None:
        return f"no student passed the gate ({verdicts}); {ran}"
    waits = (result.get("recorded") or {}).get("waits")
    told = f"{result['selected']} passed the gate and is the cheapest that did ({verdicts}); {ran}"
    return f"{told}; {waits}" if waits else told


def in_markdown(result: Mapping[str, Any]) -> str:
    """A table of the students and their verdicts."""
    lines = [
        f"| student | verdict | guarded metric | retention | {100 * result['confidence']:g} % bounds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, verdict in result["verdicts"].items():
        shown = f"**{name}**" if name == result["selected"] else name
        for metric, bounds in (result["retention"].get(name) or {"–": {}}).items():
            cells = [shown, str(verdict), metric, _number(bounds.get("point"))]
            cells.append(f"{_number(bounds.get('lower'))} … {_number(bounds.get('upper'))}")
            lines.append(f"| {' | '.join(cells)} |")
    change = (result.get("recorded") or {}).get("change")
    told = [str(result["told"]), *([f"Since the champion before: {change}"] if change else [])]
    return "\n\n".join(told) + "\n\n" + "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
