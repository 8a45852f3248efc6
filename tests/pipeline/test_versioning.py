"""The raw data under DVC, with a copy that others can get."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.pipeline import versioning
from stillroom.pipeline.versioning import push_results, version_data
from stillroom.pipeline.workspace import Workspace
from tests.pipeline.project import Project, snapshot


def objects(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_data_is_added_and_pushed_to_a_folder_by_default(project: Project) -> None:
    with project.open() as workspace:
        version = version_data(workspace, snapshot)
    assert version.changed
    assert version.remote == str(project.path / ".stillroom" / "remote")
    assert version.md5.endswith(".dir")
    assert version.md5 in (project.path / "sources/data.dvc").read_text()
    assert len(objects(project.path / ".stillroom" / "remote")) == 3  # the list, train.csv, source.json
    assert project.git("status", "--porcelain").split() == ["??", "sources/"]
    assert project.dvc("config", "core.remote").strip() == "stillroom"


def test_without_a_change_dvc_is_not_called(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with project.open() as workspace:
        first = version_data(workspace, snapshot)
        monkeypatch.setattr(versioning, "call_dvc", None)
        started = time.monotonic()
        again = version_data(workspace, snapshot)
        assert time.monotonic() - started < 0.2
    assert not again.changed
    assert (again.md5, again.remote) == (first.md5, first.remote)


def test_new_rows_a_tampered_copy_and_another_remote_are_each_noticed(project: Project, tmp_path: Path) -> None:
    with project.open() as workspace:
        first = version_data(workspace, snapshot)
        (project.path / "rows.csv").write_text("text,label\nnew,1\nold,0\n")
        second = version_data(workspace, snapshot)
        assert second.changed
        assert second.md5 != first.md5
        (project.path / "sources/data/stray.txt").write_text("x")
        assert version_data(workspace, snapshot).changed
    project.set_param("registry", {"remote": "../shared"})
    with project.open() as workspace:
        moved = version_data(workspace, snapshot)
        assert moved.changed
        assert moved.remote == str(tmp_path / "shared")
        assert objects(tmp_path / "shared")


def test_a_remote_that_its_owner_made_the_default_stays_so(project: Project) -> None:
    project.dvc("remote", "add", "--local", "--default", "mine", "/somewhere")
    with project.open() as workspace:
        version_data(workspace, snapshot)
    assert project.dvc("config", "core.remote").strip() == "mine"


def test_results_are_pushed_only_to_a_remote_that_params_name(project: Project, tmp_path: Path) -> None:
    with project.open() as workspace:
        assert not push_results(workspace)
    project.set_param("registry", {"remote": str(tmp_path / "shared")})
    with project.open() as workspace:
        version_data(workspace, snapshot)
        project.dvc("repro", "split")
        assert push_results(workspace)
    assert (tmp_path / "shared" / "runs").is_dir()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server that speaks the protocol over HTTP."""
    with subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        address = next(line.split()[-1] for line in server.stderr if "Running on" in line)
        yield address
        server.terminate()


def s3_workspace(project: Project, url: str, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Workspace:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    project.set_param("registry", {"remote": url})
    return project.open()


@pytest.mark.slow
@pytest.mark.serial
def test_an_s3_remote_keeps_the_data_and_a_missing_bucket_is_wrong_input(
    project: Project, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    with s3_workspace(project, "s3://data/raw", monkeypatch, s3) as workspace:
        with pytest.raises(InputError, match=r"registry\.remote: s3://data/raw refuses the data"):
            version_data(workspace, snapshot)
        assert not (project.path / ".stillroom" / "versioned.json").exists()
        client = boto3.client("s3")
        client.create_bucket(Bucket="data")
        assert version_data(workspace, snapshot).remote == "s3://data/raw"
        assert len(client.list_objects_v2(Bucket="data")["Contents"]) == 3


@pytest.mark.slow
def test_a_remote_that_is_down_is_worth_another_try(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_workspace(project, "s3://data/raw", monkeypatch, "http://127.0.0.1:9") as workspace:
        with pytest.raises(TryAgain, match=r"registry\.remote: s3://data/raw cannot be reached") as caught:
            version_data(workspace, snapshot)
        assert caught.value.exit_code == 75
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
        assert not (project.path / ".stillroom" / "versioned.json").exists()
