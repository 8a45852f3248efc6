"""The verdict: PASS, FAIL or INCONCLUSIVE, with its reasons in words and numbers.

PASS: the lower bound of every guarded metric's retention reaches its threshold, and every budget holds. FAIL:
an upper bound lies below its threshold, a budget is broken, or the teacher proves nothing. INCONCLUSIVE:
anything else, with the number of test rows that would decide. Missing evidence is never a PASS: files that
are damaged, of other rows or not finite never get here (gate.evidence refuses them), and what evidence cannot
show is INCONCLUSIVE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.errors import InputError
from stillroom.files import read_json
from stillroom.gate.evidence import Evaluation, Evidence
from stillroom.gate.statistics import (
    MIN_CLASS_ROWS,
    Cells,
    MetricName,
    Retention,
    cells,
    retention,
    rows_to_decide,
)
from stillroom.params import GateParams
from stillroom.problem import choices, problem_of

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(_Part):
    """Retention on the test rows and its one-sided bounds at the report's confidence."""

    point: float
    lower: float
    upper: float


class Scores(_Part):
    """A metric of both models on the same test rows."""

    student: float
    teacher: float


class Budget(_Part):
    """An upper limit and what was measured against it, in the unit of the budget's name."""

    limit: float
    measured: float


class GateReport(_Part):
    """gate.json: what was judged, by which rule, and what came out. A metric without retention had no
    meaning."""

    format: Literal[1] = 1
    student: str
    verdict: Verdict
    reasons: tuple[str, ...]
    retention: dict[MetricName, Bounds]
    scores: dict[MetricName, Scores]
    thresholds: dict[MetricName, float]
    budgets: dict[str, Budget]
    rows_to_decide: int | None
    confidence: float
    resamples: int
    seed: int
    test_rows: int
    data_sha256: str
    package_digest: str


@dataclass(frozen=True)
class _Finding:
    """What one criterion says; rows: about how many test rows would decide it, where known."""

    verdict: Verdict
    reason: str
    rows: int | None = None


def judge(evidence: Evidence, gate: GateParams, names: Sequence[str], data_sha256: str, seed: int) -> GateReport:
    """Judge one student by checked evidence. names: the classes' names by id."""
    problem = problem_of(evidence.labels)
    sample = cells(evidence.labels, choices(evidence.teacher, problem), choices(evidence.student, problem))
    measured: dict[MetricName, Retention] = {}
    findings = [_better_than_chance(sample, names)]
    for metric, threshold in sorted(gate.retention.items()):
        try:
            measured[metric] = retention(sample, metric, gate.confidence, gate.resamples, seed)
        except InputError as error:
            findings.append(_Finding("FAIL", str(error)))
            continue
        findings.append(_kept(metric, measured[metric], threshold, sample, names, gate.confidence))
    budgets = _budgets(evidence.evaluation, gate)
    findings += [_within(name, budget) for name, budget in budgets.items()]
    told = [finding for finding in findings if finding is not None]
    verdict = _worst(told)
    open_ = [finding.rows for finding in told if finding.verdict == "INCONCLUSIVE"]
    rows = max((n for n in open_ if n is not None), default=None) if None not in open_ else None
    return GateReport(
        student=evidence.evaluation.name,
        verdict=verdict,
        reasons=tuple(f.reason for f in sorted(told, key=lambda f: f.verdict != verdict)),
        retention={m: Bounds(point=r.point, lower=r.lower, upper=r.upper) for m, r in measured.items()},
        scores={m: Scores(student=r.student, teacher=r.teacher) for m, r in measured.items()},
        thresholds=dict(sorted(gate.retention.items())),
        budgets=budgets,
        rows_to_decide=rows if verdict == "INCONCLUSIVE" else None,
        confidence=gate.confidence,
        resamples=gate.resamples,
        seed=seed,
        test_rows=sample.rows,
        data_sha256=data_sha256,
        package_digest=evidence.evaluation.package_digest,
    )


