"""A run on a terminal, and in a pipe."""

import io

from rich.console import Console

from flows.screen import Screen
from stillroom.errors import StillroomError
from stillroom.pipeline.outcome import StageOutcome


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
