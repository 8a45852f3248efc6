import json
from pathlib import Path

import pytest

from stillroom import events


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(path))
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_appended_one_object_a_line(told: Path) -> None:
    events.emit("epoch", epoch=1, note="two\nlines, é")
    events.emit("epoch", epoch=2)
    found = lines(told)
    assert [(line["kind"], line["epoch"]) for line in found] == [("epoch", 1), ("epoch", 2)]
    assert found[0]["note"] == "two\nlines, é"
    assert all(isinstance(line["time"], float) for line in found)


def test_without_an_events_file_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(events.EVENTS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    events.emit("epoch", epoch=1)
    with events.progress("teach", 3) as advance:
        advance(3)
    assert list(tmp_path.iterdir()) == []


def test_an_events_file_that_cannot_be_written_never_fails_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(tmp_path / "absent" / "events"))
    with events.progress("teach", 1) as advance:
        advance(1)
    events.emit("epoch", epoch=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_seldom_and_at_the_end(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with events.progress("capture", 100) as advance:
        for _ in range(100):
            now[0] += 0.01
            advance(1)
    found = lines(told)
    assert 2 <= len(found) <= 5
    assert {line["task"] for line in found} == {"capture"}
    assert (found[-1]["done"], found[-1]["total"]) == (100, 100)
    done = [line["done"] for line in found]
    assert done == sorted(done)  # type: ignore[type-var]


def test_a_failure_inside_progress_passes_through(told: Path) -> None:
    def work() -> None:
        with events.progress("teach", 2) as advance:
            advance(1)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        work()
    assert lines(told)[-1]["done"] == 1
