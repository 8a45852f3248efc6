"""The plot of costs: a picture of any costs, the same bytes each time."""

import struct
from typing import Any

import pytest
from matplotlib.axes import Axes

from stillroom.report.costs import weigh
from stillroom.report.costs_plot import break_even_plot
from stillroom.report.style import DARK, LIGHT
from tests.report.test_costs import evaluated, terms


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"calls_per_month": 1},
        {"calls_per_month": 900_000},
        {"setup": 0, "upkeep_per_month": 0, "machine_per_hour": 0},
        {"calls_per_month": 10**15, "growth_per_month": 1.0},
    ],
)
def test_any_costs_can_be_drawn_the_same_each_time_and_differ_by_theme_and_place(changes: dict[str, Any]) -> None:
    costs = weigh(terms(**changes), evaluated(), "PASS")
    light = break_even_plot(costs, 0, LIGHT)
    assert light.startswith(b"\x89PNG")
    assert min(struct.unpack(">II", light[16:24])) > 150
    assert light == break_even_plot(costs, 0, LIGHT)
    assert len({light, break_even_plot(costs, 0, DARK), break_even_plot(costs, 1, LIGHT)}) == 3


@pytest.mark.parametrize(
    ("setup", "named"), [(0, ["month 1"]), (12_000, ["month 24"]), (17_000, ["month 34"]), (99_000, [])]
)
def test_the_break_even_is_marked_where_there_is_one(
    setup: int, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[str] = []
    monkeypatch.setattr(Axes, "annotate", lambda _, text, *place, **look: marked.append(text))
    break_even_plot(weigh(terms(setup=setup), evaluated(), "PASS"), 0, LIGHT)
    assert marked == named
