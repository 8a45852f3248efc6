"""Fixtures that every room shares: a tiny checkpoint, toy rows, a workspace, a run of the stages, an S3 server."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from stillroom import layout
from stillroom.data.splits import Rows
from tests.toys import Workspace, pin_teacher, toy_rows, write_tiny_checkpoint, write_workspace

settings.register_profile("stillroom", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stillroom")

SOURCE_ROOT = Path(__file__).parent.parent / "src"


@pytest.fixture(name="toy_rows")
def _toy_rows() -> Callable[..., Rows]:
    """`toy_rows(n, seed)`: separable rows of three classes."""
    return toy_rows


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and a tokeniser of the toy texts; leave it unchanged."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-bert")


def enter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a workspace the current folder, with a state folder of its own."""
    monkeypatch.chdir(path)
    monkeypatch.setenv(layout.STATE_VARIABLE, str(path / ".stillroom"))
    for name in ("STILLROOM_EVENTS", "STILLROOM_RECEIPTS", "STILLROOM_CHECKPOINT_S"):
        monkeypatch.delenv(name, raising=False)
    paths = [str(SOURCE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Callable[..., Workspace]:
    """`workspace(**options)`: a workspace before the stage teach, entered."""

    def make(**options: object) -> Workspace:
        made = write_workspace(tmp_path / "workspace", tiny_checkpoint, **options)  # type: ignore[arg-type]
        enter(made.path, monkeypatch)
        return made

    return make


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server on loopback, one for all tests of a process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> tuple[Any, str]:
    """A client of a real S3 server on loopback and the name of a fresh bucket."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    bucket = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    client.create_bucket(Bucket=bucket)
    return client, bucket


def run_stage(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run a stage in this process as `python -m stillroom.stages` would; return its exit code."""
    from stillroom.stages import __main__ as stages

    monkeypatch.delenv("DVC_STAGE", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return stages.main(argv)
    finally:
        signal.signal(signal.SIGTERM, handler)


STAGES = (
    ("grow",),
    ("teach",),
    ("capture",),
    ("reference",),
    *((stage, student) for stage in ("distil", "quantise", "evaluate") for student in ("static", "sliced")),
)


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Workspace:
    """A workspace in which teach … evaluate ran through once, for all test processes; leave it unchanged."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    path = root / "run-once"
    with FileLock(root / "run-once.lock"):
        if not (root / "run-once.done").exists():
            made = write_workspace(path, tiny_checkpoint)
            with pytest.MonkeyPatch.context() as patch:
                enter(made.path, patch)
                for stage in STAGES:
                    assert run_stage(patch, *stage) == 0, stage
            (root / "run-once.done").touch()
    return Workspace(path)


@pytest.fixture
def finished(run_once: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace of `run_once`, entered; for reading only."""
    enter(run_once.path, monkeypatch)
    return run_once


@pytest.fixture
def own_finished(run_once: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the workspace of `run_once`, entered; change it as you like."""
    path = tmp_path / "finished"
    shutil.copytree(run_once.path, path)
    pin_teacher(path, run_once.path / "checkpoint")
    enter(path, monkeypatch)
    return Workspace(path)
