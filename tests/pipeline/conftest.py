"""The toy checkout."""

from pathlib import Path

import pytest

from tests.pipeline.project import Project


@pytest.fixture(autouse=True)
def _own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "STILLROOM_STATE",
        "STILLROOM_WORKERS",
        "STILLROOM_EVENTS",
        "STILLROOM_RECEIPTS",
        "SSH_AUTH_SOCK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh checkout, also the current folder."""
    made = Project(tmp_path / "checkout")
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture
def ready(project: Project) -> Project:
    """A checkout whose data is under DVC, with nothing run yet."""
    project.snapshot()
    return project
