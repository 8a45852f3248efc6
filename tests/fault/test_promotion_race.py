"""Eight machines promote at once: no entry is lost or written twice, and the alias ends where the ledger does."""

from pathlib import Path

import pytest

from stillroom.registry import ledger, tracking
from tests.registry.conftest import OTHERS_WARNINGS
from tests.registry.racing import race

pytestmark = [pytest.mark.slow, pytest.mark.serial, *(pytest.mark.filterwarnings(w) for w in OTHERS_WARNINGS)]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_two_hundred_promotions_by_eight_machines(
    kind: str,
    registered: tracking.Tracker,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    place = f"{tmp_path}/ledger" if kind == "folder" else f"s3://{request.getfixturevalue('s3')[1]}/ledger"
    monkeypatch.setenv(ledger.LEDGER_VARIABLE, place)
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{state / 'mlflow.db'}")
    race(registered, place, tmp_path, racers=8, wins=25, within_s=500)
