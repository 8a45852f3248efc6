"""DVC dies with its parent, and takes its stage along whatever shell stands between them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from stillroom.pipeline.command import child_environment, dvc_command
from tests.pipeline.project import Project


def wait_for_stage(project: Project) -> psutil.Process:
    log = project.path / "executed.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(log.read_text().split()[1]))


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_sigterm_ends_the_stage_and_frees_the_paths(ready: Project, shell: str) -> None:
    if not os.access(shell, os.X_OK):
        pytest.skip(f"no {shell} here")
    ready.behave(split={"sleep_s": 60})
    environment = child_environment(ready.path, {"SHELL": shell})
    dvc = subprocess.Popen(
        dvc_command("repro", "--single-item", "split"), cwd=ready.path, env=environment, process_group=0
    )
    stage = wait_for_stage(ready)
    dvc.send_signal(signal.SIGTERM)
    assert dvc.wait(timeout=15) == 128 + signal.SIGTERM
    psutil.wait_procs([stage], timeout=5)
    assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
    assert '"pid"' not in (ready.path / ".dvc" / "tmp" / "rwlock").read_text()


def test_a_parent_that_is_gone_already_is_noticed(ready: Project) -> None:
    command = [sys.executable, "-m", "stillroom.pipeline.child", "1", "status"]
    done = subprocess.run(command, cwd=ready.path, env=child_environment(ready.path), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"")
