"""What each criterion of the gate says of a student, in words and numbers: a finding."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.gate.recall import ClassRecall, least_rows
from stillroom.gate.statistics import MIN_CLASS_ROWS, Cells, Retention, rows_to_decide, teacher_score
from stillroom.gate_params import ClassRecallParams, MetricName

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Need:
    """Rows that would tell what a criterion leaves open. of: the class or slice whose rows they are, None for all test
    rows; rows: about how many, None where no number is known to do; there: how many there are."""

    criterion: Literal["accuracy", "macro_f1", "slice", "class_recall"]
    of: str | None
    rows: int | None
    there: int


@dataclass(frozen=True)
class Finding:
    """What one criterion says; rows: about how many test rows would decide it, where known."""

    verdict: Verdict
    reason: str
    rows: int | None = None
    needs: tuple[Need, ...] = ()


def worst(findings: Sequence[Finding]) -> Verdict:
    """A FAIL outweighs an open question, and an open question a PASS."""
    verdicts = {finding.verdict for finding in findings}
    if "FAIL" in verdicts:
        return "FAIL"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"


def better_than_chance(sample: Cells, names: Sequence[str], metrics: Collection[MetricName]) -> Finding | None:
    """A teacher that knows no more than one answer for all has no quality to keep.

    Where a row may have several classes only what the gate guards counts, since most rows may have none; macro-F1 is
    then compared with that of always giving every class.
    """
    support = sample.support
    largest = max(support, key=lambda c: support[c])
    hits = float(sample.count[sample.teacher == sample.label].sum())
    if sample.several and "macro_f1" in metrics:
        share = [rows / sample.rows for rows in sample.rows_of_class.values()]
        every, reached = sum(2 * s / (1 + s) for s in share) / max(len(share), 1), teacher_score(sample, "macro_f1")
        if reached <= every:
            return Finding(
                "FAIL",
                f"the teacher's macro_f1 is {reached:.4f} on the test rows, and that of always giving every label "
                f"{every:.4f}: keeping such quality proves nothing",
            )
    if hits > support[largest] or (sample.several and "accuracy" not in metrics):
        return None
    return Finding(
        "FAIL",
        f"the teacher is right on {hits / sample.rows:.2%} of the test rows, and always answering "
        f"{sample.shown(largest, names)!r} on {support[largest] / sample.rows:.2%}: "
        "keeping such quality proves nothing",
    )


def kept(what: str, found: Retention, threshold: float, confidence: float, rows: int, of: str = "") -> Finding:
    """A retention against its threshold. of: which of the test rows those are, if not all."""
    point, limit = f"{what}: retention {found.point:.4f}", f"the threshold {threshold:g}"
    sure = f"with {confidence:.0%} confidence"
    if found.lower >= threshold:
        return Finding("PASS", f"{point}, at least {_apart(found.lower, threshold)} {sure}, reaches {limit}")
    if found.upper < threshold:
        return Finding("FAIL", f"{point}, at most {_apart(found.upper, threshold)} {sure}, is below {limit}")
    needed = rows_to_decide(found, threshold, rows)
    kind = f"test rows{of}"
    need = f"about {needed:,} {kind} would decide" if needed else f"no number of {kind} would decide so close a case"
    between = f"{_apart(found.lower, threshold)} and {_apart(found.upper, threshold)}"
    return Finding(
        "INCONCLUSIVE",
        f"{point}, between {between} {sure} on either side, leaves {limit} open; {need}, there are {rows:,}",
        needed,
    )


def too_thin(sample: Cells, names: Sequence[str]) -> Finding | None:
    """Macro-F1 is not judged where a class has too few test rows, or none; None where all have enough."""
    support = sample.rows_of_class
    needs = [
        Need("macro_f1", name, MIN_CLASS_ROWS, support.get(c, 0))
        for c, name in enumerate(names)
        if support.get(c, 0) < MIN_CLASS_ROWS
    ]
    if not needs:
        return None
    thin = ", ".join(f"{need.of!r} has {need.there}" for need in needs[:3])
    more = f" and {len(needs) - 3} more classes have too few" if len(needs) > 3 else ""
    why = f"macro_f1: {thin}{more} test rows; it takes {MIN_CLASS_ROWS} of every class to judge it"
    return Finding("INCONCLUSIVE", why, needs=tuple(needs))


def recalls(found: Mapping[int, ClassRecall], asked: ClassRecallParams, names: Sequence[str]) -> list[Finding]:
    """The classes whose recall is shown to lie below the floor; what no rows can show is told, and fails nothing."""
    failed = sorted((one.p_value, c) for c, one in found.items() if one.p_value <= asked.significance)
    findings = [
        Finding(
            "FAIL",
            f"recall of {names[c]!r}: {found[c].student:.4f} on {found[c].rows:,} test rows, the teacher's "
            f"{found[c].teacher:.4f}, is below {asked.floor:g} of it (p = {p:.2g} after Holm's correction)",
        )
        for p, c in failed
    ]
    level = asked.significance / max(len(found), 1)
    needs = [_needed(name, found.get(c), asked.floor, level) for c, name in enumerate(names)]
    lacking = [need for need in needs if need.rows is None or need.there < need.rows]
    told = [] if failed else [f"no class of {len(found)} is shown to fall below {asked.floor:g} of the teacher's"]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        told.append(f"too few test rows to tell of {', '.join(map(_lack, lacking[:3]))}{more}")
    return findings + ([Finding("PASS", f"recall: {'; '.join(told)}", needs=tuple(lacking))] if told else [])


def _needed(name: str, found: ClassRecall | None, floor: float, level: float) -> Need:
    if found is None:
        return Need("class_recall", name, least_rows(floor, level), 0)
    return Need("class_recall", name, found.needed, found.rows)


def _lack(need: Need) -> str:
    takes = "the teacher never names it" if need.rows is None else f"it takes about {need.rows}"
    return f"{need.of!r} (has {need.there}, {takes})"


def within(name: str, limit: float, measured: float) -> Finding:
    """What was measured against a budget max_…."""
    what = name.removeprefix("max_")
    if measured <= limit:
        return Finding("PASS", f"{what} {_short(measured)} is within the budget {_short(limit)}")
    return Finding("FAIL", f"{what} {_short(measured)} breaks the budget {_short(limit)}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _apart(value: float, other: float) -> str:
    """Four decimals, or as many as it takes to tell the value from the other."""
    for digits in range(4, 12):
        if f"{value:.{digits}f}" != f"{other:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.4f}"
