"""Reads from the lines of one `dvc repro` which stage is under way, so that both modes tell the same."""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from stillroom.errors import StillroomError
from stillroom.pipeline.listener import Listener
from stillroom.pipeline.outcome import StageOutcome
from stillroom.stages.receipt import Receipt

LANDMARK = re.compile(r"^(Running stage '|Stage '|ERROR: )")
OPENED = re.compile(r"^Running stage '(?P<address>[^']+)':$")
SERVED = re.compile(r"^Stage '(?P<address>[^']+)' (didn't change, skipping|is cached - skipping run)")
_UNKNOWN = ""


class Whole:
    """The stage that is open now, and what became of the ones before it."""

    def __init__(self, listener: Listener, receipt: Callable[[str], Receipt | None], addresses: Iterable[str]) -> None:
        self.address: str | None = None
        self._listener, self._receipt = listener, receipt
        self._before = {address: receipt(address) for address in addresses}
        self._opened_at = 0.0
        self._outcomes: dict[str, StageOutcome] = {}

    def line(self, text: str) -> None:
        """Take a line of DVC or of the stage that runs."""
        if opened := OPENED.match(text):
            self.close()
            self.address = opened["address"]
            self._opened_at = time.monotonic()
            self._listener.opened(self.address)
        elif served := SERVED.match(text):
            self.close()
            self._note(StageOutcome(served["address"], False, _UNKNOWN, 0.0, None))
        if self.address is not None:
            self._listener.line(self.address, text)

    def event(self, event: dict[str, Any]) -> None:
        """Pass an event on to the stage that is open."""
        if self.address is not None:
            self._listener.event(self.address, event)

    def fresh(self) -> Receipt | None:
        """The receipt of the open stage, if it left one since it was opened."""
        if self.address is None:
            return None
        after = self._receipt(self.address)
        return None if after == self._before.get(self.address) else after

    def close(self) -> None:
        """The open stage, if any, ended well."""
        if self.address is None:
            return
        fresh, seconds = self.fresh(), time.monotonic() - self._opened_at
        self._note(StageOutcome(self.address, fresh is not None, _UNKNOWN, seconds, fresh))
        self.address = None

    def fail(self, error: StillroomError) -> None:
        """The open stage, if any, ended with an error."""
        if self.address is not None:
            self._listener.failed(self.address, error)
            self.address = None

    def outcome(self, address: str) -> StageOutcome:
        """What became of a stage; its fingerprint is still unknown here."""
        return self._outcomes.get(address, StageOutcome(address, False, _UNKNOWN, 0.0, None))

    def _note(self, outcome: StageOutcome) -> None:
        self._outcomes[outcome.address] = outcome
        self._listener.closed(outcome)
