"""The arithmetic of costs: against closed forms and brute force, and the directions in which it must move."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stillroom.cost_params import Terms
from stillroom.gate.evidence import Evaluation
from stillroom.report.costs import (
    HORIZON,
    HOURS_PER_MONTH,
    TARGETS,
    api_spent,
    break_even,
    calls_to_break_even,
    machine_hours,
    own_spent,
    subject,
    weigh,
)
from tests.gate.evaluations import evaluation, labels_of, one_hot
from tests.report.summaries import summary


def terms(**changes: Any) -> Terms:
    """A student for 12,000 and 500 a month beside an API of 1,000 a month."""
    plain: dict[str, Any] = {
        "api_per_1000_calls": 1.0,
        "machine_per_hour": 0.5,
        "calls_per_month": 1_000_000,
        "setup": 12_000,
        "upkeep_per_month": 135,
        "training_hours": 0,
    }
    return Terms.model_validate(plain | changes)


FAST = 1_000.0
"""Calls a second with which a machine suffices for some hundred million calls a month."""

any_terms = st.builds(
    terms,
    api_per_1000_calls=st.integers(1, 4_000).map(lambda cents: cents / 100),
    machine_per_hour=st.integers(0, 400).map(lambda cents: cents / 100),
    calls_per_month=st.integers(1, 30_000_000),
    setup=st.integers(0, 60_000),
    upkeep_per_month=st.integers(0, 3_000),
    growth_per_month=st.integers(-10, 10).map(lambda percent: percent / 100),
    always_on=st.booleans(),
    training_hours=st.integers(0, 20),
)
speeds = st.sampled_from([2.0, 37.5, 1_000.0])


def month_of(changed: Terms, calls_per_s: float) -> float:
    """The break-even, infinite where there is none."""
    month = break_even(own_spent(changed, calls_per_s), api_spent(changed))
    return math.inf if month is None else month


def test_a_plain_case_is_what_one_works_out_on_paper() -> None:
    plain = terms()
    assert api_spent(plain) == [1_000.0 * month for month in range(HORIZON + 1)]
    assert own_spent(plain, FAST) == [12_000.0 + 500.0 * month for month in range(HORIZON + 1)]
    assert month_of(plain, FAST) == 24
    assert month_of(terms(setup=12_001), FAST) == 25
    assert month_of(terms(setup=0), FAST) == 1


@given(changed=any_terms, calls_per_s=speeds)
def test_the_month_is_that_of_the_closed_form_where_every_month_is_alike(changed: Terms, calls_per_s: float) -> None:
    level = changed.model_copy(update={"growth_per_month": 0.0})
    training = level.training_hours or 0.0
    once = level.setup + training * level.machine_per_hour
    rent = machine_hours(level, calls_per_s)[0] * level.machine_per_hour
    own = rent + level.upkeep_per_month + training * level.machine_per_hour * level.retrainings_per_year / 12
    gained = level.calls_per_month * level.api_per_1000_calls / 1000 - own
    month = month_of(level, calls_per_s)
    if gained <= 0:
        assert month == math.inf or once == 0
        return
    exact = once / gained
    assume(abs(exact - round(exact)) > 1e-6)
    assert month == (max(1, math.ceil(exact)) if exact <= HORIZON else math.inf)


@given(changed=any_terms, calls_per_s=speeds)
def test_the_month_is_the_first_from_which_no_later_one_is_dearer(changed: Terms, calls_per_s: float) -> None:
    own, api = own_spent(changed, calls_per_s), api_spent(changed)
    cheaper = [spent <= other for spent, other in zip(own, api, strict=True)]
    assume(all(abs(spent - other) > 1e-6 * other for spent, other in zip(own, api, strict=True)))
    found = [month for month in range(1, HORIZON + 1) if all(cheaper[month:])]
    assert break_even(own, api) == (found[0] if found else None)


def test_a_lead_that_is_lost_again_is_no_break_even() -> None:
    own = [0.0, 1.0, 2.0] + [100.0] * (HORIZON - 2)
    assert break_even(own, [0.0, 2.0, 4.0] + [5.0] * (HORIZON - 2)) is None
    assert break_even(own, [0.0, 2.0, 1.0] + [200.0] * (HORIZON - 2)) == 3


@given(changed=any_terms, calls_per_s=speeds, more=st.integers(1, 100))
def test_what_makes_the_api_dearer_or_the_student_cheaper_never_delays(
    changed: Terms, calls_per_s: float, more: int
) -> None:
    month = month_of(changed, calls_per_s)
    dearer = {"api_per_1000_calls": changed.api_per_1000_calls * (1 + more / 10)}
    assert month_of(changed.model_copy(update=dearer), calls_per_s) <= month
    assert month_of(changed, calls_per_s * (1 + more)) <= month
    for costly in ("setup", "upkeep_per_month", "machine_per_hour", "retrainings_per_year"):
        raised = changed.model_copy(update={costly: getattr(changed, costly) + more})
        assert month_of(raised, calls_per_s) >= month


@given(changed=any_terms, calls_per_s=speeds, power=st.integers(-4, 4))
def test_another_currency_changes_no_month_and_no_number_of_calls(
    changed: Terms, calls_per_s: float, power: int
) -> None:
    prices = ("api_per_1000_calls", "machine_per_hour", "setup", "upkeep_per_month")
    scaled = changed.model_copy(update={name: getattr(changed, name) * 2.0**power for name in prices})
    assert month_of(scaled, calls_per_s) == month_of(changed, calls_per_s)
    for month in TARGETS:
        assert calls_to_break_even(scaled, calls_per_s, month) == calls_to_break_even(changed, calls_per_s, month)


@given(changed=any_terms, calls_per_s=speeds, within=st.sampled_from(TARGETS))
def test_the_calls_that_it_takes_suffice_and_no_fewer_do(changed: Terms, calls_per_s: float, within: int) -> None:
    def month(calls: int) -> float:
        return month_of(changed.model_copy(update={"calls_per_month": calls}), calls_per_s)

    needed = calls_to_break_even(changed, calls_per_s, within)
    if needed is None:
        per_call = changed.machine_per_hour / (calls_per_s * changed.utilisation * 3600)
        assert changed.api_per_1000_calls / 1000 <= per_call * (changed.peak if changed.always_on else 1) * 1.001
        assert month(10**12) > within
        return
    assert month(needed) <= within
    fewer = {needed - 1, needed // 2, needed // 10, 1} | {int(needed * share / 20) for share in range(1, 20)}
    assert all(month(calls) > within for calls in fewer if 1 <= calls < needed)


def test_a_step_up_of_machines_is_no_trap_for_the_calls_that_it_takes() -> None:
    stepwise = terms(api_per_1000_calls=0.001, machine_per_hour=1.0, setup=0, upkeep_per_month=0, peak=1)
    carried = int(HOURS_PER_MONTH * 3600 * 1_000.0 * 0.5)
    assert calls_to_break_even(stepwise, 1_000.0, 12) == 730_000_000 < carried
    dearer = stepwise.model_copy(update={"calls_per_month": carried + 10})
    assert machine_hours(dearer, 1_000.0)[0] == 2 * HOURS_PER_MONTH
    assert break_even(own_spent(dearer, 1_000.0), api_spent(dearer)) is None, "it needs a second machine"


@pytest.mark.parametrize(
    ("changes", "machines"),
    [
        ({"calls_per_month": 1}, 1),
        ({"calls_per_month": 2_628_000}, 1),  # 1 a second on average, 4 at the peak, 8 with room
        ({"calls_per_month": 2_628_001}, 2),
        ({"calls_per_month": 2_628_001, "peak": 2.0}, 1),
        ({"calls_per_month": 2_628_001, "utilisation": 1.0}, 1),
        ({"calls_per_month": 26_280_000}, 10),
    ],
)
def test_machines_carry_the_busiest_hour_at_the_wanted_utilisation(changes: dict[str, Any], machines: int) -> None:
    assert machine_hours(terms(**changes), 8.0) == [machines * HOURS_PER_MONTH] * HORIZON


def test_growth_adds_machines_and_work_alone_is_paid_in_parts_of_an_hour() -> None:
    growing = terms(calls_per_month=2_628_000, growth_per_month=0.1)
    hours = machine_hours(growing, 8.0)
    assert hours[:2] == [HOURS_PER_MONTH, 2 * HOURS_PER_MONTH]
    assert hours == sorted(hours)
    paid = machine_hours(growing.model_copy(update={"always_on": False}), 8.0)
    assert paid[0] == pytest.approx(2_628_000 / (8.0 * 0.5 * 3600))
    assert paid[-1] == pytest.approx(paid[0] * 1.1 ** (HORIZON - 1))


def test_training_is_paid_once_and_with_every_retraining() -> None:
    trained = terms(training_hours=10, retrainings_per_year=12, machine_per_hour=2.0)
    untrained = terms(training_hours=None, machine_per_hour=2.0)
    extra = [a - b for a, b in zip(own_spent(trained, FAST), own_spent(untrained, FAST), strict=True)]
    assert extra == pytest.approx([20.0 * (1 + month) for month in range(HORIZON + 1)])


def evaluated(**changes: Any) -> Evaluation:
    labels = labels_of(8)
    return Evaluation.model_validate(evaluation("good", labels, one_hot(labels, 4), one_hot(labels, 4), **changes))


@pytest.mark.parametrize(
    ("requests", "student", "teacher", "int8"),
    [("batch", 20_000.0, 100.0, 300.0), ("single", 10_000.0, 50.0, 200.0)],
)
def test_speed_is_what_was_measured_and_of_single_calls_the_lesser(
    requests: str, student: float, teacher: float, int8: float
) -> None:
    costs = weigh(terms(requests=requests), evaluated(), "PASS")
    assert costs.student.calls_per_s == student
    assert [option.calls_per_s for option in costs.teachers] == [teacher, int8]
    slow = weigh(terms(requests=requests), evaluated(throughput_rows_per_s=7.0), "PASS")
    assert slow.student.calls_per_s == 7.0


def test_the_teacher_needs_the_more_machines_the_slower_it_is() -> None:
    costs = weigh(terms(calls_per_month=100_000_000), evaluated(), "PASS")
    machines = [option.machine_hours[0] / HOURS_PER_MONTH for option in (costs.student, *costs.teachers)]
    assert machines == [1, 7, 2]
    assert costs.student.total < costs.teacher.total
    assert costs.teacher is costs.teachers[1]
    assert weigh(terms(), evaluated(), "PASS").teacher.name == "teacher (PyTorch)", "a tie goes to the teacher itself"


def test_sensitivity_is_what_another_run_with_these_terms_would_tell() -> None:
    costs = weigh(terms(), evaluated(), "PASS")
    assert costs.break_even == 24
    assert costs.sensitivity == {
        "API price halved": weigh(terms(api_per_1000_calls=0.5), evaluated(), "PASS").break_even,
        "API price doubled": weigh(terms(api_per_1000_calls=2), evaluated(), "PASS").break_even,
        "calls halved": weigh(terms(calls_per_month=500_000), evaluated(), "PASS").break_even,
        "speed halved": 24,
    }
    assert (costs.sensitivity["API price halved"], costs.sensitivity["API price doubled"]) == (None, 8)


def test_the_selected_student_is_compared_else_the_best() -> None:
    run = summary()
    assert subject(run) == "good"
    run["students"]["good"]["verdict"] = "FAIL"
    run["students"]["bad"]["verdict"] = "INCONCLUSIVE"
    assert subject(run | {"selected": None}) == "bad"
    run["students"]["bad"] |= {"verdict": "FAIL", "metrics": run["students"]["bad"]["metrics"] | {"accuracy": 0.99}}
    assert subject(run | {"selected": None}) == "bad"
