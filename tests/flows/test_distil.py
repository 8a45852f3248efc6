"""The flow on the toy pipeline, against a real Prefect server."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.run import RunResult, run_once
from flows.session import Services
from stillroom.errors import InputError
from stillroom.params import Params
from stillroom.pipeline.listener import Silence
from stillroom.pipeline.outcome import StageOutcome
from stillroom.pipeline.runner import Mode
from stillroom.registry import tracking
from tests.pipeline.project import STAGES, Project, snapshot
from tests.registry.test_tracking import server as serving

pytestmark = [pytest.mark.serial, pytest.mark.usefixtures("prefect_server")]


class Recorder:
    """Stands in for the tracker."""

    def __init__(self) -> None:
        self.seen: list[dict[str, bool]] = []

    def __call__(
        self, workspace: Path, params: Params, stages: Sequence[StageOutcome], run_name: str
    ) -> dict[str, str]:
        assert os.environ["STILLROOM_STATE"]
        self.seen.append({stage.address: stage.executed for stage in stages})
        return {"run_id": run_name}


def run(
    project: Project, *overrides: str, mode: Mode = "per-stage", recorder: Recorder | None = None, **more: Any
) -> RunResult:
    services = more.pop("services", None) or Services(snapshot, recorder or Recorder())
    given = {"listener": Silence(), "retry_after_s": (0.1, 0.1), **more}
    return run_once(None, overrides, mode=mode, root=project.path, services=services, **given)


def of_last_run() -> dict[str, Any]:
    """What the server knows of the newest flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, LogFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        only = FlowRunFilter.model_validate({"id": {"any_": [newest.id]}})
        tasks = sorted(client.read_task_runs(flow_run_filter=only), key=lambda found: found.start_time)
        logs = client.read_logs(LogFilter.model_validate({"flow_run_id": {"any_": [newest.id]}}))
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter.model_validate({"flow_run_id": {"any_": [newest.id]}})
        )
    return {
        "state": newest.state.name,
        "tasks": {task.name: (task.state.name, task.run_count) for task in tasks},
        "logs": [log.message for log in logs],
        "artifacts": {(artifact.type, artifact.key) for artifact in artifacts},
    }


def test_a_run_then_a_run_with_nothing_to_do(project: Project) -> None:
    recorder = Recorder()
    first = run(project, recorder=recorder)
    assert (first.exit_code, first.error, first.workspace) == (0, None, project.path)
    assert first.result is not None
    assert first.result["selected"] == "big"
    assert first.result["executed"] == list(STAGES)
    assert project.executed() == sorted(STAGES)
    seen = of_last_run()
    assert seen["state"] == "Completed"
    assert list(seen["tasks"]) == ["version data", *STAGES, "record run"]
    assert set(seen["tasks"].values()) == {("Completed", 1)}
    assert "toy: working on teach, key none" in seen["logs"]
    assert seen["artifacts"] >= {("progress", None), ("markdown", "stillroom-result")}
    assert "up to date" in project.dvc("repro")
    again = run(project, recorder=recorder)
    assert (again.exit_code, project.executed()) == (0, [])
    assert again.result is not None
    assert again.result["executed"] == []
    seen = of_last_run()
    assert [seen["tasks"][name] for name in STAGES] == [("Cached", 1)] * len(STAGES)
    assert recorder.seen == [dict.fromkeys(STAGES, True), dict.fromkeys(STAGES, False)]


def test_whole_mode_after_repro_runs_what_an_override_touches_and_leaves_the_checkout_clean(
    project: Project,
) -> None:
    project.snapshot()
    project.dvc("repro")
    project.executed()
    project.commit()
    ended = run(project, "students.small.dimensions=48", mode="whole")
    assert ended.exit_code == 0
    assert ended.result is not None
    assert ended.result["executed"] == ["distil@small", "evaluate@small", "select"]
    assert ended.workspace is not None
    assert project.executed(ended.workspace) == ["distil@small", "evaluate@small", "select"]
    assert project.git("status", "--porcelain") == ""
    seen = of_last_run()
    assert sorted(seen["tasks"]) == sorted(["version data", *STAGES, "record run"])
    assert seen["tasks"]["teach"] == ("Cached", 1)
    assert seen["tasks"]["select"] == ("Completed", 1)
    assert "toy: working on select, key none" in seen["logs"]


def test_nobody_passing_is_a_result_with_an_exit_code(project: Project) -> None:
    ended = run(project, "gate.retention.accuracy=0.99", mode="whole")
    assert ended.exit_code == 3
    assert ended.result is not None
    assert ended.result["selected"] is None
    assert ended.result["verdicts"] == {"big": "FAIL", "small": "FAIL"}
    assert of_last_run()["state"] == "GateRefused"


def test_what_may_succeed_later_and_what_was_killed_is_tried_again(project: Project) -> None:
    project.behave(split={"once_exit": 75}, teach={"once_kill": True})
    ended = run(project)
    assert ended.exit_code == 0
    seen = of_last_run()
    assert seen["tasks"]["split"] == ("Completed", 2)
    assert seen["tasks"]["teach"] == ("Completed", 2)


@pytest.mark.parametrize("mode", ["per-stage", "whole"])
def test_what_fails_for_good_is_not_tried_again(project: Project, mode: Mode) -> None:
    project.behave(teach={"exit": 65})
    ended = run(project, mode=mode)
    assert (ended.exit_code, ended.error) == (65, "teach: told to end with 65")
    assert "working on teach" in ended.notes[0]
    seen = of_last_run()
    assert (seen["state"], seen["tasks"]["teach"]) == ("Failed", ("Failed", 1))
    assert project.executed() == ["split", "teach"]
    with project.open():
        pass


