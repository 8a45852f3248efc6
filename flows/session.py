"""What a run of the flow is given besides its parameters: the services it calls, and who follows it."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stillroom.params import Params
from stillroom.pipeline.listener import Listener, Silence
from stillroom.pipeline.outcome import StageOutcome
from stillroom.pipeline.plan import PendingPlan
from stillroom.pipeline.workspace import Workspace


class Record(Protocol):
    """Writes a run down in the tracker and the registry."""

    def __call__(self, workspace: Path, params: Params, stages: Sequence[StageOutcome], run_name: str) -> Any:
        """As stillroom.registry.record.record_run does."""


def _snapshot(params: Params, workspace: Path) -> object:
    from stillroom.data.sources.materialise import snapshot

    return snapshot(params, workspace)


def _record(workspace: Path, params: Params, stages: Sequence[StageOutcome], run_name: str) -> Any:
    from stillroom.registry.record import record_run

    return record_run(workspace, params, stages, run_name)


def _check_tracker() -> None:
    from stillroom.registry.tracking import check_before_run

    check_before_run()


@dataclass(frozen=True)
class Services:
    """What the flow calls outside of the pipeline; heavy modules are imported at the first call."""

    snapshot: Callable[[Params, Path], object] = _snapshot
    record: Record = _record
    check_tracker: Callable[[], None] = _check_tracker
    """Raises what `record` would raise at the end of a long run; TryAgain does not stop the run."""


@dataclass(frozen=True)
class Session:
    """One run. A deployment has the defaults; `run_once` hands over what it prepared before."""

    services: Services = Services()
    listener: Listener = field(default_factory=Silence)
    place: Workspace | None = None
    """A workspace that is open already; without one the flow opens, and closes, its own."""
    pending: PendingPlan | None = None
    """A plan that DVC is working on already."""
    retry_after_s: tuple[float, ...] = (10.0, 60.0, 300.0)
    """Waits before a stage that may succeed later is tried again."""


SESSION: ContextVar[Session] = ContextVar("stillroom_session")


def current() -> Session:
    """The session of this run, or a fresh one with the defaults."""
    return SESSION.get(None) or Session()
