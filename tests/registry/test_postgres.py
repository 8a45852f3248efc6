"""The registry in a real PostgreSQL: by its own address, and behind MLflow's server with a password."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError, TryAgain
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
    assert promotion.rollback("toy", "ada", "back").to_version == 3


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


def test_a_wrong_password_is_no_matter_of_time_and_a_closed_port_is(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _, rest = database.removeprefix("postgresql://").partition(":")
    monkeypatch.setenv(tracking.URI_VARIABLE, f"postgresql://{user}:wrong@{rest.partition('@')[2]}")
    with pytest.raises((InputError, TryAgain)) as refused:
        tracking.connect()
    print(type(refused.value), refused.value)
    assert "wrong" not in str(refused.value)
