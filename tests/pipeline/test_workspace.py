"""Where a run works."""

import os
from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.params import Params
from stillroom.params_file import load_params
from stillroom.pipeline.plan import make_plan
from stillroom.pipeline.runner import StageRunner
from stillroom.pipeline.workspace import open_workspace, params_hash
from tests.pipeline.project import STAGES, Project, addresses, snapshot


def changed(project: Project, *overrides: str) -> Params:
    return load_params(project.path / "params.yaml", overrides)


def test_the_checkouts_own_params_run_in_place(project: Project) -> None:
    with project.open() as workspace:
        assert workspace.path == workspace.root == project.path
        assert not workspace.own
        assert workspace.state == project.path / ".stillroom"
        assert project.git("status", "--porcelain") == ""
    with project.open(project.path) as workspace:
        assert not workspace.own


def test_other_params_run_in_a_workspace_named_by_them(project: Project) -> None:
    params = changed(project, "teacher.epochs=7")
    with project.open(params=params) as workspace:
        assert workspace.own
        assert workspace.created
        assert workspace.path == project.path / ".stillroom" / "workspaces" / params_hash(params)
        assert load_params(workspace.path / "params.yaml") == params
        assert workspace.state == project.path / ".stillroom"
        assert workspace.variables["STILLROOM_STATE"] == str(workspace.state)
        assert project.git("status", "--porcelain") == ""
        assert (workspace.path / ".dvc" / "tmp" / "site").stat().st_mode & 0o777 == 0o700
        assert (workspace.path / ".dvc" / "config.local").stat().st_mode & 0o777 == 0o600
    with project.open(params=params) as workspace:
        assert not workspace.created


def test_the_name_of_a_workspace_does_not_depend_on_how_params_were_written(project: Project) -> None:
    assert params_hash(changed(project)) == params_hash(changed(project, "seed=0", "teacher.patience=null"))
    assert params_hash(changed(project)) != params_hash(changed(project, "seed=1"))


def test_a_workspace_shares_the_cache_and_leaves_the_checkout_clean(ready: Project, tmp_path: Path) -> None:
    ready.commit()
    ready.dvc("repro")
    ready.executed()
    ready.commit()
    params = changed(ready, "gate.retention.accuracy=0.8")
    with ready.open(tmp_path / "away", params) as workspace:
        snapshot(params, workspace.path)
        outcomes = StageRunner(workspace).run(make_plan(workspace.path), "whole")
    assert addresses(outcomes) == ready.executed(workspace.path) == ["select"]
    assert ready.executed() == []
    assert ready.git("status", "--porcelain") == ""
    assert "up to date" in ready.dvc("status")


def test_a_refreshed_workspace_has_new_code_and_params_and_keeps_its_results(ready: Project, tmp_path: Path) -> None:
    away = tmp_path / "away"
    with ready.open(away, changed(ready, "seed=3")) as workspace:
        snapshot(workspace.params, away)
        StageRunner(workspace).run_stage("split")
    lock = (away / "dvc.lock").read_text()
    (ready.path / "toy.py").write_text((ready.path / "toy.py").read_text() + "# edited\n")
    with ready.open(away, changed(ready, "seed=4")):
        assert (away / "dvc.lock").read_text() == lock
        assert (away / "artifacts/split/content.txt").is_file()
        assert (away / "toy.py").read_text().endswith("# edited\n")
        assert load_params(away / "params.yaml").seed == 4


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(project: Project, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and no workspace"):
        project.open(taken)
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        project.open(taken / "thesis.txt")
    other = Project(tmp_path / "other")
    with other.open(tmp_path / "theirs"):
        pass
    with pytest.raises(InputError, match="is a workspace of the checkout"):
        project.open(tmp_path / "theirs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkout", "other", "taken", "theirs"]


def test_an_empty_folder_may_become_a_workspace(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with project.open(tmp_path / "empty") as workspace:
        assert workspace.created


def test_wrong_input_leaves_no_new_workspace_behind(project: Project, tmp_path: Path) -> None:
    project.open(tmp_path / "away").discard()
    assert not (tmp_path / "away").exists()
    project.open(tmp_path / "away").close()
    project.open(tmp_path / "away").discard()
    assert (tmp_path / "away").is_dir()


def test_leftovers_of_removed_students_go_and_nothing_else(project: Project) -> None:
    for name in (
        "students/big",
        "students/old",
        "packages/old",
        "evaluations/old",
        "teacher",
        "evaluations/.hidden",
    ):
        folder = project.path / "artifacts" / name
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (project.path / "artifacts" / "students" / "notes").write_text("a file, not a student")
    (project.path / "artifacts" / "packages" / "linked").symlink_to(project.path / "artifacts" / "teacher")
    with project.open():
        pass
    left = {path.relative_to(project.path / "artifacts").as_posix() for path in project.path.glob("artifacts/*/*")}
    assert left == {
        "students/big",
        "students/notes",
        "packages/linked",
        "teacher/file",
        "evaluations/.hidden",
    }


def test_removing_a_student_runs_only_what_reads_all_students(ready: Project) -> None:
    ready.dvc("repro")
    ready.executed()
    ready.set_param("students.big", None)
    with ready.open() as workspace:
        outcomes = StageRunner(workspace).run(make_plan(workspace.path), "whole")
    assert addresses(outcomes) == ["select"]
    assert len(outcomes) == len(STAGES) - 2


@pytest.mark.parametrize("missing", [".git", ".dvc"])
def test_a_folder_without_git_or_dvc_is_told_from_a_checkout(project: Project, missing: str) -> None:
    (project.path / missing).rename(project.path / "away")
    with pytest.raises(InputError, match=rf"has no {missing[0]}{missing[1:]}, which DVC needs"):
        project.open()


def test_the_state_folder_may_stand_elsewhere(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_STATE", str(tmp_path / "state"))
    with open_workspace(project.path, changed(project, "seed=9"), None) as workspace:
        assert workspace.path.parent == tmp_path / "state" / "workspaces"
        with workspace.as_environment():
            assert os.environ["STILLROOM_STATE"] == str(tmp_path / "state")