def read_gate_report(path: Path) -> GateReport:
    """Read a gate report; raises InputError naming what is wrong with it."""
    try:
        return GateReport.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].lower()}; run the select stage again") from error


def _worst(findings: Sequence[_Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    if "FAIL" in verdicts:
        return "FAIL"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"


def _better_than_chance(sample: Cells, names: Sequence[str]) -> _Finding | None:
    """A teacher that knows no more than the most frequent answer has no quality to keep."""
    support = sample.support
    largest = max(support, key=lambda c: support[c])
    hits = float(sample.count[sample.teacher == sample.label].sum())
    if hits > support[largest]:
        return None
    return _Finding(
        "FAIL",
        f"the teacher is right on {hits / sample.rows:.2%} of the test rows, and always answering "
        f"{sample.shown(largest, names)!r} on {support[largest] / sample.rows:.2%}: "
        "keeping such quality proves nothing",
    )


def _kept(
    metric: MetricName,
    found: Retention,
    threshold: float,
    sample: Cells,
    names: Sequence[str],
    confidence: float,
) -> _Finding:
    if metric == "macro_f1" and (thin := _thin_classes(sample, names)):
        return _Finding("INCONCLUSIVE", f"macro_f1: {thin}; it takes {MIN_CLASS_ROWS} of every class to judge it")
    point, limit = f"{metric}: retention {found.point:.4f}", f"the threshold {threshold:g}"
    sure = f"with {confidence:.0%} confidence"
    if found.lower >= threshold:
        return _Finding("PASS", f"{point}, at least {_apart(found.lower, threshold)} {sure}, reaches {limit}")
    if found.upper < threshold:
        return _Finding("FAIL", f"{point}, at most {_apart(found.upper, threshold)} {sure}, is below {limit}")
    rows = rows_to_decide(found, threshold, sample.rows)
    need = f"about {rows:,} test rows would decide" if rows else "no number of test rows would decide so close a case"
    between = f"{_apart(found.lower, threshold)} and {_apart(found.upper, threshold)}"
    return _Finding(
        "INCONCLUSIVE",
        f"{point}, between {between} {sure} on either side, leaves {limit} open; {need}, there are {sample.rows:,}",
        rows,
    )


def _thin_classes(sample: Cells, names: Sequence[str]) -> str:
    support = sample.rows_of_class
    thin = [f"{name!r} has {support.get(c, 0)}" for c, name in enumerate(names) if support.get(c, 0) < MIN_CLASS_ROWS]
    if not thin:
        return ""
    more = f" and {len(thin) - 3} more classes have too few" if len(thin) > 3 else ""
    return f"{', '.join(thin[:3])}{more} test rows"


def _budgets(evaluation: Evaluation, gate: GateParams) -> dict[str, Budget]:
    measured: Mapping[str, float] = {
        "max_latency_p95_ms": evaluation.latency_ms.p95,
        "max_package_bytes": evaluation.size_bytes,
        "max_peak_memory_bytes": evaluation.peak_memory_bytes,
        "max_ece": evaluation.metrics.ece,
    }
    limits = {name: getattr(gate, name) for name in measured}
    return {name: Budget(limit=limit, measured=measured[name]) for name, limit in limits.items() if limit is not None}


def _within(name: str, budget: Budget) -> _Finding:
    what = name.removeprefix("max_")
    if budget.measured <= budget.limit:
        return _Finding("PASS", f"{what} {_short(budget.measured)} is within the budget {_short(budget.limit)}")
    return _Finding("FAIL", f"{what} {_short(budget.measured)} breaks the budget {_short(budget.limit)}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _apart(value: float, other: float) -> str:
    """Four decimals, or as many as it takes to tell the value from the other."""
    for digits in range(4, 12):
        if f"{value:.{digits}f}" != f"{other:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.4f}"
