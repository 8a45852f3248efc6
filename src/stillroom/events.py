"""What a stage tells while it works: progress for a terminal, and an events file for whoever runs the stage.

The file's name travels in the environment (STILLROOM_EVENTS), never in a command, because commands are part of
DVC's key. One JSON object a line: {"time": seconds, "kind": str, ...}.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
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
def progress(task: str, total: int, unit: str = "") -> Iterator[Advance]:
    """Yield `advance(n)`. Shows a bar on a terminal, events in a flow, nothing in a pipe.

    With a unit ("rows"), both tell the speed of the last half minute and the time left. What the first call counts
    has no part in the speed: it may have been done before.
    """
    done = 0
    told = 0.0
    bar = _bar()
    number = bar.add_task(task, total=total, rate="")
    of_task = bar.tasks[0]

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        bar.update(number, completed=done)
        now = time.monotonic()
        if now - told >= _MIN_INTERVAL_S or done >= total:
            told = now
            rate = of_task.speed
            paced = {"unit": unit, "rate": rate, "seconds_left": of_task.time_remaining} if unit and rate else {}
            bar.update(number, rate=rate_told(paced))
            emit("progress", task=task, done=done, total=total, **paced)

    with bar if sys.stderr.isatty() else nullcontext():
        yield advance


def rate_told(event: Mapping[str, Any]) -> str:
    """`1,234 rows/s` for an event of progress with a rate, else nothing."""
    rate = event.get("rate")
    return f"{rate:,.{0 if rate >= 10 else 1}f} {event.get('unit', '')}/s" if rate else ""


def pace_told(event: Mapping[str, Any]) -> str:
    """`1,234 rows/s, 0:01:40 left` for an event of progress with a rate, else nothing."""
    rate = rate_told(event)
    return f"{rate}, {timedelta(seconds=int(event.get('seconds_left') or 0))} left" if rate else ""


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, get_time=time.monotonic)
