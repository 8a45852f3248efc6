"""A clone of this very checkout, data of its own, and the command line as a user calls it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stillroom.params import validate
from stillroom.params_file import write_yaml
from stillroom.pipeline.checkout import clone, lay_over
from tests.toys import toy_params, toy_rows, write_tiny_checkpoint

ROOT = Path(__file__).parents[2]
_LABELS = ("cooking", "sailing", "weather")
TINY = pytest.mark.xdist_group("tiny")


@dataclass(frozen=True)
class Checkout:
    """A clone with its working tree, and an environment in which its commands run."""

    path: Path
    environment: dict[str, str]

    def stillroom(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Call the command line in the checkout and check its exit code."""
        command = [sys.executable, "-c", "from stillroom.entry import main; main()", *arguments]
        return self._call(command, code)

    def dvc(self, *arguments: str, cwd: Path | None = None, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Call DVC as a person in an activated environment would."""
        return self._call([sys.executable, "-m", "dvc", *arguments], code, cwd)

    def python(self, code: str) -> "subprocess.CompletedProcess[str]":
        """Run a piece of Python in the checkout."""
        return self._call([sys.executable, "-c", code], 0)

    def git_status(self) -> str:
        """What git says has changed in the checkout."""
        return self._call(["git", "status", "--porcelain"], 0).stdout

    def _call(self, command: list[str], code: int, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command, cwd=cwd or self.path, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done


def make_checkout(folder: Path) -> Checkout:
    """Clone the project with what is uncommitted, and keep its state, its caches and Prefect's home in the folder."""
    path = folder / "checkout"
    clone(ROOT, path)
    lay_over(ROOT, path, None)
    shutil.copyfile(ROOT / "params.yaml", path / "params.yaml")
    subprocess.run(["git", "-C", str(path), "add", "--all"], check=True, capture_output=True)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    commit = ["git", "-C", str(path), *who, "commit", "--quiet", "--allow-empty", "-m", "working tree"]
    subprocess.run(commit, check=True, capture_output=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STILLROOM_", "PREFECT_"))},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(path / "src"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "1",
    }
    return Checkout(path, environment)


def write_csv(path: Path, rows: int, seed: int) -> None:
    """A CSV file of toy rows with the columns text and label."""
    toy = toy_rows(rows, seed)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([text, _LABELS[label]] for text, label in zip(toy.text, toy.label, strict=True))


@dataclass(frozen=True)
class TinyRun:
    """A checkout in which the whole pipeline ran once in a workspace, on toy data with a tiny teacher."""

    checkout: Checkout
    workspace: Path
    params: Path
    status_before: str

    @property
    def summary(self) -> dict[str, Any]:
        """reports/summary.json."""
        loaded: dict[str, Any] = json.loads((self.workspace / "reports" / "summary.json").read_text())
        return loaded

    def run(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """`stillroom run` again in the same workspace."""
        workspace = ("--params", str(self.params), "--workspace", str(self.workspace))
        return self.checkout.stillroom("run", *workspace, *arguments, code=code)

    def receipts(self) -> dict[str, float]:
        """When each stage was last started."""
        folder = self.workspace / ".stillroom" / "receipts"
        return {path.stem: json.loads(path.read_text())["started_at"] for path in folder.glob("*.json")}


@pytest.fixture(scope="session")
def tiny_run_once(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The run that is there already; the tests that want it stand in the group TINY, so that it is made once."""
    folder = tmp_path_factory.mktemp("tiny")
    checkout = make_checkout(folder)
    checkpoint = write_tiny_checkpoint(folder / "tiny-bert")
    write_csv(folder / "train.csv", 400, 1)
    write_csv(folder / "test.csv", 300, 2)
    values = toy_params()
    values["data"] = {"source": str(folder / "train.csv"), "test": str(folder / "test.csv")}
    values["teacher"] = {**values["teacher"], "source": str(checkpoint)}
    values["gate"] = {"retention": {"accuracy": 0.5}, "resamples": 200}
    values["registry"] = {"model": "tiny", "experiment": "tiny"}
    params = folder / "tiny.yaml"
    write_yaml(validate(values, "tiny.yaml"), params)
    run = TinyRun(checkout, folder / "workspace", params, checkout.git_status())
    run.run()
    return run


@pytest.fixture
def tiny_run(tiny_run_once: TinyRun, tmp_path: Path) -> TinyRun:
    """The same with a workspace of the test's own; what is kept in the checkout, the registry above all, is shared."""
    workspace = tmp_path / "own-workspace"
    shutil.copytree(tiny_run_once.workspace, workspace, symlinks=True)
    return replace(tiny_run_once, workspace=workspace)
