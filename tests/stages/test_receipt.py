from pathlib import Path

import pytest

from stillroom.stages.receipt import (
    RECEIPTS_VARIABLE,
    address,
    read_receipt,
    receipt_path,
    write_ended,
    write_started,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RECEIPTS_VARIABLE, str(tmp_path / "receipts"))
    return tmp_path / "receipts"


def test_a_stage_is_called_as_dvc_calls_it() -> None:
    assert address("distil", "static") == "distil@static"
    assert address("split", None) == "split"


def test_receipts_stand_where_the_environment_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receipt_path("distil@static") == folder / "distil@static.json"
    assert receipt_path("split", Path("elsewhere")) == Path("elsewhere/split.json")
    monkeypatch.delenv(RECEIPTS_VARIABLE)
    assert receipt_path("split") == Path(".stillroom/receipts/split.json")


def test_an_end_replaces_the_start_and_a_new_start_the_end() -> None:
    first = write_started("split")
    assert read_receipt("split") == first
    write_ended(first, 0, None, {"rows": 3.0})
    ended = read_receipt("split")
    assert ended is not None
    assert (ended.state, ended.exit_code, ended.metrics) == ("finished", 0, {"rows": 3.0})
    assert ended.started_at == first.started_at
    again = write_started("split")
    assert read_receipt("split") == again
    assert again.metrics == {}


@pytest.mark.parametrize("exit_code", [1, 2, 3, 65, 75, 143])
def test_any_other_exit_code_is_a_failure(exit_code: int) -> None:
    write_ended(write_started("split"), exit_code, "because", {})
    found = read_receipt("split")
    assert found is not None
    assert (found.state, found.exit_code, found.error) == ("failed", exit_code, "because")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", '{"stage": "split", "state": "unheard of"}'])
def test_a_receipt_that_cannot_be_read_is_none(folder: Path, content: str) -> None:
    assert read_receipt("split") is None
    write_started("split")
    (folder / "split.json").write_text(content)
    assert read_receipt("split") is None


def test_receipts_of_students_do_not_touch_each_other() -> None:
    write_ended(write_started("distil@one"), 0, None, {})
    write_started("distil@other")
    assert [read_receipt(f"distil@{name}").state for name in ("one", "other")] == ["finished", "started"]  # type: ignore[union-attr]
