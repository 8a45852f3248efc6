"""The main flow: version the data, bring every stage up to date, record the run, tell the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.form import Overrides, assignments
from flows.result import in_markdown, result_of
from flows.run import RunResult, run_once
from flows.session import Session, current
from flows.tasks import StageTasks, WholeTasks, service
from stillroom.errors import TryAgain
from stillroom.params_file import load_params
from stillroom.pipeline.listener import Chorus
from stillroom.pipeline.outcome import StageOutcome
from stillroom.pipeline.plan import Plan, make_plan, start_plan
from stillroom.pipeline.room import ensure_room
from stillroom.pipeline.runner import Mode, StageRunner
from stillroom.pipeline.versioning import push_results, version_data
from stillroom.pipeline.workspace import Workspace, open_workspace

__all__ = ["RunResult", "distil", "run_once"]

_NO_OVERRIDES = Overrides()


@flow(name="distil", persist_result=False)
def distil(
    params_file: str = "params.yaml",
    overrides: Overrides = _NO_OVERRIDES,
    workspace: str | None = None,
    mode: Mode = "per-stage",
) -> Any:
    """Distil, quantise, gate and register the students that params.yaml describes.

    Args:
        params_file: The run's parameters, in the format of params.yaml.
        overrides: Values that stand in for those of the file.
        workspace: A folder to run in; with changed parameters the default is one named by them.
        mode: One task that calls DVC per stage, or one streamed `dvc repro`.

    Returns a dictionary with the selected student, verdicts and run ids; the state is named GateRefused,
    and is no failure, where no student passed.
    """
    session = current()
    with _place(session, params_file, overrides, workspace) as place, place.as_environment():
        _check_tracker(session)
        plan = _versioned_plan(place, session)
        if plan.due:
            ensure_room(place)
        outcomes = _stages(place, plan, mode, session)
        executed = [outcome.address for outcome in outcomes if outcome.executed]
        if executed and place.params.registry.remote is not None:
            service("push", lambda: _push(place), session)
        recorded = service(
            "record run",
            lambda: session.services.record(place.path, place.params, outcomes, str(flow_run.name)),
            session,
        )
        result = result_of(place, executed, recorded)
    if executed:
        create_markdown_artifact(in_markdown(result), key="stillroom-result", description="Result of distil")
    get_run_logger().info("%s", result["told"])
    if result["selected"] is None:
        return Completed(name="GateRefused", message=str(result["told"]), data=result)
    return Completed(message=str(result["told"]), data=result)


def _check_tracker(session: Session) -> None:
    try:
        session.services.check_tracker()
    except TryAgain as error:
        get_run_logger().warning("%s; the run goes on; the next run records it if this one cannot", error)


@contextmanager
def _place(session: Session, params_file: str, overrides: Overrides, workspace: str | None) -> Iterator[Workspace]:
    if session.place is not None:
        yield session.place
        return
    params = load_params(Path(params_file), assignments(overrides))
    with open_workspace(Path.cwd(), params, Path(workspace) if workspace else None) as place:
        yield place


def _versioned_plan(place: Workspace, session: Session) -> Plan:
    """Version the data while DVC works on the plan; data that changed makes that plan void."""
    pending = session.pending or start_plan(place.path)
    try:
        version = service("version data", lambda: version_data(place, session.services.snapshot), session)
        if not version.changed:
            return pending.result()
    finally:
        pending.abandon()
    return make_plan(place.path)


def _stages(place: Workspace, plan: Plan, mode: Mode, session: Session) -> list[StageOutcome]:
    tasks = StageTasks(plan, session)
    if mode == "per-stage":
        runner = StageRunner(place, session.listener)
        return runner.run(plan, mode, tasks.per_stage(runner))
    whole = WholeTasks(tasks)
    try:
        return StageRunner(place, Chorus(whole, session.listener)).run(plan, mode)
    finally:
        whole.end()


def _push(place: Workspace) -> None:
    try:
        push_results(place)
    except TryAgain as error:
        get_run_logger().warning("%s; the results stand, the next run pushes them", error)
