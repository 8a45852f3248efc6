"""The registry through a real MLflow server with a password, artefacts by its proxy."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillroom import ui
from stillroom.errors import GateRefused, InputError, TryAgain
from stillroom.export.runtime import Package
from stillroom.registry import promotion, record, tracking, versions
from stillroom.registry.champion import champion_package
from tests.registry.conftest import mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.serial]


@pytest.fixture
def server(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ui.Running]:
    """A server over the test's store, with its address and credentials in the environment."""
    with mlflow_server(monkeypatch) as running:
        yield running


def test_a_run_is_recorded_promoted_and_handed_out(
    server: ui.Running, state: Path, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record_again() -> Any:
        return record.record_run(workspace.root, workspace.params, workspace.outcomes(), "served")

    recorded = record_again()
    assert (recorded.versions, recorded.champion) == ({"static": 1, "tiny": 2}, 1)
    began = time.monotonic()
    assert record_again() == replace(recorded, unchanged=True)
    assert time.monotonic() - began < 2
    tracker = tracking.connect()
    run = tracker.client.get_run(recorded.run_id)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert run.data.metrics["static.retention.accuracy.lower"] == 0.98
    assert Package.load(champion_package("toy")).labels == ("bad", "good")
    with pytest.raises(GateRefused, match="verdict is FAIL"):
        promotion.promote("toy", 2, "ada", "why")
    tracker.client.set_registered_model_alias("toy", "champion", "2")
    assert promotion.reconcile("toy").outcome == "moved back"
    assert versions.model(tracker, "toy").champion == 1
    for manifest in list((state / "mlartifacts").rglob("artifacts/package/stillroom.json")):
        manifest.unlink()
    with pytest.raises(GateRefused, match=r"toy version 1: .*not a package"):
        promotion.prove(tracker, "toy", 1)
    workspace.release("static", verdict="PASS", bias=0.7)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(InputError, match="refused the credentials"):
        record_again()


def test_server_that_goes_away_is_tried_again(server: ui.Running, workspace: Any) -> None:
    record.record_run(workspace.root, workspace.params, workspace.outcomes(), "served")
    process = server.processes["mlflow"]
    process.terminate()
    process.wait(timeout=30)
    began = time.monotonic()
    with pytest.raises(TryAgain, match=r"http://127\.0\.0\.1:\d+"):
        record.record_run(workspace.root, workspace.params, workspace.outcomes(), "served")
    assert time.monotonic() - began < 15
