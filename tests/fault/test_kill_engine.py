"""SIGKILL to the flow, to DVC or to a stage: nothing is left running, and either engine finishes the work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.flows.server import environment, prefect_server
from tests.pipeline.project import STAGES, Project
from tests.pipeline.project import environment as by_hand

pytestmark = [pytest.mark.serial, pytest.mark.slow]

FLOW = """
import json, sys
from flows.run import run_once
from flows.session import Services
from tests.pipeline.project import snapshot
ended = run_once(mode=sys.argv[1], services=Services(snapshot, lambda *a, **k: {}), retry_after_s=(0.1,))
print(json.dumps([ended.exit_code, ended.error]))
"""
VICTIM = "distil@big"
AFTER = ["distil@big", "distil@small", "evaluate@big", "evaluate@small", "select"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as address:
        yield address


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = Project(tmp_path / "checkout")
    made.snapshot()
    return made


class Flow:
    """One run of the flow as a process."""

    def __init__(self, project: Project, api: str | None, mode: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FLOW, mode],
            cwd=project.path,
            env={**environment(project.path.parent / "home", api), "STILLROOM_WORKERS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str | None]:
        printed, _ = self.process.communicate(timeout=180)
        exit_code, error = json.loads(printed.splitlines()[-1])
        return exit_code, error


def start_repro(project: Project) -> subprocess.Popen[str]:
    """`dvc repro` as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project.path,
        env=by_hand(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stage_pid(project: Project, stage: str) -> int:
    """Wait until a stage is at work; its process id."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = project.path / "executed.log"
        for line in log.read_text().splitlines() if log.is_file() else []:
            name, pid = line.split()
            if name == stage:
                return int(pid)
        time.sleep(0.02)
    raise AssertionError(f"{stage} never started")


def at_work(project: Project) -> list[str]:
    """Processes whose current folder is the checkout, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == project.path:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def assert_nothing_left(project: Project) -> None:
    deadline = time.monotonic() + 10
    while left := at_work(project):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def assert_complete(project: Project) -> None:
    assert sorted(project.lock()) == sorted(STAGES)
    assert "up to date" in project.dvc("status")
    assert project.executed() == []
    assert not list(project.path.rglob("*.tmp"))
    assert json.loads((project.path / "reports/summary.json").read_text())["selected"] == "big"


@pytest.mark.parametrize("mode", ["per-stage", "whole"])
def test_a_killed_flow_leaves_no_process_and_dvc_repro_finishes(project: Project, api: str, mode: str) -> None:
    project.behave(distil_big={"sleep_s": 60})
    flow = Flow(project, api, mode)
    stage_pid(project, VICTIM)
    flow.process.kill()
    flow.process.communicate()
    assert_nothing_left(project)
    assert project.executed() == ["distil@big", "split", "teach"]
    project.behave()
    project.dvc("repro")
    assert project.executed() == AFTER
    assert_complete(project)


def test_a_killed_flow_is_finished_by_the_next_flow_at_once(project: Project, api: str) -> None:
    project.behave(distil_big={"sleep_s": 60})
    flow = Flow(project, api, "per-stage")
    stage_pid(project, VICTIM)
    project.behave()
    flow.process.kill()
    flow.process.communicate()
    project.executed()
    assert Flow(project, api, "per-stage").end() == (0, None)
    assert project.executed() == AFTER
    assert_complete(project)


def test_a_dvc_killed_under_the_flow_is_tried_again_without_a_second_copy(project: Project, api: str) -> None:
    project.behave(distil_big={"sleep_s": 60})
    flow = Flow(project, api, "per-stage")
    stage = psutil.Process(stage_pid(project, VICTIM))
    project.behave()
    os.kill(stage.ppid(), signal.SIGKILL)
    assert flow.end() == (0, None)
    assert not stage.is_running()
    assert project.executed() == sorted([*STAGES, VICTIM])
    assert_complete(project)


@pytest.mark.parametrize("victim", ["dvc", "stage"])
def test_what_is_killed_under_dvc_repro_is_finished_by_the_flow(project: Project, api: str, victim: str) -> None:
    project.behave(distil_big={"sleep_s": 60})
    repro = start_repro(project)
    pid = stage_pid(project, VICTIM)
    os.kill(pid if victim == "stage" else repro.pid, signal.SIGKILL)
    repro.communicate(timeout=60)
    assert repro.returncode != 0
    assert_nothing_left(project)
    project.executed()
    project.behave()
    assert Flow(project, api, "per-stage").end() == (0, None)
    assert project.executed() == AFTER
    assert_complete(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_flow_ends_its_stage_and_gives_the_workspace_back(
    project: Project, api: str, number: signal.Signals
) -> None:
    project.behave(distil_big={"sleep_s": 60})
    flow = Flow(project, api, "per-stage")
    stage_pid(project, VICTIM)
    flow.process.send_signal(number)
    exit_code, error = flow.end()
    assert exit_code == 130
    assert error is not None
    assert_nothing_left(project)
    with project.open():
        pass


def test_a_terminated_run_takes_its_own_prefect_server_along(project: Project) -> None:
    project.behave(distil_big={"sleep_s": 60})
    flow = Flow(project, None, "per-stage")
    stage_pid(project, VICTIM)
    servers = [child for child in psutil.Process(flow.process.pid).children() if "uvicorn" in " ".join(child.cmdline())]
    assert servers
    flow.process.send_signal(signal.SIGTERM)
    assert flow.end()[0] == 130
    _, alive = psutil.wait_procs(servers, timeout=30)
    assert not alive


def test_a_second_run_in_the_same_workspace_is_told_to_wait(project: Project, api: str) -> None:
    project.behave(distil_big={"sleep_s": 4})
    first = Flow(project, api, "per-stage")
    stage_pid(project, VICTIM)
    exit_code, error = Flow(project, api, "per-stage").end()
    assert exit_code == 75
    assert error is not None
    assert f"process {first.process.pid}" in error
    assert first.end() == (0, None)
    assert project.executed() == sorted(STAGES)
