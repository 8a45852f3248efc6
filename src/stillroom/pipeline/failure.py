"""Why a stage failed: DVC hides exit codes, so the receipt is read and its error raised as our own class."""

import re
from collections.abc import Iterable
from pathlib import Path

from stillroom.errors import Diverged, GateRefused, InputError, StillroomError, TryAgain
from stillroom.pipeline.command import failure
from stillroom.stages.receipt import Receipt

_CLASSES = {error.exit_code: error for error in (InputError, GateRefused, Diverged, TryAgain)}
_DVC_LINE = re.compile(r"ERROR: |WARNING: |Running stage |> |Stage '")
_EXITED = re.compile(r"exited with (?P<code>-?\d+)\s*$")
_KILLED_CODES = {-9, -15, 137, 143}


class StageKilled(StillroomError):
    """A stage or its DVC was killed (no memory, a signal); its checkpoints let the next run resume."""


def stage_error(
    address: str, workspace: Path, code: int, receipt: Receipt | None, tail: Iterable[str]
) -> StillroomError:
    """The error of a stage whose DVC ended with `code`; `receipt` is the one that this execution left, if
    any.

    The last lines of its output are added as a note, which a traceback shows and a one-line message does not.
    """
    lines = list(tail)
    error = _error(address, workspace, code, receipt, lines)
    if lines:
        error.add_note("Last lines of its output:\n" + "\n".join(f"  {line}" for line in lines))
    return error


def _error(address: str, workspace: Path, code: int, receipt: Receipt | None, lines: list[str]) -> StillroomError:
    if receipt is not None and receipt.state == "started":
        return StageKilled(f"{address}: killed after it started (no memory, or a signal); run again to resume")
    if receipt is not None and receipt.state == "failed":
        return _by_code(address, receipt.exit_code or 1, receipt.error or "")
    exited = next((found for line in reversed(lines) if (found := _EXITED.search(line))), None)
    if exited is not None:
        own = [line for line in lines if not _DVC_LINE.match(line)]
        return _by_code(address, int(exited["code"]), own[-1] if own else "")
    if code in _KILLED_CODES:
        return StageKilled(f"{address}: DVC was killed (exit code {code}); run again to resume")
    return failure(("repro", address), workspace, "\n".join(lines))


def _by_code(address: str, code: int, told: str) -> StillroomError:
    if code in _KILLED_CODES:
        return StageKilled(f"{address}: ended by a signal; run again to resume")
    return _CLASSES.get(code, StillroomError)(f"{address}: {told or f'ended with exit code {code}'}")
