"""What a stage tells while it works: progress for a terminal, and an events file for whoever runs the stage.

The file's name travels in the environment (STILLROOM_EVENTS), never in a command, because commands are part of
DVC's key. One JSON object a line: {"time": seconds, "kind": str, ...}.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EVENTS_VARIABLE = "STILLROOM_EVENTS"
_MIN_INTERVAL_S = 0.5

Advance = Callable[[int], None]


def emit(kind: str, **fields: Any) -> None:
    """Append one event; without an events file, do nothing. A lost event never fails a stage."""
    name = os.environ.get(EVENTS_VARIABLE)
    if not name:
        return
    line = json.dumps({"time": time.time(), "kind": kind, **fields}) + "\n"
    try:
        with Path(name).open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError:
        return


@contextmanager
def progress(task: str, total: int) -> Iterator[Advance]:
    """Yield `advance(n)`. Shows a bar on a terminal, events in a flow, nothing in a pipe."""
    done = 0
    told = 0.0
    bar = _terminal_bar(task, total)

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)
        now = time.monotonic()
        if now - told >= _MIN_INTERVAL_S or done >= total:
            told = now
            emit("progress", task=task, done=done, total=total)

    if bar is None:
        yield advance
        return
    with bar:
        yield advance


def _terminal_bar(task: str, total: int) -> Any:
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(task, total=total)
    return bar
