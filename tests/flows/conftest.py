"""Prefect in a place of its own: nothing of these tests reaches a person's server or home."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.project import Project

_HOME = tempfile.mkdtemp(prefix="stillroom-prefect-")
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ["PREFECT_HOME"] = _HOME
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "true"


@pytest.fixture(scope="session", autouse=True)
def _prefect_home() -> Iterator[None]:
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server(_prefect_home: None) -> Iterator[None]:
    """A real server with a database of its own, for the whole session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh checkout of the toy pipeline, also the current folder."""
    for name in ("STILLROOM_STATE", "STILLROOM_EVENTS", "STILLROOM_RECEIPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STILLROOM_WORKERS", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    made = Project(tmp_path / "checkout")
    monkeypatch.chdir(made.path)
    return made
