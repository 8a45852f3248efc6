import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from stillroom.students.probe import FACTORS, PAYS, Step, climb, probe_settings


def curve(losses: dict[int, float]) -> Callable[[int], Step]:
    return lambda factor: Step(factor, 10 * factor, losses[factor], 0.9)


def test_the_last_step_that_paid_is_taken_and_none_after_the_first_that_did_not_is_tried() -> None:
    chosen, steps = climb(curve({0: 1.0, 1: 0.9, 2: 0.8, 4: 0.79, 8: 0.1, 16: 0.01}))
    assert chosen == 2
    assert [step.factor for step in steps] == [0, 1, 2, 4]


def test_where_nothing_pays_nothing_grows() -> None:
    assert climb(curve(dict.fromkeys(FACTORS, 0.5)))[0] == 0


@given(st.lists(st.floats(0.01, 2.0), min_size=len(FACTORS), max_size=len(FACTORS)))
def test_every_step_up_to_the_chosen_one_paid(losses: list[float]) -> None:
    chosen, steps = climb(curve(dict(zip(FACTORS, losses, strict=True))))
    taken = [step for step in steps if step.factor <= chosen]
    for before, after in itertools.pairwise(taken):
        assert after.loss <= before.loss * (1 - PAYS)
    if taken != steps:
        assert steps[-1].loss > taken[-1].loss * (1 - PAYS)
        assert len(steps) == len(taken) + 1


def test_a_probe_hears_more_rows_of_a_larger_set_and_each_text_less_often() -> None:
    epochs = [probe_settings(factor, 32).epochs for factor in FACTORS]
    assert epochs == sorted(epochs, reverse=True)
    heard = [count * (1 + factor) for count, factor in zip(epochs, FACTORS, strict=True)]
    assert heard == sorted(set(heard))
