"""Stages through DVC: both modes do what `dvc repro` does, and tell how it went."""

from typing import Any

import pytest

from stillroom.errors import Diverged, InputError, StillroomError, TryAgain
from stillroom.pipeline.listener import Silence
from stillroom.pipeline.outcome import StageOutcome, fingerprints
from stillroom.pipeline.plan import make_plan
from stillroom.pipeline.runner import Mode, StageRunner, default_workers
from tests.pipeline.project import STAGES, Project, addresses

MODES: tuple[Mode, ...] = ("per-stage", "whole")


class Heard(Silence):
    """Notes everything."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.progress: list[tuple[str, int, int]] = []

    def opened(self, address: str) -> None:
        self.said.append(("opened", address))

    def line(self, address: str, text: str) -> None:
        self.lines.append(text)

    def event(self, address: str, event: dict[str, Any]) -> None:
        self.progress.append((address, event["done"], event["total"]))

    def closed(self, outcome: StageOutcome) -> None:
        self.said.append(("executed" if outcome.executed else "served", outcome.address))

    def failed(self, address: str, error: StillroomError) -> None:
        self.said.append(("failed", address))


def run(project: Project, mode: Mode, heard: Heard | None = None, workers: int = 1) -> list[StageOutcome]:
    """One run as a flow does it."""
    with project.open() as workspace:
        return StageRunner(workspace, heard, workers).run(make_plan(workspace.path), mode)


@pytest.mark.parametrize("mode", MODES)
def test_one_engine_skips_what_the_other_has_done(ready: Project, mode: Mode) -> None:
    heard = Heard()
    outcomes = run(ready, mode, heard)
    assert addresses(outcomes) == ready.executed() == sorted(STAGES)
    assert [outcome.address for outcome in outcomes] == list(STAGES)
    assert {o.address: o.fingerprint for o in outcomes} == fingerprints(ready.path)
    assert all(o.receipt and o.receipt.metrics == {"accuracy": 0.9} and o.seconds > 0 for o in outcomes)
    assert [said for said in heard.said if said[0] == "opened"] == [("opened", name) for name in STAGES]
    assert any("working on teach" in line for line in heard.lines)
    assert ("distil@big", 4, 4) in heard.progress
    assert "Data and pipelines are up to date" in ready.dvc("repro")
    assert ready.executed() == []
    again = run(ready, "whole" if mode == "per-stage" else "per-stage")
    assert ready.executed() == addresses(again) == []
    assert [o.receipt for o in again] == [o.receipt for o in outcomes]


def test_a_plain_repro_leaves_nothing_for_the_runner(ready: Project) -> None:
    ready.dvc("repro")
    assert ready.executed() == sorted(STAGES)
    outcomes = run(ready, "per-stage")
    assert ready.executed() == addresses(outcomes) == []
    assert all(outcome.receipt is not None and outcome.fingerprint for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_one_param_changed_runs_exactly_what_depends_on_it(ready: Project, mode: Mode) -> None:
    run(ready, mode)
    ready.executed()
    below = {
        "teacher.epochs": ["distil@big", "distil@small", "evaluate@big", "evaluate@small", "select", "teach"],
        "students.small.dimensions": ["distil@small", "evaluate@small", "select"],
        "gate.retention.accuracy": ["select"],
    }
    for value, (dotted, expected) in enumerate(below.items(), start=3):
        ready.set_param(dotted, value if dotted != "gate.retention.accuracy" else 0.95)
        outcomes = run(ready, mode)
        assert ready.executed() == addresses(outcomes) == expected, dotted
        assert "up to date" in ready.dvc("repro")
        assert ready.executed() == []


@pytest.mark.slow
def test_students_run_side_by_side_and_leave_the_same_lock(ready: Project) -> None:
    ready.behave(distil_big={"sleep_s": 1.5}, distil_small={"sleep_s": 1.5})
    heard = Heard()
    run(ready, "per-stage", heard, workers=2)
    opened, executed = (
        [heard.said.index((how, student)) for student in ("distil@big", "distil@small")]
        for how in ("opened", "executed")
    )
    assert max(opened) < min(executed)
    together = ready.lock()
    assert set(together) == set(STAGES)
    (ready.path / "dvc.lock").unlink()
    ready.dvc("repro")
    assert ready.lock() == together


def test_an_exit_code_comes_through_the_receipt(ready: Project) -> None:
    ready.behave(split={"exit": 75})
    with ready.open() as workspace, pytest.raises(TryAgain, match=r"^split: told to end with 75") as caught:
        StageRunner(workspace).run_stage("split")
    assert "working on split" in caught.value.__notes__[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_stage_that_fails_before_its_receipt_still_has_its_code(ready: Project, mode: Mode) -> None:
    ready.dvc("repro", "split")
    ready.behave(split={"exit_before_receipt": 2})
    ready.set_param("seed", 1)
    with pytest.raises(InputError, match="split: toy: no such column"):
        run(ready, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_stage_is_told_and_stops_what_follows(ready: Project, mode: Mode) -> None:
    ready.behave(teach={"exit": 65})
    heard = Heard()
    with pytest.raises(Diverged, match="teach: told to end with 65"):
        run(ready, mode, heard)
    assert ready.executed() == ["split", "teach"]
    assert heard.said[-1] == ("failed", "teach")
    ready.behave()
    assert addresses(run(ready, "whole")) == sorted(set(STAGES) - {"split"})


def test_a_failing_sibling_lets_the_running_one_end(ready: Project) -> None:
    ready.behave(distil_big={"exit": 1}, distil_small={"sleep_s": 2})
    with pytest.raises(StillroomError, match="distil@big"):
        run(ready, "per-stage", workers=2)
    assert "distil@small" in ready.lock()
    assert "distil@big" not in ready.lock()


def test_secrets_do_not_reach_a_log(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    heard = Heard()
    with ready.open() as workspace:
        StageRunner(workspace, heard).run_stage("split")
    assert "toy: working on split, key ***" in heard.lines
    assert not any("wJalr" in line for line in heard.lines)


def test_a_stage_served_from_the_run_cache_keeps_the_receipt_of_its_execution(ready: Project) -> None:
    first = {o.address: o for o in run(ready, "whole")}
    ready.set_param("seed", 1)
    ready.dvc("repro", "teach")
    ready.executed()
    ready.set_param("seed", 0)
    back = {o.address: o for o in run(ready, "per-stage")}
    assert ready.executed() == []
    assert {name: o.receipt for name, o in back.items()} == {name: o.receipt for name, o in first.items()}
    assert not any(o.executed for o in back.values())


def test_a_receipt_of_other_params_is_not_taken_for_this_one(ready: Project) -> None:
    ready.dvc("repro")
    ready.set_param("seed", 1)
    seen = {o.address: o.receipt for o in run(ready, "whole")}
    ready.set_param("seed", 0)
    served = {o.address: o.receipt for o in run(ready, "whole")}
    assert served["split"] is None
    assert seen["split"] is not None


def test_a_stage_that_times_things_runs_alone(ready: Project) -> None:
    text = (ready.path / "dvc.yaml").read_text()
    (ready.path / "dvc.yaml").write_text(text.replace("  distil:\n", "  distil:\n    meta:\n      alone: true\n"))
    heard = Heard()
    run(ready, "per-stage", heard, workers=2)
    said = [entry for entry in heard.said if "@" in entry[1]]
    alone = [entry for entry in said if entry[1].startswith("distil@")]
    for opened, ended in zip(alone[::2], alone[1::2], strict=True):
        assert said.index(ended) == said.index(opened) + 1
        assert (opened[0], ended[0], opened[1]) == ("opened", "executed", ended[1])


@pytest.mark.parametrize(("given", "expected"), [("1", 1), ("4", 4)])
def test_the_number_of_stages_side_by_side_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: int
) -> None:
    monkeypatch.setenv("STILLROOM_WORKERS", given)
    assert default_workers() == expected


@pytest.mark.parametrize("given", ["0", "-1", "many", ""])
def test_a_wrong_number_of_workers_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("STILLROOM_WORKERS", given)
    with pytest.raises(InputError, match="STILLROOM_WORKERS is"):
        default_workers()
