"""A stage's progress in Prefect."""

import time
from typing import Any

import pytest

from flows import progress
from flows.progress import ProgressArtefact


class Server:
    """Stands in for the API of artefacts, so that its failures can be had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delay_s: float = 0.0, fails: bool = False) -> None:
        import prefect.artifacts

        self.shown: list[tuple[float, str]] = []
        self._delay_s, self._fails = delay_s, fails
        monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", self._create)
        monkeypatch.setattr(prefect.artifacts, "update_progress_artifact", self._update)
        monkeypatch.setattr(progress, "_PERIOD_S", 0.05)

    def _create(self, percent: float, description: str) -> str:
        time.sleep(self._delay_s)
        if self._fails:
            raise ConnectionError("no server")
        self.shown.append((percent, description))
        return "id"

    def _update(self, artifact: Any, percent: float, description: str) -> None:
        assert artifact == "id"
        self._create(percent, description)


def event(done: int, total: int = 4) -> dict[str, Any]:
    return {"kind": "progress", "task": "epoch", "done": done, "total": total}


def test_the_newest_progress_is_shown_and_the_last_always(monkeypatch: pytest.MonkeyPatch) -> None:
    server, artefact = Server(monkeypatch), ProgressArtefact("teach")
    for done in range(5):
        artefact.show(event(done))
    artefact.close()
    assert server.shown[-1] == (100.0, "teach: epoch, 4 of 4")
    assert len(server.shown) <= 3
    assert [percent for percent, _ in server.shown] == sorted(percent for percent, _ in server.shown)


def test_the_speed_and_the_time_left_are_shown_once_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server, artefact = Server(monkeypatch), ProgressArtefact("capture")
    artefact.show(event(3) | {"unit": "rows", "rate": 1234.4, "seconds_left": 3700})
    artefact.close()
    assert server.shown == [(75.0, "capture: epoch, 3 of 4, 1,234 rows/s, 1:01:40 left")]


def test_what_is_no_progress_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    server, artefact = Server(monkeypatch), ProgressArtefact("teach")
    artefact.show({"kind": "versioned"})
    artefact.show(event(1, total=0))
    artefact.close()
    assert server.shown == []


def test_a_slow_or_dead_server_costs_the_stage_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server, artefact = Server(monkeypatch, delay_s=0.3, fails=True), ProgressArtefact("teach")
    started = time.monotonic()
    for done in range(5):
        artefact.show(event(done))
    assert time.monotonic() - started < 0.2
    artefact.close()
    assert server.shown == []
