"""How DVC is called."""

import os
import sys
from pathlib import Path

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.pipeline.command import call_dvc, child_environment, failure, start_dvc
from tests.pipeline.project import Project


def test_a_stage_sees_an_allowlist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "GITHUB_TOKEN": "secret",
        "PREFECT_API_KEY": "secret",
        "AWS_ACCESS_KEY_ID": "id",
        "MLFLOW_TRACKING_URI": "http://x",
        "https_proxy": "http://proxy",
        "STILLROOM_REEXECUTED": "/elsewhere",
        "DVC_STAGE": "outer",
        "PYTHONPATH": "/given",
    }.items():
        monkeypatch.setenv(name, value)
    seen = child_environment(tmp_path, {"STILLROOM_STATE": "/state"})
    assert not {"GITHUB_TOKEN", "PREFECT_API_KEY", "STILLROOM_REEXECUTED", "DVC_STAGE"} & set(seen)
    assert (seen["AWS_ACCESS_KEY_ID"], seen["https_proxy"]) == ("id", "http://proxy")
    assert seen["STILLROOM_STATE"] == "/state"
    assert seen["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert seen["PYTHONPATH"].split(os.pathsep)[:2] == [str(tmp_path / "src"), "/given"]


def test_dvc_is_this_interpreters_whatever_path_says(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Path(call_dvc(project.path, "cache", "dir").strip()) == project.path / ".dvc" / "cache"


def test_an_answer_that_nobody_wants_is_abandoned(project: Project) -> None:
    pending = start_dvc(project.path, "status")
    pending.abandon()
    assert pending.process.returncode is not None
    pending.abandon()


def test_the_trouble_of_dvc_is_one_line(project: Project) -> None:
    with pytest.raises(InputError, match="dvc status nowhere failed") as caught:
        call_dvc(project.path, "status", "nowhere")
    assert "\n" not in str(caught.value)
    busy = failure(("push",), project.path, "ERROR: '/x' is busy, it is being blocked by:\n  (PID 7): dvc")
    assert isinstance(busy, TryAgain)
    assert str(failure(("push",), project.path, "")).endswith("it printed nothing")
