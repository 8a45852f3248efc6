"""Who follows a run: one interface for a terminal, an engine's tasks and logs, and tests."""

from typing import Any, Protocol

from stillroom.errors import StillroomError
from stillroom.pipeline.outcome import StageOutcome


class Listener(Protocol):
    """Is called from the thread that runs the stage, and must not block it."""

    def opened(self, address: str) -> None:
        """DVC was asked about a stage, or (in whole mode) began to run it."""

    def line(self, address: str, text: str) -> None:
        """A line that the stage, or DVC about it, printed."""

    def event(self, address: str, event: dict[str, Any]) -> None:
        """What the stage told through its events file: {"kind": "progress", "done", "total"} and others."""

    def closed(self, outcome: StageOutcome) -> None:
        """A stage is done, executed or served."""

    def failed(self, address: str, error: StillroomError) -> None:
        """A stage ended with an error."""


class Silence:
    """Follows nothing; a base for listeners that follow something."""

    def opened(self, address: str) -> None:
        """Pass over it."""

    def line(self, address: str, text: str) -> None:
        """Pass over it."""

    def event(self, address: str, event: dict[str, Any]) -> None:
        """Pass over it."""

    def closed(self, outcome: StageOutcome) -> None:
        """Pass over it."""

    def failed(self, address: str, error: StillroomError) -> None:
        """Pass over it."""


class Chorus:
    """Passes everything on to several listeners."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def opened(self, address: str) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.opened(address)

    def line(self, address: str, text: str) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.line(address, text)

    def event(self, address: str, event: dict[str, Any]) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.event(address, event)

    def closed(self, outcome: StageOutcome) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.closed(outcome)

    def failed(self, address: str, error: StillroomError) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.failed(address, error)
