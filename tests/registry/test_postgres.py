"""The registry in a real PostgreSQL: by its own address, and behind MLflow's server with a password."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError
from stillroom.registry import ledger, promotion, record, register, runs, tracking, versions
from stillroom.registry.champion import champion_package
from tests.registry.conftest import MakeRelease, mlflow_server
from tests.registry.postgres import postgres
from tests.registry.racing import race

pytestmark = [pytest.mark.slow, pytest.mark.serial]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as uri:
        yield uri


@pytest.fixture(params=["address", "server"])
def served(
    request: pytest.FixtureRequest, database: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tracking.Tracker]:
    """The database without a model `toy`, as a client reaches it."""
    monkeypatch.setenv(tracking.URI_VARIABLE, database)
    if request.param == "address":
        yield emptied(tracking.connect())
        return
    with mlflow_server(monkeypatch):
        yield emptied(tracking.connect())


def emptied(tracker: tracking.Tracker) -> tracking.Tracker:
    for model in tracker.client.search_registered_models():
        tracker.client.delete_registered_model(model.name)
    return tracker


def test_a_run_is_recorded_promoted_and_handed_out(
    served: tracking.Tracker, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record_it() -> Any:
        return record.record_run(workspace.root, workspace.params, workspace.outcomes(), "stored")

    recorded = record_it()
    assert (recorded.versions, recorded.champion) == ({"static": 1, "tiny": 2}, 1)
    assert record_it().unchanged
    run = served.client.get_run(recorded.run_id)
    assert run.data.metrics["static.retention.accuracy.lower"] == 0.98
    assert champion_package("toy").is_dir()
    served.client.set_registered_model_alias("toy", "champion", "2")
    assert promotion.reconcile("toy").outcome == "moved back"
    assert versions.model(served, "toy").champion == 1
    workspace.release("static", verdict="PASS", bias=0.7)
    assert record_it().champion == 3
    served.client.set_registered_model_alias("toy", "champion", "1")
    assert promotion.reconcile("toy").outcome == "adopted"
    assert promotion.promote("toy", 3, "ada", "better").from_version == 1
    assert promotion.rollback("toy", "ada", "not better").to_version == 1


@pytest.mark.parametrize("served", ["server"], indirect=True)
def test_promotions_race(
    served: tracking.Tracker, make_release: MakeRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = runs.experiment(served, "race")
    run = runs.find_or_create(served, experiment, {"kind": "race"}, name="race", start_ms=1, tags={})
    for number, verdict in enumerate(("PASS", "PASS", "FAIL", "PASS"), start=1):
        folder = make_release(str(number), bias=number / 10, verdict=verdict)
        assert register.register(served, "toy", register.read_release(folder, "static"), run, (), {}) == number
    place = str(tmp_path / "ledger")
    monkeypatch.setenv(ledger.LEDGER_VARIABLE, place)
    race(served, place, tmp_path, racers=3, wins=6, within_s=300)


@pytest.mark.parametrize("place", ["password", "database"])
def test_what_the_database_refuses_is_wrong_input_and_told_at_once(
    database: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = database.partition("@")[0].rpartition(":")[2]
    wrong = database.replace(secret, "wrong") if place == "password" else f"{database}s"
    monkeypatch.setenv(tracking.URI_VARIABLE, wrong)
    began = time.monotonic()
    with pytest.raises(
        InputError, match=r"stillroom:\*\*\*@127\.0\.0\.1.* refuses user, password or its name"
    ) as refused:
        tracking.connect()
    assert time.monotonic() - began < 30  # MLflow by itself asks ten times, for more than 100 s
    assert secret not in str(refused.value)
