"""One owner at a time, and what a killed one leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stillroom.errors import TryAgain
from stillroom.pipeline.ownership import OWNER_VARIABLE, Ownership
from tests.pipeline.project import SOURCE, Project


@pytest.mark.parametrize("own", [False, True])
def test_a_workspace_has_one_owner(project: Project, tmp_path: Path, own: bool) -> None:
    place = tmp_path / "away" if own else None
    with (
        project.open(place),
        pytest.raises(TryAgain, match=rf"process {os.getpid()}\) is at work here") as caught,
    ):
        project.open(place)
    assert caught.value.exit_code == 75
    with project.open(place):
        pass


def test_a_killed_owner_gives_its_workspace_back(project: Project) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom stillroom.params_file import load_params\n"
        "from stillroom.pipeline.workspace import open_workspace\n"
        "open_workspace(Path.cwd(), load_params(Path('params.yaml')), None)\nos.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], cwd=project.path, env=environment, check=False)
    assert done.returncode == -9
    assert (project.path / ".stillroom" / "owner.json").is_file()
    with project.open():
        owner = json.loads((project.path / ".stillroom" / "owner.json").read_text())
        assert owner["pid"] == os.getpid()


def test_a_stranger_in_the_rwlock_is_forgotten_and_a_living_dvc_respected(project: Project) -> None:
    path = project.path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"read": {"/x": [{"pid": 1, "cmd": "dvc repro"}]}, "write": {}}))
    with project.open():
        assert json.loads(path.read_text()) == {}
    path.write_text("not json")
    with project.open():
        assert json.loads(path.read_text()) == {}
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc", "repro"])
    try:
        path.write_text(json.dumps({"write": {"/x": {"pid": sleeper.pid, "cmd": "dvc repro"}}}))
        with pytest.raises(TryAgain, match=rf"DVC \(process {sleeper.pid}\)"):
            project.open()
    finally:
        sleeper.kill()
        sleeper.wait()
    with project.open():
        pass


def test_what_a_killed_owner_started_is_ended_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.pipeline.ownership._PATIENCE_S", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    environment = {**os.environ, OWNER_VARIABLE: "the-token-of-the-killed"}
    with subprocess.Popen([sys.executable, "-c", deaf], env=environment, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        left.stdout.readline()
        note = tmp_path / ".stillroom" / "owner.json"
        note.parent.mkdir()
        note.write_text(json.dumps({"pid": 1, "token": "the-token-of-the-killed"}))
        ownership = Ownership(tmp_path)
        ownership.take()
        ownership.release()
        assert not psutil.pid_exists(left.pid)
    assert not note.exists()


def test_the_owners_own_variable_does_not_make_it_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ownership(tmp_path)
    first.take()
    assert psutil.pid_exists(json.loads((tmp_path / ".stillroom/owner.json").read_text())["pid"])
    first.release()
    first.release()
