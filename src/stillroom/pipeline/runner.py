"""Runs stages through DVC, in subprocesses: one by one (per-stage) or as one streamed `dvc repro` (whole)."""

import contextvars
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stillroom.errors import InputError
from stillroom.events import EVENTS_VARIABLE
from stillroom.pipeline.command import child_environment, dvc_command
from stillroom.pipeline.events import EventsTail
from stillroom.pipeline.failure import stage_error
from stillroom.pipeline.graph import alone
from stillroom.pipeline.listener import Listener, Silence
from stillroom.pipeline.outcome import StageOutcome, fingerprint_of, fingerprints
from stillroom.pipeline.output import Output
from stillroom.pipeline.plan import Plan
from stillroom.pipeline.process import ProcessGroups
from stillroom.pipeline.remembered import recall, remember
from stillroom.pipeline.whole import LANDMARK, Whole
from stillroom.pipeline.workspace import Workspace
from stillroom.stages.receipt import Receipt, read_receipt

Mode = Literal["per-stage", "whole"]
Perform = Callable[[str], StageOutcome]
WORKERS_VARIABLE = "STILLROOM_WORKERS"


def default_workers() -> int:
    """Stages side by side: STILLROOM_WORKERS, else 2, because half of a stage is work of one core."""
    given = os.environ.get(WORKERS_VARIABLE)
    if given is None:
        return 2
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"{WORKERS_VARIABLE} is {given!r}; it must be a whole number of at least 1")
    return int(given)


class StageRunner:
    """Executes the stages of one workspace; `stop` ends everything it has started, from any thread."""

    def __init__(self, workspace: Workspace, listener: Listener | None = None, workers: int | None = None) -> None:
        self.workspace = workspace
        self.listener: Listener = listener or Silence()
        self.workers = default_workers() if workers is None else workers
        self._groups = ProcessGroups()

    def run(self, plan: Plan, mode: Mode = "per-stage", perform: Perform | None = None) -> list[StageOutcome]:
        """Bring every stage up to date and return their outcomes in graph order.

        `perform` stands in for `bring` in per-stage mode, so that an engine can wrap each stage in a task
        of its own. The first failure is raised once the stages under way have ended; nothing is started
        after it.
        """
        try:
            if mode == "whole":
                return self._whole(plan)
            return self._side_by_side(plan, perform or (lambda address: self.bring(plan, address)))
        except BaseException:
            self.stop()
            raise

    def bring(self, plan: Plan, address: str, listener: Listener | None = None) -> StageOutcome:
        """Bring one stage up to date; DVC is asked unless the plan is certain that nothing changed."""
        if address in plan.due:
            return self.run_stage(address, listener)
        outcome = self._known(StageOutcome(address, False, "", 0.0, None), plan.fingerprints.get(address, ""))
        (listener or self.listener).closed(outcome)
        return outcome

    def run_stage(self, address: str, listener: Listener | None = None) -> StageOutcome:
        """Run one stage by `dvc repro --single-item`; raises the error class that its receipt tells."""
        heard = listener or self.listener
        started, before = time.monotonic(), self.receipt(address)
        output = Output(lambda text: heard.line(address, text))
        tail = EventsTail(self.workspace.events(address))

        def pass_on_events() -> None:
            for event in tail.new():
                heard.event(address, event)

        heard.opened(address)
        code = self._groups.run(
            dvc_command("--wait-for-lock", "repro", "--single-item", address),
            self.workspace.path,
            self._environment(tail.path),
            output,
            pass_on_events,
        )
        after = self.receipt(address)
        fresh = None if after == before else after
        if code != 0:
            error = stage_error(address, self.workspace.path, code, fresh, output.tail)
            heard.failed(address, error)
            raise error
        outcome = StageOutcome(address, fresh is not None, "", time.monotonic() - started, fresh)
        outcome = self._known(outcome, fingerprint_of(self.workspace.path, address))
        heard.closed(outcome)
        return outcome

    def receipt(self, address: str) -> Receipt | None:
        """The last receipt that a stage left in this workspace."""
        return read_receipt(address, self.workspace.receipts)

    def stop(self) -> None:
        """End every process of this runner; to be called from the main thread on any way out."""
        self._groups.end_all()

    def _known(self, outcome: StageOutcome, fingerprint: str) -> StageOutcome:
        """Add the fingerprint, and to a served stage the receipt of the execution that once made it."""
        state, receipt = self.workspace.state, outcome.receipt
        if receipt is not None:
            remember(state, fingerprint, receipt)
        else:
            receipt = recall(state, self.workspace.receipts, outcome.address, fingerprint)
        return replace(outcome, fingerprint=fingerprint, receipt=receipt)

    def _whole(self, plan: Plan) -> list[StageOutcome]:
        if plan.nothing_to_do:
            return [self.bring(plan, address) for address in plan.graph.order]
        whole = Whole(self.listener, self.receipt, plan.graph.order)
        tail = EventsTail(self.workspace.events("whole"))

        def pass_on_events() -> None:
            for event in tail.new():
                whole.event(event)

        def line(text: str) -> None:
            if LANDMARK.match(text):
                pass_on_events()  # what has been told so far belongs to the stage that this line ends
            whole.line(text)

        output = Output(line, always=LANDMARK)
        code = self._groups.run(
            dvc_command("--wait-for-lock", "repro"),
            self.workspace.path,
            self._environment(tail.path),
            output,
            pass_on_events,
        )
        if code != 0:
            address = whole.address or "dvc.yaml"
            error = stage_error(address, self.workspace.path, code, whole.fresh(), output.tail)
            whole.fail(error)
            raise error
        whole.close()
        keys = fingerprints(self.workspace.path)
        return [self._known(whole.outcome(address), keys.get(address, "")) for address in plan.graph.order]

    def _side_by_side(self, plan: Plan, perform: Perform) -> list[StageOutcome]:
        waiting = list(plan.graph.order)
        is_alone = alone(self.workspace.path)
        done: dict[str, StageOutcome] = {}
        running: dict[Future[StageOutcome], str] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.workers, thread_name_prefix="stage") as pool:
            try:
                while running or (waiting and failure is None):
                    if failure is None:
                        for address in _startable(_ready(plan, waiting, done), list(running.values()), is_alone):
                            if len(running) == self.workers:
                                break
                            waiting.remove(address)
                            context = contextvars.copy_context()
                            running[pool.submit(context.run, perform, address)] = address
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        address, error = running.pop(future), future.exception()
                        if error is None:
                            done[address] = future.result()
                        failure = failure or error
            except BaseException:
                self.stop()
                raise
        if failure is not None:
            raise failure
        return [done[address] for address in plan.graph.order]

    def _environment(self, events: Path) -> dict[str, str]:
        return child_environment(self.workspace.path, {**self.workspace.variables, EVENTS_VARIABLE: str(events)})


def _ready(plan: Plan, waiting: list[str], done: dict[str, StageOutcome]) -> list[str]:
    return [address for address in waiting if all(above in done for above in plan.graph.upstream[address])]


def _startable(ready: list[str], running: list[str], is_alone: Callable[[str], bool]) -> list[str]:
    """Of the stages that are ready, those that may start beside the running ones."""
    if any(map(is_alone, running)):
        return []
    shared = [address for address in ready if not is_alone(address)]
    if shared or running:
        return shared
    return ready[:1]
