"""Reading what a stage tells."""

from pathlib import Path

import pytest

from stillroom.events import emit
from stillroom.pipeline.events import EventsTail


def test_whole_lines_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events" / "teach.jsonl"
    tail = EventsTail(path)
    monkeypatch.setenv("STILLROOM_EVENTS", str(path))
    assert tail.new() == []
    emit("progress", done=1)
    with path.open("a") as stream:
        stream.write('not json\n[1]\n{"kind": "half')
    assert [event["kind"] for event in tail.new()] == ["progress"]
    with path.open("a") as stream:
        stream.write('"}\n')
    assert tail.new() == [{"kind": "half"}]
    assert tail.new() == []


def test_a_new_tail_starts_an_empty_file_and_a_lost_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"kind": "old"}\n')
    tail = EventsTail(path)
    assert tail.new() == []
    path.unlink()
    assert tail.new() == []
