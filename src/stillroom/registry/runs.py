"""Runs in MLflow: one parent per pipeline result, one child per stage result, looked up before created."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.registry.history import Point
from stillroom.registry.tracking import Tracker, artifacts_root, error_code, translated

RUN_TAG = "stillroom.run"
FINGERPRINT_TAG = "stage.fingerprint"
RESULT_TAG = "stage.result"
_PARENT_TAG = "mlflow.parentRunId"
_MAX_METRICS = 1000
_MAX_OTHERS = 100
_MAX_DIGEST = 36


@dataclass(frozen=True)
class Run:
    """A run as recording sees it. start_ms stamps every metric, so that logging again adds nothing."""

    run_id: str
    experiment_id: str
    finished: bool
    start_ms: int


@dataclass(frozen=True)
class Input:
    """A data set that a run read. digest: hex, shortened to what MLflow holds; context: train, test, …"""

    name: str
    digest: str
    context: str
    source: Mapping[str, Any]
    rows: int


def experiment(tracker: Tracker, name: str) -> str:
    """Id of the experiment, created or restored; without a server its artefacts go to the state folder."""
    client = tracker.client
    with translated(tracker.uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            server = tracker.uri.startswith(("http://", "https://"))
            try:
                location = None if server else artifacts_root().as_uri()
                return str(client.create_experiment(name, artifact_location=location))
            except Exception as error:
                if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def find(tracker: Tracker, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    """The earliest run that has all these tags; MLflow keeps nothing unique, so the earliest is the one."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    with translated(tracker.uri):
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = tracker.client.search_runs([experiment_id], query, order_by=order, max_results=1)
    return _plain(found[0]) if found else None


def find_or_create(
    tracker: Tracker,
    experiment_id: str,
    identity: Mapping[str, str],
    *,
    name: str,
    start_ms: int,
    tags: Mapping[str, str],
    parent: str | None = None,
) -> Run:
    """The run with this identity (tags that name it); an earlier run made at the same time wins."""
    found = find(tracker, experiment_id, identity)
    if found is not None:
        return found
    nested = {} if parent is None else {_PARENT_TAG: parent}
    with translated(tracker.uri):
        created = _plain(
            tracker.client.create_run(
                experiment_id, start_time=start_ms, run_name=name, tags={**tags, **nested, **identity}
            )
        )
    first = find(tracker, experiment_id, identity) or created
    if first.run_id != created.run_id:
        with translated(tracker.uri):
            tracker.client.delete_run(created.run_id)
    return first


def log(
    tracker: Tracker,
    run: Run,
    *,
    params: Mapping[str, str] | None = None,
    points: Sequence[Point] = (),
    tags: Mapping[str, str] | None = None,
    model_id: str | None = None,
) -> None:
    """Log in batches; points are also tied to a logged model where one is named."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(point.key, point.value, run.start_ms, point.step, model_id=model_id) for point in points]
    listed = [Param(name, value) for name, value in (params or {}).items()]
    labels = [RunTag(name, value) for name, value in (tags or {}).items()]
    with translated(tracker.uri):
        for start in range(0, len(listed), _MAX_OTHERS):
            tracker.client.log_batch(run.run_id, params=listed[start : start + _MAX_OTHERS])
        for start in range(0, len(labels), _MAX_OTHERS):
            tracker.client.log_batch(run.run_id, tags=labels[start : start + _MAX_OTHERS])
        for start in range(0, len(metrics), _MAX_METRICS):
            tracker.client.log_batch(run.run_id, metrics=metrics[start : start + _MAX_METRICS])


def log_inputs(tracker: Tracker, run: Run, inputs: Sequence[Input]) -> None:
    """Say which data the run read; the same input twice is stored once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    listed = [
        DatasetInput(
            Dataset(
                name=item.name,
                digest=item.digest[:_MAX_DIGEST],
                source_type="stillroom",
                source=json.dumps(dict(item.source)),
                profile=json.dumps({"num_rows": item.rows}),
            ),
            tags=[InputTag("mlflow.data.context", item.context)],
        )
        for item in inputs
    ]
    with translated(tracker.uri):
        tracker.client.log_inputs(run.run_id, datasets=listed)


def log_files(tracker: Tracker, run: Run, paths: Mapping[Path, str | None]) -> None:
    """Upload files and folders, each to a folder of its artefacts (None: the top); skip absent ones."""
    with translated(tracker.uri):
        for path, folder in paths.items():
            if path.is_dir():
                tracker.client.log_artifacts(run.run_id, str(path), folder)
            elif path.is_file():
                tracker.client.log_artifact(run.run_id, str(path), folder)


def finish(tracker: Tracker, run: Run, end_ms: int) -> None:
    """Close a run: everything about it is logged."""
    with translated(tracker.uri):
        tracker.client.set_terminated(run.run_id, "FINISHED", end_time=max(end_ms, run.start_ms))


def is_finished(tracker: Tracker, run_id: str) -> bool:
    """Whether a run is there, not deleted, and complete."""
    with translated(tracker.uri):
        try:
            info = tracker.client.get_run(run_id).info
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
    return bool(info.status == "FINISHED" and info.lifecycle_stage == "active")


def _plain(found: Any) -> Run:
    info = found.info
    return Run(info.run_id, info.experiment_id, info.status == "FINISHED", int(info.start_time))
