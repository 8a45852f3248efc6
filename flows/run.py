"""One run of the flow from the command line: its progress on the terminal, its end as an exit code."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.screen import Screen
from flows.session import SESSION, Services, Session
from stillroom import layout
from stillroom.errors import GateRefused, InputError, StillroomError, TryAgain
from stillroom.params_file import load_params, merged
from stillroom.pipeline.listener import Listener
from stillroom.pipeline.plan import start_plan
from stillroom.pipeline.runner import Mode
from stillroom.pipeline.workspace import Workspace, open_workspace

_INTERRUPTED = 130
_CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
"""Keeps Prefect's lines off the terminal, where the screen shows the run; its server still gets every one."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended: an exit code of stillroom.errors, the flow's result or what went wrong."""

    exit_code: int
    workspace: Path | None
    result: dict[str, Any] | None = None
    error: str | None = None
    notes: tuple[str, ...] = field(default=())
    """The last lines of a stage that failed."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: in order, and with the Prefect server that it may have started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_terminated_as_interrupted()
def run_once(
    params_file: Path | None = None,
    overrides: Sequence[str] = (),
    workspace: Path | None = None,
    mode: Mode = "per-stage",
    *,
    root: Path | None = None,
    services: Services | None = None,
    listener: Listener | None = None,
    retry_after_s: tuple[float, ...] = (2.0, 10.0),
) -> RunResult:
    """Run the flow in this process and return how it ended; foreseen errors are results, not exceptions.

    DVC works on the plan while Prefect is imported. A workspace that this run made is removed again where
    the input was wrong before anything was executed.
    """
    root = (root or Path.cwd()).absolute()
    try:
        params = load_params(params_file or root / layout.PARAMS, overrides)
        place = open_workspace(root, params, workspace)
    except StillroomError as error:
        return RunResult(error.exit_code, None, error=str(error))
    pending = start_plan(place.path)
    result = RunResult(1, place.path)
    try:
        with Screen() if listener is None else contextlib.nullcontext(listener) as shown:
            session = Session(services or Services(), shown, place, pending, retry_after_s)
            parameters = {
                "params_file": str(params_file or layout.PARAMS),
                "overrides": merged({}, overrides),
                "workspace": str(place.path) if place.own else None,
                "mode": mode,
            }
            result = _flow(place, session, parameters)
    finally:
        pending.abandon()
        place.close()
        if result.exit_code == InputError.exit_code:
            place.discard()
    return result


def _flow(place: Workspace, session: Session, parameters: dict[str, Any]) -> RunResult:
    os.environ.setdefault(_CONSOLE, "CRITICAL")
    from flows.distil import distil

    token = SESSION.set(session)
    try:
        state: Any = distil(**parameters, return_state=True)
        ended: Any = state.result(raise_on_failure=False)
    except KeyboardInterrupt:
        return RunResult(_INTERRUPTED, place.path, error="interrupted; the next run resumes")
    except Exception as error:
        ended = error
    finally:
        SESSION.reset(token)
    if isinstance(ended, dict):
        code = 0 if ended["selected"] is not None else GateRefused.exit_code
        return RunResult(code, place.path, ended)
    return _failed(place, ended)


def _failed(place: Workspace, error: Any) -> RunResult:
    if isinstance(error, StillroomError):
        notes = tuple(getattr(error, "__notes__", ()))
        return RunResult(error.exit_code, place.path, error=str(error), notes=notes)
    from httpx import TransportError

    told = " ".join(str(error).split())
    if isinstance(error, TransportError) or "Failed to reach API" in told:
        return RunResult(
            TryAgain.exit_code,
            place.path,
            error=f"Prefect's server does not answer ({told}); check PREFECT_API_URL",
        )
    if "ephemeral Prefect API server" in told:
        error = f"Prefect's own server did not start ({told}); the machine may be busy"
        return RunResult(TryAgain.exit_code, place.path, error=error)
    return RunResult(StillroomError.exit_code, place.path, error=f"{type(error).__name__}: {told}")
