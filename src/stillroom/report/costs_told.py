"""Costs in words: what follows from them, their table, and all that was taken for granted; for page and terminal."""

from typing import Any

from stillroom.report import words
from stillroom.report.costs import HORIZON, HOURS_PER_MONTH, TARGETS, Costs, Option, monthly_calls

LEFT_OUT = "network, storage, people on call, discounts, taxes and interest; whether the API answers better or worse"
DISCLAIMER = "A calculation from the assumptions below, not financial advice."


def headline(costs: Costs) -> str:
    """The break-even in one sentence."""
    student, api = (f"{amount(option.total)}{words.GAP}{costs.terms.currency}" for option in (costs.student, costs.api))
    if costs.break_even is None:
        return (
            f"{costs.student.name} does not pay for itself within {HORIZON} months: "
            f"by then it has cost {student}, the API {api}."
        )
    return (
        f"{costs.student.name} pays for itself by the end of month {costs.break_even}: "
        f"by month {HORIZON} it has cost {student}, the API {api}."
    )


def remarks(costs: Costs) -> list[str]:
    """What else a reader must know to decide: the verdict, the calls that it takes, the teacher, what may change."""
    told = []
    if costs.verdict != "PASS":
        told.append(
            f"{costs.student.name} did not pass the gate ({costs.verdict}): whatever it costs, "
            "do not use it in place of the teacher."
        )
    needed = {month: calls for month, calls in costs.calls_needed.items() if calls is not None}
    if needed:
        each = ", ".join(f"{words.count(calls)} within {month} months" for month, calls in needed.items())
        told.append(f"Calls in the first month that it takes to break even: {each}.")
    else:
        told.append(
            "No number of calls would make it pay: a call costs about as much on a machine as at the API, or more."
        )
    teacher, currency = costs.teacher, costs.terms.currency
    saved = teacher.total - costs.student.total
    outcome = f"distilling saves {amount(saved)}{words.GAP}{currency}" if saved > 0 else "distilling saves no money"
    told.append(
        f"On such machines the {teacher.name} would cost {amount(teacher.total)}{words.GAP}{currency} by "
        f"month {HORIZON}: at these calls {outcome}."
    )
    changed = "; ".join(f"{name}, {_month(month)}" for name, month in costs.sensitivity.items())
    return [*told, f"Break-even if things turn out otherwise: {changed}."]


def table(costs: Costs) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: what each option needs of machines, and costs in all by some months and per 1,000 calls."""
    machines = "machines" if costs.terms.always_on else "hours a month"
    heading = ["", "calls a second", machines, *(f"by month {month}" for month in TARGETS), "per 1,000 calls"]
    calls = sum(monthly_calls(costs.terms))
    rows = [
        [
            option.name,
            _speed(option),
            _machines(option, costs.terms.always_on),
            *(amount(option.spent[month]) for month in TARGETS),
            f"{1000 * option.total / calls:#.3g}",
        ]
        for option in (costs.api, costs.student, *costs.teachers)
    ]
    return heading, rows


def assumptions(costs: Costs) -> list[tuple[str, str]]:
    """Name and words of all that was measured, given or taken for granted."""
    terms, machine = costs.terms, costs.machine
    currency = terms.currency
    how = "reading in batches" if terms.requests == "batch" else "answering one call after another"
    direction = "more" if terms.growth_per_month > 0 else "fewer"
    growth = f", {words.percent(abs(terms.growth_per_month))} {direction} in each month after"
    paid = "whole machines run all month, one at least" if terms.always_on else "hours of work alone are paid"
    load = f"{words.percent(terms.utilisation)} of that speed is counted on"
    if terms.always_on:
        load += f" at the busiest hour, which has {terms.peak:g} times the calls of a mean hour"
    training = "the hours of training are not given, and not counted"
    if terms.training_hours is not None:
        training = f"{terms.training_hours:.3g} hours of training at the machine's price"
    return [
        ("calls", f"{terms.calls_per_month:,} in the first month" + (growth if terms.growth_per_month else "")),
        ("API", f"{terms.api_per_1000_calls:g} {currency} per 1,000 calls"),
        ("machine", f"{terms.machine_per_hour:g} {currency} an hour, {HOURS_PER_MONTH:g} hours a month; {paid}"),
        (
            "speed",
            f"measured with one process {how}, on {machine.get('cpu', 'an unknown processor')} "
            f"({machine.get('cores', '?')} cores, {machine.get('threads', '?')} usable)",
        ),
        ("load", load),
        ("once", f"{amount(terms.setup)} {currency} of setup; {training}"),
        (
            "each month",
            f"{amount(terms.upkeep_per_month)} {currency} of upkeep; "
            f"{terms.retrainings_per_year:g} trainings a year after the first",
        ),
        ("teacher", "charged the same once and each month; only its machines differ"),
        ("left out", LEFT_OUT),
    ]


def section(costs: Costs) -> dict[str, Any]:
    """What the templates cost.html.j2 and cost.md.j2 show."""
    heading, rows = table(costs)
    return {
        "headline": headline(costs),
        "remarks": remarks(costs),
        "currency": costs.terms.currency,
        "heading": heading,
        "rows": rows,
        "assumptions": assumptions(costs),
        "disclaimer": DISCLAIMER,
    }


def as_json(costs: Costs) -> dict[str, Any]:
    """Everything as one JSON object."""
    return {
        "student": costs.student.name,
        "verdict": costs.verdict,
        "break_even_month": costs.break_even,
        "calls_needed_within_months": {str(month): calls for month, calls in costs.calls_needed.items()},
        "sensitivity": {name.replace(" ", "_"): month for name, month in costs.sensitivity.items()},
        "options": [
            {
                "name": option.name,
                "calls_per_s": option.calls_per_s,
                "machine_hours": list(option.machine_hours),
                "spent": list(option.spent),
            }
            for option in (costs.api, costs.student, *costs.teachers)
        ],
        "machine": dict(costs.machine),
        "terms": costs.terms.model_dump(mode="json"),
    }


def amount(value: float) -> str:
    """A sum of money without its currency: 31,416 or 3.14."""
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.3g}"


def _month(month: int | None) -> str:
    return f"not within {HORIZON} months" if month is None else f"month {month}"


def _speed(option: Option) -> str:
    return "" if option.calls_per_s is None else amount(option.calls_per_s)


def _machines(option: Option, always_on: bool) -> str:
    if not option.machine_hours:
        return ""
    first, last = (
        f"{hours / HOURS_PER_MONTH:,.0f}" if always_on else f"{hours:,.3g}"
        for hours in (option.machine_hours[0], option.machine_hours[-1])
    )
    return first if first == last else f"{first} → {last}"
