"""What a recorded run says it changes, and a limit on it: the champion's package answers the test rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom import layout
from stillroom.data.splits import read_split
from stillroom.errors import InputError
from stillroom.export.predictions import write_predictions
from stillroom.files import read_json
from stillroom.registry import comparison, ledger, tracking
from stillroom.registry.marker import RecordedRun
from stillroom.registry.record import record_run

FLIPPING = -9.0
"""Bias by which a package says "bad" of the word that nobody knows: two of the ten test rows."""


def recorded(workspace: Any, **gate: Any) -> RecordedRun:
    params = workspace.params.model_copy(update={"gate": workspace.params.gate.model_copy(update=gate)})
    return record_run(workspace.root, params, workspace.outcomes(), "run")


def test_the_first_champion_has_nobody_to_be_compared_with(state: Path, workspace: Any) -> None:
    assert recorded(workspace, max_flip_rate=0.0).champion == 1
    assert recorded(workspace).change is None
    assert not (workspace.root / layout.CHANGE).exists()


def test_a_new_champion_is_compared_with_the_one_before(state: Path, workspace: Any) -> None:
    recorded(workspace)
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    again = recorded(workspace)
    assert again.champion == 3
    assert again.change is not None
    assert again.change.startswith("20.00% of 10 test answers change")
    change = read_json(workspace.root / layout.CHANGE)
    assert (change["gained"], change["lost"], change["classes"]) == (0, 2, {"good": {"gained": 0, "lost": 2}})
    assert (change["champion"]["version"], change["candidate"]["student"]) == (1, "static")
    assert change["champion"]["package_digest"] != change["candidate"]["package_digest"]
    assert change["same_data"] is True
    run = tracking.connect().client.get_run(again.run_id)
    assert run.data.metrics["change.flips.point"] == pytest.approx(0.2)
    client = tracking.connect().client
    assert "change.json" in {file.path for file in client.list_artifacts(again.run_id)}
    page = (workspace.root / layout.CHANGE_PAGE).read_text()
    assert f"static in place of version 1 of toy (static): {again.change}" in page
    assert Path(client.download_artifacts(again.run_id, f"{layout.REPORT.name}/{layout.PAGE}")).read_text() == page
    assert recorded(workspace).unchanged


def test_what_an_earlier_record_told_of_a_change_goes(state: Path, workspace: Any) -> None:
    recorded(workspace)
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    assert recorded(workspace).change is not None
    workspace.release("tiny", verdict="FAIL", bias=1.0)
    assert recorded(workspace).change is None
    assert not (workspace.root / layout.CHANGE).exists()
    assert not (workspace.root / layout.CHANGE_PAGE).exists()


@pytest.mark.parametrize(("limit", "champion"), [(0.2, 3), (0.19, 1), (0.0, 1)])
def test_a_student_that_changes_too_many_answers_waits_for_a_person(
    state: Path, workspace: Any, limit: float, champion: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(workspace)
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    again = recorded(workspace, max_flip_rate=limit)
    assert (again.challenger, again.champion) == (3, champion)
    assert ("changes 20.00% of the test answers" in caplog.text) == (champion == 1)
    assert len(ledger.read("toy", ledger.default_store())) == (2 if champion == 3 else 1)


@pytest.mark.parametrize(("limit", "champion"), [(None, 3), (0.5, 1)])
def test_a_champion_that_is_not_to_be_had_is_told_and_holds_only_where_there_is_a_limit(
    state: Path,
    workspace: Any,
    monkeypatch: pytest.MonkeyPatch,
    limit: float | None,
    champion: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lost(*_: object, **__: object) -> Path:
        raise InputError("models:/toy/1: its package went between two looks")

    recorded(workspace)
    monkeypatch.setattr(comparison, "champion_package", lost)
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    again = recorded(workspace, max_flip_rate=limit)
    assert (again.champion, again.change) == (champion, None)
    assert "what changes since version 1 cannot be told: models:/toy/1: its package went" in caplog.text
    assert ("what it changes is not known" in caplog.text) == (limit is not None)


def test_a_champion_whose_package_is_damaged_is_none_and_holds_nobody_back(state: Path, workspace: Any) -> None:
    recorded(workspace)
    for model in (state / "mlartifacts").rglob("model.onnx"):
        model.write_bytes(b"damaged")
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    again = recorded(workspace, max_flip_rate=0.0)
    assert (again.champion, again.change) == (3, None)


def test_the_candidates_answers_are_those_that_the_gate_judged(state: Path, workspace: Any) -> None:
    recorded(workspace)
    workspace.release("static", verdict="PASS", bias=FLIPPING)
    test = read_split(workspace.root / layout.SPLIT, "test")
    judged = np.array([[0.0, 1.0]] * len(test), dtype=np.float32)  # "good" of all rows, which no package says
    write_predictions(workspace.root / layout.EVALUATIONS / "static" / "predictions.parquet", test, {"student": judged})
    change = recorded(workspace).change
    assert change is not None
    assert change.startswith("40.00% of 10 test answers change")
