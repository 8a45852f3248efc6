"""Record a run of the pipeline: runs and curves in MLflow, versions, the champion through the ledger.

The files of the workspace are the truth and MLflow is a picture of them: what is missing there is filled in
from disk, what is there already is left alone.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom import layout
from stillroom.errors import TryAgain
from stillroom.files import read_json
from stillroom.gate.approval import recorded as approval_asked
from stillroom.gate.change import Change
from stillroom.params import Params
from stillroom.registry import approval, history, ledger, marker, origin, promotion, register, runs, versions
from stillroom.registry.comparison import change_since, forget_change
from stillroom.registry.marker import RecordedRun
from stillroom.registry.register import Release
from stillroom.registry.runs import Run
from stillroom.registry.tracking import Tracker, connect

if TYPE_CHECKING:
    from stillroom.pipeline.outcome import StageOutcome

_TURN_S = 120.0

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class _Runs:
    """The parent run, and the run of each stage by address."""

    parent: Run
    stages: Mapping[str, Run]


def record_run(workspace: Path, params: Params, stages: Sequence["StageOutcome"], run_name: str) -> RecordedRun:
    """Record what a workspace holds after its pipeline ran; with the same results again, change nothing.

    Raises TryAgain when the tracking store is down or locked, InputError when it is damaged or the workspace
    is not complete. No stage depends on this: the next call makes up for one that failed.
    """
    fingerprints = [(stage.address, stage.fingerprint) for stage in stages]
    key = marker.key(params.registry, fingerprints, workspace / layout.SUMMARY)
    known = marker.recall(key)
    if known is not None:
        return known
    with _turn():
        tracker = connect()
        logged = _log_runs(tracker, workspace, params, stages, key, run_name)
        recorded = _record_versions(tracker, workspace, params, logged)
        marker.remember(key, recorded)
    return recorded


def _log_runs(
    tracker: Tracker,
    workspace: Path,
    params: Params,
    stages: Sequence["StageOutcome"],
    key: str,
    run_name: str,
) -> _Runs:
    started = [stage.receipt.started_at for stage in stages if stage.executed and stage.receipt]
    parent = runs.find_or_create(
        tracker,
        runs.experiment(tracker, params.registry.experiment),
        {runs.RUN_TAG: key},
        name=run_name,
        start_ms=int(1000 * min(started, default=time.time())),
        tags=origin.tags(workspace),
    )
    logged = _Runs(
        parent,
        {stage.address: _log_stage(tracker, workspace, params, stage, parent) for stage in stages if stage.fingerprint},
    )
    if not parent.finished:
        summary = read_json(workspace / layout.SUMMARY)
        links = {f"stage.{address.replace('@', '.')}": run.run_id for address, run in logged.stages.items()}
        figures = {"teacher": summary.get("teacher", {}), **summary.get("students", {})}
        runs.log_inputs(tracker, parent, origin.inputs(workspace))
        runs.log_files(tracker, parent, origin.files(workspace))
        runs.log(
            tracker,
            parent,
            params=history.flat(params.model_dump(mode="json")),
            points=list(history.numbers(figures)),
            tags=links | {"selected": str(summary.get("selected") or "none")} | origin.note(summary),
        )
    return logged


def _log_stage(tracker: Tracker, workspace: Path, params: Params, stage: "StageOutcome", parent: Run) -> Run:
    told = history.told(workspace, stage.address)
    receipt = stage.receipt if stage.executed else None
    start_ms = int(1000 * (receipt.started_at if receipt else time.time()))
    run = runs.find_or_create(
        tracker,
        parent.experiment_id,
        {runs.FINGERPRINT_TAG: stage.fingerprint, runs.RESULT_TAG: told.result},
        name=stage.address,
        start_ms=start_ms,
        tags={"stage.name": stage.address, "stage.told_by": "execution" if receipt else "files"},
        parent=parent.run_id,
    )
    if run.finished:
        return run
    points, end_ms = list(told.points), start_ms
    if receipt:
        end_ms = int(1000 * (receipt.ended_at or receipt.started_at))
        spent = {
            "seconds": stage.seconds,
            "cpu_s": receipt.cpu_s,
            "peak_memory_bytes": receipt.peak_memory_bytes,
        }
        points += history.numbers(spent)
        if not told.points:
            points += history.numbers(receipt.metrics)
    runs.log(tracker, run, params=history.stage_params(params, stage.address), points=points, tags=told.tags)
    _log_trials(tracker, run, stage.address, history.trials(workspace, stage.address))
    runs.finish(tracker, run, end_ms)
    return run


def _log_trials(tracker: Tracker, stage_run: Run, address: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """A run below the stage's for every student that its search tried."""
    for trial in trials:
        run = runs.find_or_create(
            tracker,
            stage_run.experiment_id,
            {"trial.of": stage_run.run_id, "trial.name": trial["name"]},
            name=f"{address} {trial['name']}",
            start_ms=stage_run.start_ms,
            tags={
                "stage.name": address,
                "trial.lacks": "; ".join(trial["lacks"]) or "nothing",
                "trial.chosen": str(trial["chosen"]).lower(),
            },
            parent=stage_run.run_id,
        )
        if not run.finished:
            points = [*history.numbers(trial["measured"]), *history.numbers({"retention": trial["retention"]})]
            runs.log(tracker, run, params=history.flat(trial["settings"]), points=points)
            runs.finish(tracker, run, stage_run.start_ms)