def test_a_stage_killed_twice_fails(project: Project) -> None:
    project.behave(split={"kill": True})
    ended = run(project)
    assert ended.exit_code == 1
    assert ended.error is not None
    assert "killed" in ended.error
    assert of_last_run()["tasks"]["split"] == ("Failed", 2)


@pytest.mark.parametrize("mode", ["per-stage", "whole"])
def test_a_tracking_server_that_is_down_stops_no_stage(
    project: Project, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    class Online(Recorder):
        """Records where the server answers."""

        def __call__(self, *given: Any, **named: Any) -> dict[str, str]:
            tracking.probe(tracking.tracking_uri())
            return super().__call__(*given, **named)

    recorder = Online()
    services = Services(snapshot, recorder)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setenv(tracking.URI_VARIABLE, f"http://someone:hunter2@{address}")
        ended = run(project, services=services, mode=mode)
    assert ended.exit_code == 75
    assert ended.error is not None
    assert ended.error.startswith(f"http://someone:***@{address}: MLflow is not to be reached")
    assert project.executed() == sorted(STAGES)
    assert recorder.seen == []
    warnings = [line for line in of_last_run()["logs"] if "the run goes on; the next run records it" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"http://someone:***@{address}: MLflow is not to be reached")
    assert "\n" not in warnings[0]
    with serving(200) as uri:
        monkeypatch.setenv(tracking.URI_VARIABLE, uri)
        again = run(project, services=services, mode=mode)
    assert again.exit_code == 0
    assert project.executed() == []
    assert recorder.seen == [dict.fromkeys(STAGES, False)]
    assert not any("the run goes on" in line for line in of_last_run()["logs"])


def test_a_damaged_tracking_database_stops_the_run_at_its_start(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"no database" * 1000)
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{database}")
    ended = run(project)
    assert ended.exit_code == 2
    assert ended.error is not None
    assert "damaged" in ended.error
    assert not (project.path / "executed.log").exists()


def test_a_busy_workspace_is_told_with_its_owner(project: Project) -> None:
    with project.open():
        ended = run(project)
    assert ended.exit_code == 75
    assert ended.error is not None
    assert f"process {os.getpid()}" in ended.error


@pytest.mark.parametrize(
    ("override", "words"),
    [("teacher.epochs=-3", "teacher.epochs is -3"), ("teachers=1", "did you mean teacher")],
)
def test_wrong_params_end_before_anything_starts(project: Project, override: str, words: str) -> None:
    ended = run(project, override)
    assert ended.exit_code == 2
    assert ended.error is not None
    assert words in ended.error
    assert not (project.path / ".stillroom").exists()


def test_wrong_data_leaves_no_workspace_behind(project: Project) -> None:
    def refuse(params: Params, workspace: Path) -> None:
        raise InputError("data.source: rows.csv has no column label")

    ended = run(project, "seed=5", services=Services(refuse, Recorder()))
    assert (ended.exit_code, ended.error) == (2, "data.source: rows.csv has no column label")
    assert list((project.path / ".stillroom" / "workspaces").iterdir()) == []


@pytest.mark.parametrize("trouble", ["disk", "tracker"])
def test_what_would_fail_late_is_refused_early(project: Project, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    def refuse(*_: object) -> None:
        raise InputError("no room")

    recorder = Recorder()
    if trouble == "disk":
        monkeypatch.setattr("flows.distil.ensure_room", refuse)
    services = Services(snapshot, recorder, refuse if trouble == "tracker" else lambda: None)
    ended = run(project, "seed=5", services=services)
    assert (ended.exit_code, ended.error) == (2, "no room")
    assert list((project.path / ".stillroom" / "workspaces").iterdir()) == []
    assert not (project.path / "executed.log").exists()
    assert recorder.seen == []


def test_a_run_that_has_nothing_to_do_needs_no_room(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(project).exit_code == 0
    monkeypatch.setattr("stillroom.data.sources.disk.free_bytes", lambda folder: 0)
    assert run(project).exit_code == 0


def test_prefect_keeps_and_decides_nothing() -> None:
    from prefect.cache_policies import NO_CACHE

    from flows import tasks
    from flows.distil import distil

    for task in (tasks._stage, tasks._service):
        assert task.cache_policy == NO_CACHE
        assert task.persist_result is False
    assert distil.persist_result is False


@pytest.mark.slow
@pytest.mark.parametrize("server", ["", "http://127.0.0.1:9/api", "too slow"])
def test_without_a_server_it_starts_its_own_and_a_dead_one_is_worth_another_try(
    project: Project, tmp_path: Path, server: str
) -> None:
    code = (
        "import json\nfrom flows.run import run_once\nfrom flows.session import Services\n"
        "from tests.pipeline.project import snapshot\n"
        "ended = run_once(services=Services(snapshot, lambda *a, **k: {}))\n"
        "print(json.dumps([ended.exit_code, ended.error]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    root = Path(__file__).parents[2]
    environment |= {"PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": f"{root / 'src'}:{root}"}
    if server == "too slow":
        environment |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0"}
    elif server:
        environment |= {"PREFECT_API_URL": server, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    exit_code, error = json.loads(done.stdout.splitlines()[-1])
    if server:
        assert exit_code == 75
        assert ("PREFECT_API_URL", "own server did not start")[server == "too slow"] in error
    else:
        assert (exit_code, error) == (0, None)
        lines = done.stderr.splitlines()
        assert [line[0] for line in lines] == ["✓"] * len(STAGES), done.stderr
        assert project.executed() == sorted(STAGES)
