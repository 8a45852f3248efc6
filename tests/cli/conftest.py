"""The command line, called in this process."""

import subprocess
import sys
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.cli import main as cli
from tests.pipeline.project import Project


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Call":
    """Call the command line in this process."""
    return Call(monkeypatch, capsys)


class Call:
    """`call(arguments)`: exit code, stdout and the lines of stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, list[str]]:
        self._monkeypatch.setattr(sys, "argv", ["stillroom", *map(str, arguments)])
        code = cli.run_cli()
        told = self._capsys.readouterr()
        return code, told.out, told.err.splitlines()

    def refused(self, *arguments: object) -> str:
        """The one line of a refusal that printed nothing else."""
        code, out, lines = self(*arguments)
        assert (code, out, len(lines)) == (2, "", 1), lines
        assert lines[0].startswith("stillroom: ")
        return lines[0]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A checkout of the toy pipeline with a state folder of its own, entered."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = Project(tmp_path / "checkout")
    monkeypatch.chdir(made.path)
    monkeypatch.setenv(layout.STATE_VARIABLE, str(made.path / ".stillroom"))
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "STILLROOM_RECEIPTS", "STILLROOM_EVENTS"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a model, made in a process of its own; to copy."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    code = "from stillroom.registry.tracking import connect; connect()"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{path}", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    return path
