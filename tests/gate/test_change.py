"""A candidate beside the champion: counts by hand, bounds of the binomial, names in place of ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stillroom.errors import InputError
from stillroom.gate.change import Answer, Change, compare

ANSWERS = st.sampled_from([("a",), ("b",), ("c",), (), ("a", "c")])
ROWS = st.lists(st.tuples(ANSWERS, ANSWERS, ANSWERS), min_size=1, max_size=40)


def compared(rows: list[tuple[Answer, Answer, Answer]]) -> Change:
    labels, champion, candidate = (list(column) for column in zip(*rows, strict=True))
    return compare(labels, champion, candidate, 0.95)


@given(ROWS)
def test_counts_are_those_of_the_rows(rows: list[tuple[Answer, Answer, Answer]]) -> None:
    found = compared(rows)
    assert found.rows == len(rows)
    assert found.flips.point == pytest.approx(np.mean([before != after for _, before, after in rows]))
    assert found.gained == sum(before != label == after for label, before, after in rows)
    assert found.lost == sum(before == label != after for label, before, after in rows)
    assert found.candidate_accuracy - found.champion_accuracy == pytest.approx(
        (found.gained - found.lost) / len(rows), abs=1e-9
    )
    assert found.flips.lower <= found.flips.point <= found.flips.upper


@given(ROWS)
def test_who_is_champion_turns_gained_into_lost(rows: list[tuple[Answer, Answer, Answer]]) -> None:
    found, turned = compared(rows), compared([(label, after, before) for label, before, after in rows])
    assert (found.gained, found.lost, found.flips) == (turned.lost, turned.gained, turned.flips)
    assert found.p_value == turned.p_value


def test_flips_have_the_exact_binomial_bounds() -> None:
    rows: list[tuple[Answer, Answer, Answer]] = [(("a",), ("a",), ("b",) if n < 7 else ("a",)) for n in range(200)]
    interval = binomtest(7, 200).proportion_ci(0.9, method="exact")
    flips = compared(rows).flips
    assert (flips.lower, flips.upper) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_classes_are_told_with_the_most_lost_first_and_rows_without_a_label_too() -> None:
    rows: list[tuple[Answer, Answer, Answer]] = [
        (("a",), ("a",), ("b",)),
        (("b",), ("a",), ("b",)),
        ((), (), ("a",)),
        ((), (), ("b",)),
        (("a", "c"), ("a",), ("a", "c")),
        (("c",), ("c",), ("c",)),
    ]
    told = {name: (one.gained, one.lost) for name, one in compared(rows).classes.items()}
    assert list(told.items()) == [("no label", (0, 2)), ("a", (1, 1)), ("b", (1, 0)), ("c", (1, 0))]


@pytest.mark.parametrize("rows", [([], [], []), ([("a",)], [("a",), ("b",)], [("a",)])])
def test_other_rows_are_refused(rows: tuple[list[Answer], list[Answer], list[Answer]]) -> None:
    with pytest.raises(InputError, match=r"labels, champion and candidate have \[.*\] rows"):
        compare(*rows, confidence=0.95)


def test_the_line_tells_the_figures() -> None:
    line = compared([(("a",), ("a",), ("b",) if n < 1 else ("a",)) for n in range(1000)]).in_words()
    assert line.startswith("0.10% of 1,000 test answers change (at most 0.47% with 95% confidence): 0 gained, 1 lost")
