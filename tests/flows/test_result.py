"""The result of a run in words."""

from typing import Any

import pytest

from flows.result import in_markdown, in_words

BOUNDS = {"accuracy": {"point": 0.98, "lower": 0.971, "upper": 0.99}}


def result(selected: str | None, executed: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "selected": selected,
        "verdicts": {"small": "PASS" if selected else "FAIL", "tall": "INCONCLUSIVE"},
        "retention": {"small": BOUNDS, "tall": {}},
        "confidence": 0.975,
        "executed": executed,
    }
    return {**made, "told": in_words(made)}


@pytest.mark.parametrize(
    ("selected", "executed", "expected"),
    [
        (
            "small",
            ["teach", "split"],
            "small passed the gate and is the cheapest that did (small PASS, tall INCONCLUSIVE); 2",
        ),
        (None, [], "no student passed the gate (small FAIL, tall INCONCLUSIVE); everything was up to date"),
    ],
)
def test_a_sentence_says_who_passed_and_what_ran(selected: str | None, executed: list[str], expected: str) -> None:
    assert in_words(result(selected, executed)).startswith(expected)


def test_a_sentence_says_that_a_person_must_agree() -> None:
    recorded = {"recorded": {"waits": "version 4 passed and waits for a person's approval"}}
    told = in_words(result("small", []) | recorded)
    assert told.endswith("up to date; version 4 passed and waits for a person's approval")


def test_the_table_has_a_row_for_each_student_and_marks_the_selected() -> None:
    lines = in_markdown(result("small", [])).splitlines()
    assert lines[2] == "| student | verdict | guarded metric | retention | 97.5 % bounds |"
    assert "| **small** | PASS | accuracy | 0.9800 | 0.9710 … 0.9900 |" in lines
    assert "| tall | INCONCLUSIVE | – | – | – … – |" in lines


def test_what_changed_since_the_champion_is_told_where_there_was_one() -> None:
    changed = result("small", []) | {"recorded": {"change": "1.00% of 200 test answers change"}}
    assert "Since the champion before: 1.00% of 200 test answers change" in in_markdown(changed).splitlines()
    assert "champion" not in in_markdown(result("small", []) | {"recorded": {"change": None}})
