"""What a search tried: quality against speed on validation rows, and the front that nothing beats in both."""

from collections.abc import Mapping, Sequence
from operator import le
from typing import Any

from stillroom.report.style import Theme, figure, png

_WIDTH = 5.4
Trials = Sequence[Mapping[str, Any]]


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the (cost, …, quality) points that no other point beats or equals in all of them, cheapest first.

    Costs are better small, quality, the last, large. Of equal points the first counts.
    """
    better = [(*point[:-1], -point[-1]) for point in points]
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (better[index], index)):
        if not any(all(map(le, better[other], better[index])) for other in kept):
            kept.append(index)
    return kept


def pareto(trials: Trials, winner: Mapping[str, Any], theme: Theme) -> bytes:
    """Retention of every trial's package against its p95 latency; hollow ones were trained in part.

    A trial that failed has no package and is left out. winner: the settings that were chosen.
    """
    shown = [trial for trial in trials if trial["measured"] is not None]
    points = [(trial["measured"]["latency_p95_ms"], trial["retention"]) for trial in shown]
    whole = [index for index, trial in enumerate(shown) if trial["whole"]]
    edge = [whole[index] for index in front([points[index] for index in whole])]
    chosen = [index for index in whole if shown[index]["settings"] == winner]
    families = list(dict.fromkeys(trial["settings"]["family"] for trial in shown))
    with figure(theme, _WIDTH, 4.2) as (drawn, axes):
        axes.plot(*zip(*(points[index] for index in edge), strict=True), color=theme.faint, lw=1.4, zorder=1)
        for trial, point in zip(shown, points, strict=True):
            colour = theme.student(families.index(trial["settings"]["family"]))
            face = colour if trial["whole"] else theme.ground
            axes.plot(*point, "o", ms=8, mfc=face, mec=colour)
        for index in dict.fromkeys([*edge, *chosen]):
            axes.annotate(
                shown[index]["name"] + (" (chosen)" if index in chosen else ""),
                points[index],
                (0, 7),
                textcoords="offset points",
                ha="center",
                va="bottom",
                size=9,
                weight="bold" if index in chosen else "normal",
            )
        if len(families) > 1:
            for place, family in enumerate(families):
                axes.plot([], [], "o", ms=8, color=theme.student(place), label=family)
            axes.legend(loc="lower right", frameon=True)
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid()
        axes.set_xlabel("p95 latency of one text, ms (log scale)")
        axes.set_ylabel("retention on the validation rows")
        return png(drawn)
