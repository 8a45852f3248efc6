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


def test_a_unit_brings_the_speed_of_late_and_the_time_left(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with events.progress("capture", 1_000_000, "rows") as advance:
        advance(500_000)  # done by an earlier run
        for speed in (50, 1500):
            for _ in range(60):
                now[0] += 1.0
                advance(speed)
    found = lines(told)
    assert not found[0].keys() & {"unit", "rate", "seconds_left"}, "what was done before has no speed"
    assert (found[1]["unit"], found[1]["rate"]) == ("rows", 50)
    assert found[1]["seconds_left"] == (1_000_000 - 500_050) / 50
    assert found[-1]["rate"] == 1500
    assert events.rate_told(found[-1]) == "1,500 rows/s"
    assert events.pace_told(found[-1]) == "1,500 rows/s, 0:04:32 left"


def test_the_last_event_has_no_time_left(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with events.progress("capture", 3, "rows") as advance:
        for _ in range(3):
            now[0] += 2.5
            advance(1)
    assert events.pace_told(lines(told)[-1]) == "0.4 rows/s, 0:00:00 left"


def test_without_a_unit_no_speed_is_told(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with events.progress("teach", 3) as advance:
        for _ in range(3):
            now[0] += 1.0
            advance(1)
    for line in lines(told):
        assert line.keys() == {"time", "kind", "task", "done", "total"}
        assert events.rate_told(line) == events.pace_told(line) == ""


def test_a_terminal_shows_the_speed_and_a_pipe_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> str:
        now = [100.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        with events.progress("capture", 5000, "rows") as advance:
            for _ in range(3):
                now[0] += 1.0
                advance(1234)
        return capsys.readouterr().err

    assert work() == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    shown = work()
    for part in ("capture", "3702/5000", "1,234 rows/s", "0:00:02"):
        assert part in shown


def test_a_failure_inside_progress_passes_through(told: Path) -> None:
    def work() -> None:
        with events.progress("teach", 2) as advance:
            advance(1)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        work()
    assert lines(told)[-1]["done"] == 1
