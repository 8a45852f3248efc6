"""What a recorded run says about where it comes from and what came of it: code, data, files, a table."""

import getpass
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillroom import layout
from stillroom.files import read_json
from stillroom.registry.runs import Input

_GIT_S = 5.0


def user() -> str:
    """The user of this process; empty where it has no name."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def tags(workspace: Path) -> dict[str, str]:
    """Who ran which commit; a workspace without git has no commit, and neither is ever a reason to fail."""
    found = {"mlflow.source.name": "stillroom", "mlflow.source.type": "PROJECT", "mlflow.user": user() or "unknown"}
    try:
        command = ["git", "-C", str(workspace), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return found | {"mlflow.source.git.commit": commit}


def inputs(workspace: Path) -> list[Input]:
    """The three parts of the split, each with the digest of the whole snapshot."""
    path = workspace / layout.SPLIT / "snapshot.json"
    if not path.is_file():
        return []
    snapshot = read_json(path)
    source = snapshot.get("source") or {}
    train = (source.get("train") or {}).get("uri", "")
    name = Path(str(train)).stem or "data"
    return [
        Input(
            f"{name}.{part}",
            str(snapshot["sha256"]),
            part,
            {"uri": train, "sha256": snapshot["sha256"]},
            int(rows),
        )
        for part, rows in snapshot["rows"].items()
    ]


def files(workspace: Path) -> dict[Path, str | None]:
    """What is uploaded with a run: the report with its plots, the verdicts, and what repeats it."""
    return {
        workspace / layout.REPORT: "report",
        workspace / layout.GATE_REPORTS: "gate",
        workspace / layout.SUMMARY: None,
        workspace / layout.PARAMS: "pipeline",
        workspace / "dvc.yaml": "pipeline",
        workspace / "dvc.lock": "pipeline",
    }


def note(summary: Mapping[str, Any]) -> dict[str, str]:
    """The result as a table in Markdown, which MLflow shows as the run's description."""
    selected = summary.get("selected")
    lines = [f"**Selected: {selected}**" if selected else "**No student passed the gate.**", ""]
    lines += ["| student | verdict | accuracy | retention (lower) | params | size, bytes | p50, ms |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, student in summary.get("students", {}).items():
        retention = (student.get("retention") or {}).get("accuracy") or {}
        cells = (
            name,
            student.get("verdict"),
            _rounded(student.get("metrics", {}).get("accuracy")),
            f"{_rounded(retention.get('point'))} ({_rounded(retention.get('lower'))})",
            student.get("params"),
            student.get("size_bytes"),
            _rounded(student.get("latency_ms", {}).get("p50")),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return {"mlflow.note.content": "\n".join(lines)}


def _rounded(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "–"
