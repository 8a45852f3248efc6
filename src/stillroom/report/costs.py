"""What a student on machines of one's own costs, month by month, beside a remote API and beside its teacher.

Pure arithmetic in one currency, without interest; docs/reference/cost.md has the formulas.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from stillroom.cost_params import MOST_CALLS, Terms
from stillroom.gate.evidence import Evaluation

HORIZON = 36
"""Months that are looked at."""
TARGETS = (12, 24, 36)
"""Months by which one may want to break even."""
HOURS_PER_MONTH = 730.0
_SECONDS_PER_HOUR = 3600.0
_EQUAL = 1e-9
"""Rounding must decide neither a month nor a machine: sums this close, relatively, count as equal."""
_STEPS = 10_000


@dataclass(frozen=True)
class Option:
    """A way to have the calls answered. spent: what it has cost by the end of months 0 (before any) to HORIZON.

    calls_per_s: what one machine answers; machine_hours: what is paid of machines in each month. The API has neither.
    """

    name: str
    spent: Sequence[float]
    calls_per_s: float | None = None
    machine_hours: Sequence[float] = ()

    @property
    def total(self) -> float:
        """What it has cost by the last month."""
        return self.spent[-1]


@dataclass(frozen=True)
class Costs:
    """A student beside the API and beside its teacher in either form.

    break_even: see the function. calls_needed: month → the fewest calls in the first month with which the student
    breaks even by then, None if none would do. sensitivity: what is otherwise → the break-even then.
    """

    terms: Terms
    student: Option
    api: Option
    teachers: Sequence[Option]
    verdict: str
    machine: Mapping[str, Any]
    break_even: int | None
    calls_needed: Mapping[int, int | None]
    sensitivity: Mapping[str, int | None]

    @property
    def teacher(self) -> Option:
        """The form of the teacher that costs less; PyTorch if both cost the same."""
        return min(self.teachers, key=lambda option: option.total)


def weigh(terms: Terms, evaluation: Evaluation, verdict: str) -> Costs:
    """Compare a student, by the speeds of its evaluation, with the API and its teacher."""
    teacher = evaluation.teacher
    speed = _speed(terms, evaluation.throughput_rows_per_s, evaluation.latency_ms.p50)
    forms = {
        "PyTorch": _speed(terms, teacher.throughput_rows_per_s, teacher.latency_ms.torch_fp32.p50),
        "ONNX int8": _speed(terms, teacher.onnx_int8.throughput_rows_per_s, teacher.latency_ms.onnx_int8.p50),
    }
    api_price, calls = terms.api_per_1000_calls, terms.calls_per_month
    otherwise = {
        "API price halved": (terms.model_copy(update={"api_per_1000_calls": api_price / 2}), speed),
        "API price doubled": (terms.model_copy(update={"api_per_1000_calls": api_price * 2}), speed),
        "calls halved": (terms.model_copy(update={"calls_per_month": calls / 2}), speed),
        "speed halved": (terms, speed / 2),
    }
    student, api = _own(evaluation.name, terms, speed), Option("API", api_spent(terms))
    return Costs(
        terms=terms,
        student=student,
        api=api,
        teachers=[_own(f"teacher ({form})", terms, calls_per_s) for form, calls_per_s in forms.items()],
        verdict=verdict,
        machine=evaluation.machine,
        break_even=break_even(student.spent, api.spent),
        calls_needed={month: calls_to_break_even(terms, speed, month) for month in TARGETS},
        sensitivity={
            name: break_even(own_spent(changed, slower), api_spent(changed))
            for name, (changed, slower) in otherwise.items()
        },
    )


def subject(summary: Mapping[str, Any]) -> str:
    """The student that is compared: the selected one, else the most accurate of those with the best verdict."""
    students = summary["students"]
    ranked = {name: (one["verdict"] != "FAIL", one["metrics"]["accuracy"]) for name, one in students.items()}
    best: str = summary["selected"] or max(ranked, key=lambda name: ranked[name])
    return best


def api_spent(terms: Terms) -> list[float]:
    """What the API has cost by the end of months 0 to HORIZON."""
    return list(accumulate((calls * terms.api_per_1000_calls / 1000 for calls in monthly_calls(terms)), initial=0.0))


def own_spent(terms: Terms, calls_per_s: float) -> list[float]:
    """What a model of one's own has cost by the end of months 0 to HORIZON, on machines that answer so fast."""
    once, monthly = _besides_machines(terms)
    hours = machine_hours(terms, calls_per_s)
    return list(accumulate((monthly + paid * terms.machine_per_hour for paid in hours), initial=once))


def machine_hours(terms: Terms, calls_per_s: float) -> list[float]:
    """Hours of machines that are paid in each month: of whole machines all month, or of work alone."""
    per_hour = calls_per_s * terms.utilisation * _SECONDS_PER_HOUR
    work = [calls / per_hour for calls in monthly_calls(terms)]
    if not terms.always_on:
        return work
    machines = (math.ceil(hours / HOURS_PER_MONTH * terms.peak * (1 - _EQUAL)) for hours in work)
    return [max(1, needed) * HOURS_PER_MONTH for needed in machines]


def monthly_calls(terms: Terms) -> list[float]:
    """Calls of months 1 to HORIZON."""
    return [terms.calls_per_month * (1 + terms.growth_per_month) ** month for month in range(HORIZON)]


def break_even(own: Sequence[float], api: Sequence[float]) -> int | None:
    """The first month by whose end the own model has cost no more than the API, and costs no more at any end after.

    None where it costs more by the end of HORIZON.
    """
    month = HORIZON + 1
    while month > 1 and own[month - 1] <= api[month - 1] * (1 + _EQUAL):
        month -= 1
    return month if month <= HORIZON else None


def calls_to_break_even(terms: Terms, calls_per_s: float, within: int) -> int | None:
    """The fewest calls in the first month with which break-even is reached within so many months, or None.

    The calls whose API price would pay for all that some number of calls costs on machines of one's own grow with that
    number. So the fewest that pay for themselves are the least fixed point, which is reached from below; where a
    call costs about as much on a machine as at the API, or more, there is none.
    """
    calls = 1
    for _ in range(_STEPS):
        tried = terms.model_copy(update={"calls_per_month": calls})
        own, api = own_spent(tried, calls_per_s), api_spent(tried)
        needed = max(own[month] / api[month] for month in range(within, HORIZON + 1)) * calls
        if needed > MOST_CALLS:
            return None
        enough = math.ceil(needed * (1 - _EQUAL))
        if enough <= calls:
            return calls
        calls = enough
    return None


def _own(name: str, terms: Terms, calls_per_s: float) -> Option:
    return Option(name, own_spent(terms, calls_per_s), calls_per_s, machine_hours(terms, calls_per_s))


def _besides_machines(terms: Terms) -> tuple[float, float]:
    """What is paid once and what each month, whatever the number of calls."""
    training = (terms.training_hours or 0.0) * terms.machine_per_hour
    return terms.setup + training, terms.upkeep_per_month + training * terms.retrainings_per_year / 12


def _speed(terms: Terms, throughput_rows_per_s: float, p50_ms: float) -> float:
    """Calls a second of one machine that runs one process, as it was measured."""
    return throughput_rows_per_s if terms.requests == "batch" else min(throughput_rows_per_s, 1000 / p50_ms)
