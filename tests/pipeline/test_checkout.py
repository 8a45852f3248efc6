"""Clones that share objects with the checkout and hold its working tree as it is."""

from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.pipeline.checkout import (
    clone,
    follow,
    git,
    hide_from_git,
    lay_over,
    require_checkout,
    working_files,
)
from tests.pipeline.project import Project


def test_the_working_tree_is_laid_over_as_it_is(project: Project, tmp_path: Path) -> None:
    (project.path / "toy.py").write_text("# edited\n")
    (project.path / "new file.txt").write_text("untracked")
    (project.path / "link").symlink_to("toy.py")
    (project.path / "rows.csv").unlink()
    (project.path / "artifacts").mkdir()
    (project.path / "artifacts" / "ignored").write_text("x")
    copy = tmp_path / "copy"
    clone(project.path, copy)
    names = lay_over(project.path, copy, None)
    assert sorted(names) == sorted(set(working_files(project.path)) - {"params.yaml"})
    assert (copy / "toy.py").read_text() == "# edited\n"
    assert (copy / "new file.txt").read_text() == "untracked"
    assert (copy / "link").readlink() == Path("toy.py")
    assert not (copy / "rows.csv").exists()
    assert not (copy / "artifacts").exists()
    assert git(copy, "rev-parse", "HEAD") == git(project.path, "rev-parse", "HEAD")
    assert (copy / ".git/objects/info/alternates").is_file()


def test_a_copy_follows_commits_edits_and_deletions_but_keeps_its_own(project: Project, tmp_path: Path) -> None:
    (project.path / "gone.txt").write_text("x")
    (project.path / "dvc.lock").write_text("schema: '2.0'\n")
    copy = tmp_path / "copy"
    clone(project.path, copy)
    names = lay_over(project.path, copy, None)
    (copy / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (copy / "own.txt").write_text("made in the workspace")
    (project.path / "gone.txt").unlink()
    (project.path / "dvc.lock").write_text("schema: '2.0'\nstages: {other: {}}\n")
    (project.path / "toy.py").write_text("# edited\n")
    project.commit()
    follow(project.path, copy)
    lay_over(project.path, copy, names)
    assert git(copy, "rev-parse", "HEAD") == git(project.path, "rev-parse", "HEAD")
    assert not (copy / "gone.txt").exists()
    assert (copy / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"
    assert (copy / "own.txt").exists()
    assert (copy / "toy.py").read_text() == "# edited\n"


def test_only_the_top_of_a_checkout_with_a_commit_will_do(tmp_path: Path, project: Project) -> None:
    require_checkout(project.path)
    with pytest.raises(InputError, match="not a git checkout"):
        require_checkout(tmp_path)
    (project.path / "sub").mkdir()
    with pytest.raises(InputError, match="lies inside the checkout"):
        require_checkout(project.path / "sub")
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    with pytest.raises(InputError, match="has no commit yet"):
        require_checkout(empty)


def test_without_git_the_message_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="git is not installed"):
        git(project.path, "status")


def test_a_folder_inside_the_checkout_is_hidden_from_git_once(project: Project) -> None:
    inside = project.path / "runs" / "mine"
    inside.mkdir(parents=True)
    (inside / "file").write_text("x")
    hide_from_git(project.path, inside)
    hide_from_git(project.path, inside)
    assert project.git("status", "--porcelain") == ""
    assert (project.path / ".git/info/exclude").read_text().count("/runs/mine/") == 1
    hide_from_git(project.path, project.path / ".stillroom" / "workspaces" / "x")
    assert "workspaces" not in (project.path / ".git/info/exclude").read_text()