def _record_versions(tracker: Tracker, workspace: Path, params: Params, logged: _Runs) -> RecordedRun:
    model = params.registry.model
    summary = read_json(workspace / layout.SUMMARY)
    releases = [register.read_release(workspace / layout.RELEASE / name, name) for name in summary["students"]]
    numbers = {release.student: _register(tracker, workspace, model, release, logged) for release in releases}
    best = register.challenger(releases, summary.get("selected"))
    forget_change(workspace)
    change = waits = None
    if best is not None:
        register.point_challenger(tracker, model, numbers[best.student])
        champion = promotion.reconcile(model, tracker=tracker).champion
        if champion is not None and champion != numbers[best.student]:
            change = change_since(tracker, workspace, model, champion, best, params.gate.confidence)
            _log_change(tracker, workspace, logged.parent, change)
        if best.student == summary.get("selected") and best.verdict == "PASS":
            waits = _promote(tracker, params, best, numbers[best.student], champion, change)
    if not logged.parent.finished:
        tags = {f"version.{student}": str(number) for student, number in numbers.items()}
        runs.log(tracker, logged.parent, tags=tags)
        runs.finish(tracker, logged.parent, int(1000 * time.time()))
    state = versions.model(tracker, model)
    return RecordedRun(
        tracking_uri=tracker.name,
        experiment_id=logged.parent.experiment_id,
        run_id=logged.parent.run_id,
        model=model,
        versions=numbers,
        challenger=state.aliases.get(versions.CHALLENGER),
        champion=state.champion,
        change=change.in_words() if change else None,
        waits=waits,
    )


def _log_change(tracker: Tracker, workspace: Path, parent: Run, change: Change | None) -> None:
    if change is not None and not parent.finished:
        runs.log(tracker, parent, points=list(history.numbers({"change": change.model_dump(exclude={"classes"})})))
        runs.log_files(tracker, parent, {workspace / layout.CHANGE: None, workspace / layout.CHANGE_PAGE: "report"})


def _register(tracker: Tracker, workspace: Path, model: str, release: Release, logged: _Runs) -> int:
    evaluation = read_json(workspace / layout.EVALUATIONS / release.student / "evaluation.json")
    author = approval.author()
    return register.register(
        tracker,
        model,
        release,
        logged.stages.get(f"evaluate@{release.student}", logged.parent),
        history.measured(evaluation),
        {runs.RUN_TAG: logged.parent.run_id, **({versions.AUTHOR_TAG: author} if author else {})},
    )


def _promote(
    tracker: Tracker, params: Params, best: Release, number: int, champion: int | None, change: Change | None
) -> str | None:
    """Promote a student that passed, but only once: the same result again must not undo a rollback, nor crown what
    was withdrawn.

    Returns what is told of one that needs a person's approval, and so stays challenger.
    """
    if champion == number:
        return None
    model, store = params.registry.model, ledger.default_store()
    entries = ledger.read(model, store)
    reigned = [entry.sequence for entry in entries if entry.evidence == (best.digest, best.gate_sha256)]
    held = f"was champion before (ledger entry {reigned[-1]})" if reigned else ""
    if champion is not None:
        held = held or _why_held(params.gate.max_flip_rate, change)
    if held:
        stays = f"version {champion} stays champion" if champion else "there is no champion"
        told = "%s: version %d passed and %s; %s; `stillroom promote` makes it champion"
        log.warning(told, model, number, held, stays)
        return None
    asked = approval_asked(best.gate)
    if asked.required:
        waits = f"version {number} {approval.waits(number, asked)}"
        log.info("%s: %s", model, waits)
        return waits
    promotion.promote(model, number, approval.RUN, f"{best.student} passed the gate", tracker=tracker, store=store)
    return None


def _why_held(limit: float | None, change: Change | None) -> str:
    """Why a student that changes too much does not take a champion's place by itself; empty where it may."""
    if limit is None:
        return ""
    if change is None:
        return f"what it changes is not known, and max_flip_rate is {limit:g}"
    flips = change.flips.point
    return f"changes {flips:.2%} of the test answers, max_flip_rate is {limit:.2%}" if flips > limit else ""


@contextmanager
def _turn() -> Iterator[None]:
    """One recording at a time on this machine, so that look-up and creation are one step."""
    from filelock import FileLock, Timeout

    path = layout.state() / "locks" / "record.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=_TURN_S):
            yield
    except Timeout as error:
        raise TryAgain(f"{path}: another run is being recorded; try again") from error
