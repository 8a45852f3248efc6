"""prefect.yaml, deployed to a real server and worked off by a real process worker."""

import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stillroom.registry import ledger, versions
from tests.flows.registered import register_two
from tests.flows.server import ROOT, environment, prefect_server, running
from tests.pipeline.project import STAGES, Project
from tests.registry.conftest import OTHERS_WARNINGS

pytestmark = [pytest.mark.serial, pytest.mark.slow, *(pytest.mark.filterwarnings(w) for w in OTHERS_WARNINGS)]

TOY_FLOW = '''"""The flow of this checkout with the services of the toy pipeline."""

import functools
from typing import Any

from prefect import flow

from flows.distil import distil as real
from flows.session import SESSION, Services, Session
from tests.pipeline.project import snapshot


@flow(name="distil", persist_result=False)
@functools.wraps(real.fn)
def distil(*arguments: Any, **keywords: Any) -> Any:
    SESSION.set(Session(Services(snapshot, lambda *a, **k: {"run_id": "toy"}), retry_after_s=()))
    return real.fn(*arguments, **keywords)
'''


class Server:
    """What a person does at a shell with PREFECT_API_URL set."""

    def __init__(self, project: Project, home: Path, api: str) -> None:
        self.project, self.home, self.api = project, home, api

    def prefect(self, *arguments: str, code: int = 0) -> str:
        """Run the Prefect command line."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=self.project.path,
            env={**environment(self.home, self.api), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the API, again where its database is busy."""
        from prefect.client.base import PrefectHttpxSyncClient

        with PrefectHttpxSyncClient(timeout=30) as client:
            return client.post(f"{self.api}/{path}", json=body).json()

    def flow_run(self) -> Any:
        """The newest flow run."""
        return self.post("flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]

    def wait_for(self, *states: str) -> Any:
        """Wait until the newest flow run is in one of the states."""
        deadline = time.monotonic() + 120
        while (found := self.flow_run())["state_name"] not in states:
            assert time.monotonic() < deadline, found["state"]
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the deployments of prefect.yaml and a process worker, in a toy checkout."""
    place = tmp_path_factory.mktemp("deployed")
    project = Project(place / "checkout")
    for name in ("flows", "prefect.yaml"):
        copy = functools.partial(shutil.copytree, ignore=shutil.ignore_patterns("__pycache__"))
        (copy if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, project.path / name)
    (project.path / "toy_flow.py").write_text(TOY_FLOW)
    told = (project.path / "prefect.yaml").read_text()
    (project.path / "prefect.yaml").write_text(told.replace("flows/distil.py:distil", "toy_flow.py:distil"))
    project.commit()
    with prefect_server(place / "home") as api:
        made = Server(project, place / "home", api)
        made.prefect("work-pool", "create", "stillroom", "--type", "process")
        made.prefect("--no-prompt", "deploy", "--all")
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "stillroom"]
        env = {**environment(made.home, api), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with running(worker, project.path, env, place / "worker.log"):
            yield made


def test_the_deployments_are_there_with_their_schedule_and_form(server: Server) -> None:
    found = {entry["name"]: entry for entry in server.post("deployments/filter", {})}
    assert set(found) == {"nightly", "adhoc", "promote", "rollback", "sentinel"}
    assert found["nightly"]["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert found["adhoc"]["schedules"] == []
    assert found["adhoc"]["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(server.project.path)}}
    ]
    form = found["adhoc"]["parameter_openapi_schema"]
    teacher = form["definitions"]["TeacherParamsOverride"]["properties"]
    assert teacher["epochs"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    promote = found["promote"]["parameter_openapi_schema"]
    assert set(promote["required"]) == {"version", "reason", "actor"}
    assert promote["properties"]["ask"]["default"] is False
    assert promote["properties"]["wait_s"]["minimum"] == 1


def test_the_server_refuses_a_wrong_override(server: Server) -> None:
    wrong = json.dumps({"teacher": {"epochs": -3}})
    told = server.prefect("deployment", "run", "distil/adhoc", "--param", f"overrides={wrong}", code=1)
    assert "overrides.teacher.epochs" in told
    assert "less than the minimum of 1" in told


def test_an_ad_hoc_run_with_an_override_reaches_its_verdict(server: Server) -> None:
    overrides = json.dumps({"students": {"small": {"dimensions": 48}}, "gate": {"retention": {"accuracy": 0.9}}})
    server.prefect("deployment", "run", "distil/adhoc", "--param", f"overrides={overrides}")
    run = server.wait_for("Completed", "Failed", "Crashed")
    assert run["state_name"] == "Completed", run["state"]
    assert "big passed the gate" in run["state"]["message"]
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = {task["name"]: task["state_name"] for task in server.post("task_runs/filter", of_run)}
    assert tasks == dict.fromkeys(["version data", *STAGES, "record run"], "Completed")
    artifacts = server.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    table = next(item["data"] for item in artifacts if item["key"] == "stillroom-result")
    assert "| **big** | PASS | accuracy |" in table
    assert server.project.git("status", "--porcelain") == ""


def test_a_promotion_that_asks_waits_for_the_form_and_then_promotes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(server.project.path)
    for name in ("STILLROOM_STATE", "STILLROOM_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    tracker = register_two(tmp_path)
    asked = {"version": "1", "reason": "for the fair", "actor": "ada", "ask": "true"}
    given = (word for name, value in asked.items() for word in ("--param", f"{name}={value}"))
    server.prefect("deployment", "run", "promote/promote", *given)
    run = server.wait_for("Paused", "Failed", "Crashed", "GateRefused")
    assert run["state_name"] == "Paused", run["state"]
    assert versions.model(tracker, "stillroom").champion is None
    answer = {"run_input": {"approver": "bob", "reason": "looked at it", "approve": True}}
    deadline = time.monotonic() + 60
    while server.post(f"flow_runs/{run['id']}/resume", answer)["status"] != "ACCEPT":
        assert time.monotonic() < deadline, "the form is put there a moment after the pause begins"
        time.sleep(0.5)
    assert server.wait_for("Completed", "Failed", "Crashed", "GateRefused")["state_name"] == "Completed"
    assert versions.model(tracker, "stillroom").champion == 1
    entry = ledger.read("stillroom", ledger.default_store())[-1]
    assert (entry.actor, entry.reason) == ("bob", "looked at it (asked by ada: for the fair)")


def test_a_cancelled_run_leaves_no_stage_behind(server: Server) -> None:
    workspaces = server.project.path / ".stillroom" / "workspaces"
    before = set(workspaces.glob("*"))
    server.project.behave(split={"sleep_s": 90})
    shutil.copy(server.project.path / "toy.json", server.project.path / "behaviour.json")
    patched = (server.project.path / "toy.py").read_text().replace('"toy.json"', '"behaviour.json"')
    (server.project.path / "toy.py").write_text(patched)
    server.prefect("deployment", "run", "distil/adhoc", "--param", 'overrides={"seed": 8}')
    deadline = time.monotonic() + 90
    while not (logs := [path / "executed.log" for path in set(workspaces.glob("*")) - before]) or not logs[0].exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stage = psutil.Process(int(logs[0].read_text().split()[1]))
    asked = time.monotonic()
    server.prefect("flow-run", "cancel", server.flow_run()["id"])
    server.wait_for("Cancelled")
    assert time.monotonic() - asked < 25
    assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
