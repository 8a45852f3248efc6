"""Costs in words: the sentence, what it takes, and every assumption."""

import json
from typing import Any

import pytest

from stillroom.report.costs import HORIZON, weigh
from stillroom.report.costs_told import amount, as_json, assumptions, headline, remarks, table
from tests.report.test_costs import evaluated, terms


def told(verdict: str = "PASS", **changes: Any) -> str:
    """All that is told of a student with these terms, with plain spaces."""
    costs = weigh(terms(**changes), evaluated(), verdict)
    lines = [headline(costs), *remarks(costs), *(f"{name}: {words}" for name, words in assumptions(costs))]
    return "\n".join(lines).replace("\u00a0", " ")


def test_the_month_is_told_with_both_sums() -> None:
    lines = told()
    assert (
        "good pays for itself by the end of month 24: by month 36 it has cost 30,000 EUR, the API 36,000 EUR." in lines
    )
    assert (
        "Calls in the first month that it takes to break even: 1.5 M within 12 months, 1 M within 24 months, " in lines
    )
    assert "API price halved, not within 36 months; API price doubled, month 8; " in lines
    assert "on Testium 4 (2 cores, 2 usable)" in lines
    assert "did not pass the gate" not in lines


def test_never_is_told_with_the_calls_that_it_would_take_or_that_none_would_do() -> None:
    assert "good does not pay for itself within 36 months: by then it has cost " in told(calls_per_month=1_000)
    cheap = told(api_per_1000_calls=0.00001)
    assert "No number of calls would make it pay: a call costs about as much on a machine as at the API" in cheap
    assert "that it takes to break even" not in cheap


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"growth_per_month": 0.02}, "calls: 1,000,000 in the first month, 2.0 % more in each month after"),
        ({"growth_per_month": -0.02}, "calls: 1,000,000 in the first month, 2.0 % fewer in each month after"),
        ({"always_on": False}, "machine: 0.5 EUR an hour, 730 hours a month; hours of work alone are paid"),
        ({"always_on": False}, "load: 50.0 % of that speed is counted on\n"),
        ({"peak": 2.5}, "at the busiest hour, which has 2.5 times the calls of a mean hour"),
        ({"requests": "batch"}, "speed: measured with one process reading in batches"),
        ({"training_hours": None}, "the hours of training are not given, and not counted"),
        ({"training_hours": 1.5}, "1.5 hours of training at the machine's price"),
        ({"currency": "USD"}, "API: 1 USD per 1,000 calls"),
    ],
)
def test_every_assumption_is_told_as_it_is(changes: dict[str, Any], line: str) -> None:
    assert line in told(**changes) + "\n"


def test_a_student_that_did_not_pass_is_no_bargain() -> None:
    assert "good did not pass the gate (FAIL): whatever it costs, do not use it" in told("FAIL")


def test_what_distilling_saves_is_told_against_the_cheaper_teacher() -> None:
    assert (
        "On such machines the teacher (PyTorch) would cost 30,000 EUR by month 36: at these calls distilling saves no"
        in (told())
    )
    busy = weigh(terms(calls_per_month=100_000_000), evaluated(), "PASS")
    saved = (
        f"the {busy.teacher.name} would cost {amount(busy.teacher.total)} EUR by month 36: at these calls distilling "
    )
    assert saved + f"saves {amount(busy.teacher.total - busy.student.total)} EUR." in told(calls_per_month=100_000_000)


def test_the_table_has_every_option_and_what_1000_calls_cost() -> None:
    heading, rows = table(weigh(terms(growth_per_month=0.1, calls_per_month=50_000_000), evaluated(), "PASS"))
    assert {len(row) for row in rows} == {len(heading)}
    assert [row[0] for row in rows] == ["API", "good", "teacher (PyTorch)", "teacher (ONNX int8)"]
    shown = dict(zip(heading, rows[0], strict=True))
    assert (shown["calls a second"], shown["machines"], shown["per 1,000 calls"]) == ("", "", "1.00")
    assert dict(zip(heading, rows[2], strict=True))["machines"] == "4 → 86"
    heading, rows = table(weigh(terms(always_on=False), evaluated(), "PASS"))
    assert dict(zip(heading, rows[1], strict=True))["hours a month"] == "0.0556"


def test_the_json_holds_every_month_and_all_terms() -> None:
    costs = weigh(terms(), evaluated(), "PASS")
    loaded = json.loads(json.dumps(as_json(costs), allow_nan=False))
    assert loaded["break_even_month"] == 24
    assert loaded["calls_needed_within_months"]["24"] == 1_000_000
    assert {len(option["spent"]) for option in loaded["options"]} == {HORIZON + 1}
    assert loaded["terms"] == costs.terms.model_dump()
