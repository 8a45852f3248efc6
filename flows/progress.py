"""A stage's progress as a progress artefact in Prefect, kept up by a thread so that the stage never waits."""

import contextlib
import contextvars
import queue
import threading
from typing import Any

from stillroom.events import pace_told

_PERIOD_S = 1.0


class ProgressArtefact:
    """Shows the newest progress of one task run; a server that does not answer costs the display only."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def show(self, event: dict[str, Any]) -> None:
        """Take an event; only {"kind": "progress"} with a total is shown."""
        if event.get("kind") != "progress" or not event.get("total"):
            return
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._work,), daemon=True)
            self._thread.start()
        self._events.put(event)

    def close(self) -> None:
        """Show the last event and end."""
        if self._thread is not None:
            self._end.set()
            self._events.put(None)
            self._thread.join(timeout=5.0)

    def _work(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        artifact: Any = None
        ended = False
        while not ended:
            event, ended = self._newest()
            if event is None:
                continue
            percent = min(100.0, 100.0 * float(event.get("done", 0)) / float(event["total"]))
            counted = f"{event.get('done', 0)} of {event['total']}"
            parts = filter(None, (str(event.get("task", "progress")), counted, pace_told(event)))
            told = f"{self._address}: {', '.join(parts)}"
            with contextlib.suppress(Exception):
                if artifact is None:
                    artifact = create_progress_artifact(percent, description=told)
                else:
                    update_progress_artifact(artifact, percent, description=told)
            self._end.wait(_PERIOD_S)

    def _newest(self) -> tuple[dict[str, Any] | None, bool]:
        newest = None
        event = self._events.get()
        while event is not None:
            newest = event
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return newest, False
        return newest, True
