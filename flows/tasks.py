"""The Prefect tasks of a run. DVC alone decides what is stale, so Prefect caches and keeps nothing."""

import queue
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed

from flows.progress import ProgressArtefact
from flows.session import Session
from stillroom.errors import StillroomError, TryAgain
from stillroom.pipeline.failure import StageKilled
from stillroom.pipeline.listener import Chorus, Listener, Silence
from stillroom.pipeline.outcome import StageOutcome
from stillroom.pipeline.plan import Plan
from stillroom.pipeline.runner import StageRunner

Work = Callable[[Listener], StageOutcome]
_JITTER = 0.3


def worth_retrying(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Try again what may succeed later, and once what was killed; anything else fails the same way again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TryAgain) or (isinstance(error, StageKilled) and run.run_count <= 1)


def service(name: str, work: Callable[[], Any], session: Session) -> Any:
    """Call a service as a task of its own, with the retries of the session."""
    options: Any = {"name": name, "task_run_name": name, **_retries(session)}
    return _service.with_options(**options)(work)


def _retries(session: Session) -> dict[str, Any]:
    delays = [delay * (1.0 + random.uniform(0.0, _JITTER)) for delay in session.retry_after_s]
    return {
        "retries": len(delays),
        "retry_delay_seconds": delays or None,
        "retry_condition_fn": worth_retrying,
    }


@task(cache_policy=NO_CACHE, persist_result=False)
def _service(work: Callable[[], Any]) -> Any:
    return work()


@task(cache_policy=NO_CACHE, persist_result=False)
def _stage(address: str, work: Work) -> Any:
    log, artefact = get_run_logger(), ProgressArtefact(address)
    try:
        outcome = work(_Follower(log, artefact))
    finally:
        artefact.close()
    if outcome.executed:
        return Completed(message=f"executed in {outcome.seconds:.1f} s", data=outcome)
    return Completed(name="Cached", message="up to date", data=outcome)


class _Follower(Silence):
    """A stage's lines to the log of its task run, its progress to an artefact."""

    def __init__(self, log: Any, artefact: ProgressArtefact) -> None:
        self._log, self._artefact = log, artefact

    def line(self, address: str, text: str) -> None:
        self._log.info("%s", text)

    def event(self, address: str, event: dict[str, Any]) -> None:
        self._artefact.show(event)


class StageTasks:
    """One task per stage, named by its address, in either mode."""

    def __init__(self, plan: Plan, session: Session) -> None:
        self._plan, self._session = plan, session
        self._states: dict[str, State[Any]] = {}

    def per_stage(self, runner: StageRunner) -> Callable[[str], StageOutcome]:
        """What brings one stage up to date inside a task that Prefect retries."""

        def perform(address: str) -> StageOutcome:
            def work(listener: Listener) -> StageOutcome:
                return runner.bring(self._plan, address, Chorus(listener, self._session.listener))

            return self.run(address, work, **_retries(self._session))

        return perform

    def run(self, address: str, work: Work, **options: Any) -> StageOutcome:
        """Run one stage's task and wait for it; its place in the graph is told to Prefect."""
        above = [self._states[name] for name in self._plan.graph.upstream[address] if name in self._states]
        named: Any = {"name": address, "task_run_name": address, **options}
        state: Any = _stage.with_options(**named)(address, work, wait_for=above, return_state=True)
        self._states[address] = state
        outcome: StageOutcome = state.result(raise_on_failure=True)
        return outcome


class WholeTasks(Silence):
    """Opens and closes the same tasks from what one `dvc repro` tells: a listener for whole mode."""

    def __init__(self, tasks: StageTasks) -> None:
        self._tasks = tasks
        self._open: dict[str, queue.SimpleQueue[Callable[[Listener], StageOutcome | None]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stage")

    def opened(self, address: str) -> None:
        """Open the stage's task; it works through what is told until the stage is closed or failed."""
        told: queue.SimpleQueue[Callable[[Listener], StageOutcome | None]] = queue.SimpleQueue()

        def work(listener: Listener) -> StageOutcome:
            while (outcome := told.get()(listener)) is None:
                pass
            return outcome

        self._open[address] = told
        self._pool.submit(copy_context().run, self._tasks.run, address, work)

    def line(self, address: str, text: str) -> None:
        """Pass it to the open task."""
        if address in self._open:
            self._open[address].put(lambda listener: listener.line(address, text))

    def event(self, address: str, event: dict[str, Any]) -> None:
        """Pass it to the open task."""
        if address in self._open:
            self._open[address].put(lambda listener: listener.event(address, event))

    def closed(self, outcome: StageOutcome) -> None:
        """Close the open task; a stage that was never opened was up to date."""
        told = self._open.pop(outcome.address, None)
        if told is not None:
            told.put(lambda listener: outcome)
        else:
            self._pool.submit(copy_context().run, self._tasks.run, outcome.address, lambda listener: outcome)

    def failed(self, address: str, error: StillroomError) -> None:
        """Fail the open task."""
        if address in self._open:
            self._open.pop(address).put(_raiser(error))

    def end(self) -> None:
        """Wait for the tasks; one that is still open was interrupted."""
        for address in list(self._open):
            self.failed(address, StageKilled(f"{address}: interrupted"))
        self._pool.shutdown(wait=True)


def _raiser(error: StillroomError) -> Callable[[Listener], StageOutcome | None]:
    def work(listener: Listener) -> StageOutcome | None:
        raise error

    return work
