""".dvc/config.local as DVC reads and writes it."""

from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.pipeline.local_config import movable, read_config, remote_section, set_local
from tests.pipeline.project import Project


def test_what_is_written_is_what_dvc_reads(project: Project) -> None:
    url = str(project.path / "a remote # 1")
    project.dvc("remote", "add", "--local", "mine", "s3://bucket/x")
    project.dvc("config", "--local", "remote.mine.secret_access_key", "a,b")
    assert set_local(project.path, {remote_section("ours"): {"url": url}, "core": {"remote": "ours"}})
    assert not set_local(project.path, {"core": {"remote": "ours"}})
    assert project.dvc("config", "remote.mine.url").strip() == "s3://bucket/x"
    assert project.dvc("config", "remote.ours.url").strip() == url
    assert "a,b" in project.dvc("config", "--local", "remote.mine.secret_access_key")
    assert project.dvc("config", "core.remote").strip() == "ours"
    assert (project.path / ".dvc/config.local").stat().st_mode & 0o077 == 0


def test_relative_paths_are_made_absolute_for_another_folder(project: Project) -> None:
    project.dvc("remote", "add", "--local", "near", "../remote")
    project.dvc("remote", "add", "--local", "far", "s3://bucket/x")
    moved = movable(project.path)
    assert moved[remote_section("near")]["url"] == str(project.path.parent / "remote")
    assert moved[remote_section("far")]["url"] == "s3://bucket/x"


def test_a_missing_file_is_empty_and_a_broken_one_wrong_input(tmp_path: Path) -> None:
    assert read_config(tmp_path / "none").sections() == []
    (tmp_path / "broken").write_text("no section = 1\n")
    with pytest.raises(InputError, match="not readable as a DVC config"):
        read_config(tmp_path / "broken")
