"""A checkout of the toy pipeline in a temporary folder, and what a person would do with it by hand."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stillroom.params import Params
from stillroom.params_file import load_params
from stillroom.pipeline.outcome import read_lock
from stillroom.pipeline.workspace import Workspace, open_workspace

TOY = Path(__file__).parent / "toy"
SOURCE = Path(__file__).parents[2] / "src"
STAGES = (
    "split",
    "teach",
    "distil@big",
    "distil@small",
    "evaluate@big",
    "evaluate@small",
    "select",
)
_IGNORED = "/.stillroom/\n/artifacts/\n/reports/\n/sources/data\n/executed.log\n/toy.json\n__pycache__/\n"


def snapshot(params: Params, workspace: Path) -> None:
    """Stands in for the data room: rows.csv beside the checkout's params is the only source."""
    rows = Path(params.data.source).read_text(encoding="utf-8")
    data = workspace / "sources" / "data"
    data.mkdir(parents=True, exist_ok=True)
    _write_if_different(data / "train.csv", rows)
    _write_if_different(data / "source.json", json.dumps({"train": {"uri": "rows.csv"}}))
    pin = {"uri": params.teacher.source, "sha256": "0" * 64, "licence": None, "files": {}}
    _write_if_different(workspace / "sources" / "teacher.json", json.dumps(pin))


def environment() -> dict[str, str]:
    """The environment of a person at a bash whose `python` is the one that runs the tests.

    Bash becomes the stage that DVC starts through it; dash stays between them and would outlive a killed DVC.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    shell = shutil.which("bash") or "/bin/sh"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(SOURCE), "DVC_NO_ANALYTICS": "1", "SHELL": shell}


class Project:
    """The checkout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(TOY, path)
        (path / ".gitignore").write_text(_IGNORED)
        (path / "rows.csv").write_text("text,label\ngood,1\nbad,0\n")
        (path / ".dvc").mkdir()
        (path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
        (path / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (path / ".dvcignore").write_text("/.stillroom/\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments: str) -> str:
        """Run git in the checkout."""
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self) -> None:
        """Commit everything that is not ignored."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "state")

    def params(self) -> Params:
        """The checkout's params.yaml, checked."""
        return load_params(self.path / "params.yaml")

    def set_param(self, dotted: str, value: Any) -> None:
        """Edit params.yaml as a person would."""
        path = self.path / "params.yaml"
        tree = YAML(typ="safe").load(path.read_text())
        *parents, key = dotted.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[key]
        else:
            node[key] = value
        with path.open("w") as stream:
            YAML().dump(tree, stream)

    def behave(self, workspace: Path | None = None, **stages: dict[str, Any]) -> None:
        """Tell stages how to behave; `distil_big` stands for distil@big."""
        told = {name.replace("_", "@"): how for name, how in stages.items()}
        ((workspace or self.path) / "toy.json").write_text(json.dumps(told))

    def open(self, workspace: Path | None = None, params: Params | None = None) -> Workspace:
        """Take a workspace for params, the checkout's by default."""
        return open_workspace(self.path, params or self.params(), workspace)

    def snapshot(self) -> None:
        """Lay the sources into the checkout and put them under DVC, as the flow's first step does."""
        snapshot(self.params().model_copy(update={"data": self._data()}), self.path)
        self.dvc("add", "--quiet", "sources/data")

    def _data(self) -> Any:
        data = self.params().data
        return data.model_copy(update={"source": str(self.path / data.source)})

    def dvc(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run DVC by hand; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=cwd or self.path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def executed(self, workspace: Path | None = None) -> list[str]:
        """Stages executed since the last call, sorted."""
        log = (workspace or self.path) / "executed.log"
        lines = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return sorted(line.split()[0] for line in lines)

    def lock(self) -> dict[str, Any]:
        """dvc.lock, parsed."""
        return read_lock(self.path)


def addresses(executed: Iterable[Any]) -> list[str]:
    """Addresses of the outcomes that were executed, sorted."""
    return sorted(outcome.address for outcome in executed if outcome.executed)


def _write_if_different(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
