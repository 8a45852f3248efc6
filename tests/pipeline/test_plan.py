"""What would run, and why, in words."""

import shutil

import pytest

from stillroom.errors import InputError
from stillroom.pipeline.plan import Plan, make_plan, start_plan
from tests.pipeline.project import STAGES, Project


def reasons(plan: Plan) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {stage.address: (stage.status, stage.reasons) for stage in plan.stages}


def test_a_fresh_checkout_runs_everything(ready: Project) -> None:
    plan = make_plan(ready.path)
    assert plan.due == STAGES
    assert set(reasons(plan).values()) == {("changed", ("never run here",))}
    assert plan.fingerprints == {}


def test_every_kind_of_change_has_its_words(ready: Project) -> None:
    ready.dvc("repro")
    before = make_plan(ready.path)
    assert before.nothing_to_do
    assert set(before.fingerprints) == set(STAGES)
    ready.set_param("teacher.epochs", 5)
    ready.set_param("students.small.word_dropout", 0.3)
    shutil.rmtree(ready.path / "artifacts" / "evaluations" / "big")
    (ready.path / "sources" / "data" / "train.csv").write_text("text,label\nnew,1\n")
    dvc_yaml = (ready.path / "dvc.yaml").read_text()
    (ready.path / "dvc.yaml").write_text(dvc_yaml.replace("toy.py select", "toy.py  select"))
    told = reasons(make_plan(ready.path))
    assert told["split"] == ("changed", ("deps sources/data changed",))
    assert told["teach"] == ("changed", ("params.yaml teacher.epochs changed",))
    assert told["distil@small"] == ("changed", ("params.yaml students.small.word_dropout changed",))
    assert told["distil@big"] == ("downstream", ("after split", "after teach"))
    assert told["evaluate@big"] == ("changed", ("outs artifacts/evaluations/big missing",))
    assert told["evaluate@small"] == ("downstream", ("after distil@small",))
    assert told["select"][0] == "changed"
    assert "command changed" in told["select"][1]


def test_the_graph_is_asked_for_again_only_when_it_may_differ(ready: Project) -> None:
    first = make_plan(ready.path)
    pending = start_plan(ready.path)
    assert pending.dag is None
    assert pending.result().graph == first.graph
    ready.set_param("students.third", {"family": "static"})
    assert "distil@third" in make_plan(ready.path).due
    (ready.path / ".stillroom" / "graph.json").write_text('{"key": "x"}')
    assert "distil@third" in make_plan(ready.path).due


def test_a_dvc_yaml_that_does_not_resolve_is_wrong_input(ready: Project) -> None:
    ready.set_param("students", None)
    with pytest.raises(InputError, match=r"failed: .*students"):
        make_plan(ready.path)


def test_a_damaged_lock_says_what_to_do(ready: Project) -> None:
    (ready.path / "dvc.lock").write_text("stages: [")
    with pytest.raises(InputError, match=r"dvc\.lock"):
        make_plan(ready.path)
