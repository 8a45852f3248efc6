"""The plot of costs: what API, student and teacher have cost by the end of each month, and where lines cross."""

from typing import Any

from stillroom.report.costs import HORIZON, TARGETS, Costs, Option
from stillroom.report.costs_told import amount
from stillroom.report.style import Theme, figure, png

NAME = "break-even"
_WIDTH = 5.4
_TALLEST = 3.0
"""A teacher that costs more times the others is cut off above, so that these can be told apart."""


def break_even_plot(costs: Costs, place: int, theme: Theme) -> bytes:
    """Cumulative cost of the API, the student and the teacher's cheaper form over the months.

    place: of the student in the summary, for its colour. The teacher is dashed, and may lie on the student.
    """
    lines: tuple[tuple[Option, str, Any], ...] = (
        (costs.api, theme.ink, "-"),
        (costs.student, theme.student(place), "-"),
        (costs.teacher, theme.teacher, (0, (4, 3))),
    )
    months = range(HORIZON + 1)
    compared = max(costs.api.total, costs.student.total)
    with figure(theme, _WIDTH, 4.2) as (drawn, axes):
        for option, colour, line in lines:
            label = f"{option.name}: {amount(option.total)} {costs.terms.currency}"
            axes.plot(months, option.spent, color=colour, ls=line, lw=2, label=label)
        top = 1.08 * min(max(compared, costs.teacher.total), _TALLEST * compared)
        axes.set_ylim(0, top)
        axes.set_xlim(0, HORIZON)
        for month in TARGETS[:-1]:
            axes.axvline(month, color=theme.faint, lw=1.2)
        if costs.break_even is not None:
            at = (costs.break_even, costs.student.spent[costs.break_even])
            axes.plot(*at, "o", ms=8, color=theme.good, mec=theme.ground, mew=1.2, zorder=4)
            low = at[1] < top / 10
            late = costs.break_even > HORIZON - 6
            axes.annotate(
                f"month {costs.break_even}",
                at,
                (-8 if late else 8, 7 if low else -7),
                textcoords="offset points",
                ha="right" if late else "left",
                va="bottom" if low else "top",
                size=9,
                weight="bold",
                bbox={"boxstyle": "round,pad=0.15", "fc": theme.ground, "ec": "none"},
            )
        axes.set_xticks(range(0, HORIZON + 1, 6))
        axes.yaxis.set_major_formatter(lambda value, _: amount(value))
        axes.grid()
        axes.legend(loc="upper left")
        axes.set_xlabel("month")
        axes.set_ylabel(f"cost so far, {costs.terms.currency}")
        return png(drawn)
