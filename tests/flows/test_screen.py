"""A run on a terminal, and in a pipe."""

import io

from rich.console import Console

from flows.screen import Screen
from stillroom.errors import StillroomError
from stillroom.pipeline.outcome import StageOutcome
from stillroom.stages.receipt import Receipt


def follow(console: Console) -> None:
    with Screen(console) as screen:
        screen.closed(StageOutcome("split", False, "", 0.0, None))
        screen.opened("teach")
        screen.event("teach", {"kind": "progress", "task": "epoch [1]", "done": 1, "total": 2})
        screen.event("teach", {"kind": "other"})
        screen.event("unknown", {"kind": "progress", "done": 1, "total": 2})
        screen.line("teach", "loss 0.1")
        screen.closed(StageOutcome("teach", True, "", 12.34, None))
        screen.opened("distil@small")
        screen.failed("distil@small", StillroomError("no"))


def test_a_terminal_sees_what_ran_and_what_failed() -> None:
    written = io.StringIO()
    follow(Console(file=written, force_terminal=True, width=100, color_system=None))
    shown = written.getvalue()
    assert "✓ teach 12.3 s" in shown
    assert "✗ distil@small" in shown
    assert "1 stages are up to date" in shown


def test_a_pipe_sees_what_ran_without_codes_of_a_terminal() -> None:
    written = io.StringIO()
    follow(Console(file=written, force_terminal=False))
    assert written.getvalue() == "✓ teach 12.3 s\n1 stages are up to date\n"


def test_a_bar_tells_the_speed_and_the_time_left_of_a_stage_that_does() -> None:
    written = io.StringIO()
    with Screen(Console(file=written, force_terminal=True, width=100, color_system=None)) as screen:
        screen.opened("capture")
        told = {"kind": "progress", "task": "pass [1]", "done": 10, "total": 90}
        screen.event("capture", told | {"unit": "rows", "rate": 1234.4, "seconds_left": 100.0})
    assert "capture pass [1], 1,234 rows/s, 0:01:40 left" in written.getvalue()


def test_a_stage_that_tells_its_parts_shows_where_the_time_went() -> None:
    metrics = {"validation_accuracy": 0.9, "seconds_read": 4.04, "seconds_student": 8.1, "seconds_baseline": 5.9}
    written = io.StringIO()
    with Screen(Console(file=written, force_terminal=False, width=200)) as screen:
        for address, told in (("distil@static", metrics), ("split", {"rows": 3.0})):
            receipt = Receipt(stage=address, state="finished", pid=1, started_at=0.0, metrics=told)
            screen.closed(StageOutcome(address, True, "", 18.3, receipt))
    assert written.getvalue() == "✓ distil@static 18.3 s (read 4.0, student 8.1, baseline 5.9)\n✓ split 18.3 s\n"
