from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from stillroom.report.pareto import front, pareto
from stillroom.report.style import DARK, LIGHT

points = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: (float(pair[0]), pair[1] / 9)))


@given(given_points=points)
def test_nothing_beats_a_point_of_the_front_and_all_others_are_beaten_or_equalled(
    given_points: list[tuple[float, float]],
) -> None:
    kept = front(given_points)

    def covered(index: int) -> bool:
        cost, quality = given_points[index]
        return any(given_points[other][0] <= cost and given_points[other][1] >= quality for other in kept)

    assert all(covered(index) for index in range(len(given_points)))
    assert len({given_points[index] for index in kept}) == len(kept)
    costs = [given_points[index][0] for index in kept]
    qualities = [given_points[index][1] for index in kept]
    assert costs == sorted(set(costs))
    assert qualities == sorted(set(qualities))


@given(given_points=st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3)))
def test_of_two_costs_both_count(given_points: list[tuple[float, ...]]) -> None:
    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and one[0] <= other[0] and one[1] <= other[1] and one[2] >= other[2]

    kept = {given_points[index] for index in front(given_points)}
    assert kept == {one for one in given_points if not any(beats(other, one) for other in given_points)}


def trial(family: str, whole: bool, retention: float, latency_ms: float) -> dict[str, Any]:
    return {
        "name": f"{family}#0",
        "settings": {"family": family, "epochs": 3 if whole else 1},
        "whole": whole,
        "retention": retention,
        "measured": {"latency_p95_ms": latency_ms},
    }


def test_the_plot_is_a_png_that_changes_with_what_was_chosen() -> None:
    tried = [trial("static", True, 0.97, 0.04), trial("static", False, 0.9, 0.05), trial("cnn", True, 0.99, 0.2)]
    chosen = pareto(tried, tried[0]["settings"], LIGHT)
    assert chosen.startswith(b"\x89PNG")
    assert chosen == pareto(tried, tried[0]["settings"], LIGHT)
    assert chosen != pareto(tried, tried[2]["settings"], LIGHT)
    assert chosen != pareto(tried, tried[0]["settings"], DARK)


def test_the_winner_is_named_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr(Axes, "annotate", lambda _, text, *place, **look: named.append(text))
    beaten, best = trial("cnn", True, 0.98, 0.2), trial("static", True, 0.99, 0.04)
    partial = trial("bilstm", False, 0.999, 0.01)
    pareto([beaten, best, partial], beaten["settings"], LIGHT)
    assert named == ["static#0", "cnn#0 (chosen)"]
    named.clear()
    pareto([beaten, best, partial], best["settings"], LIGHT)
    assert named == ["static#0 (chosen)"]


def test_a_trial_that_failed_is_left_out() -> None:
    tried = [trial("static", True, 0.97, 0.04), trial("cnn", True, 0.99, 0.2)]
    failed = {**trial("bilstm", True, 0.0, 1.0), "measured": None, "retention": None}
    assert pareto([failed, *tried], tried[0]["settings"], LIGHT) == pareto(tried, tried[0]["settings"], LIGHT)
