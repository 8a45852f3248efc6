"""The verdict: PASS, FAIL or INCONCLUSIVE, with its reasons in words and numbers.

PASS: the lower bound of every guarded metric's retention reaches its threshold, over all test rows and in every
slice, no class is shown to fall below its floor, no must-not-change case changed, and every budget holds. FAIL: an
upper bound lies below its threshold, a class, a case or a budget fails, or the teacher proves nothing. INCONCLUSIVE:
anything else, with the number of rows, and of which kind, that would decide. Missing evidence is never a PASS: files
that are damaged, of other rows or not finite never get here (gate.evidence refuses them), and what evidence cannot show
is INCONCLUSIVE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.errors import InputError
from stillroom.files import read_json
from stillroom.gate.approval import Approval
from stillroom.gate.cases import CaseAnswers, unchanged
from stillroom.gate.evidence import Evaluation, Evidence
from stillroom.gate.findings import Finding, Need, Verdict, better_than_chance, kept, recalls, too_thin, within, worst
from stillroom.gate.recall import class_recalls
from stillroom.gate.slices import Mask
from stillroom.gate.spread import SeedSpread
from stillroom.gate.statistics import Cells, Retention, cells, retention
from stillroom.gate.uncertainty import agreement_bounds, ece_bounds, mcnemar
from stillroom.gate_params import GateParams, MetricName
from stillroom.problem import choices, problem_of


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(_Part):
    """What was measured on the test rows, and its one-sided bounds at the report's confidence."""

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


class Disagreements(_Part):
    """Test rows on which one of the two alone is right, and McNemar's exact p-value; they decide nothing."""

    teacher_only: int
    student_only: int
    p_value: float


class ClassFinding(_Part):
    """Recall of both in one class. p_value: of its reaching the floor, after Holm's correction; verdict: INCONCLUSIVE
    where too few rows have the class, which leaves the student's verdict as it is."""

    rows: int
    teacher: float
    student: float
    p_value: float
    verdict: Verdict


class ClassRecalls(_Part):
    """The floor of class recall, and every class that has test rows, by name."""

    floor: float
    significance: float
    classes: dict[str, ClassFinding]


class SliceFinding(_Part):
    """Accuracy in a part of the test rows; without retention where the teacher is never right in it."""

    rows: int
    threshold: float
    verdict: Verdict
    retention: Bounds | None
    scores: Scores | None


class CasesFinding(_Part):
    """Must-not-change cases: whose answers are demanded, how many were answered otherwise, and where in their file all
    of those stand."""

    rows: int
    demanded: Literal["labels", "teacher"]
    changed: int
    where: tuple[str, ...]
    verdict: Verdict


class GateReport(_Part):
    """gate.json: what was judged, by which rule, and what came out. A metric without retention had no meaning; what
    has a default is not in the reports of older versions."""

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
    agreement: Bounds | None = None
    ece: Bounds | None = None
    disagreements: Disagreements | None = None
    class_recall: ClassRecalls | None = None
    slices: dict[str, SliceFinding] = {}
    approval: Approval | None = None
    cases: CasesFinding | None = None
    needs: tuple[Need, ...] = ()
    seeds: SeedSpread | None = None


def judge(
    evidence: Evidence,
    gate: GateParams,
    names: Sequence[str],
    data_sha256: str,
    seed: int,
    slices: Mapping[str, Mask] | None = None,
    cases: CaseAnswers | None = None,
) -> GateReport:
    """Judge one student by checked evidence. names: the classes' names by id; slices: the test rows of each of the
    gate's, from gate.slices; cases: its answers to must-not-change cases, from gate.cases."""
    problem = problem_of(evidence.labels)
    columns = (evidence.labels, choices(evidence.teacher, problem), choices(evidence.student, problem))
    sample = cells(*columns)
    chance = better_than_chance(sample, names, gate.retention)
    findings = [chance] if chance else []
    measured: dict[MetricName, Retention] = {}
    for metric, threshold in sorted(gate.retention.items()):
        found, finding = _retained(metric, sample, gate, seed, threshold)
        if found:
            measured[metric] = found
            if metric == "macro_f1":
                finding = too_thin(sample, names) or finding
        findings.append(finding)
    budgets = _budgets(evidence.evaluation, gate)
    findings += [within(name, budget.limit, budget.measured) for name, budget in budgets.items()]
    classes = _classes(sample, gate, names, findings)
    parts = {}
    for name in gate.slices:
        mask = (slices or {})[name]
        part = cells(*(column[mask] for column in columns))
        parts[name] = _slice(name, part, gate, seed, sample.rows, findings)
    judged_cases = _cases(cases, findings) if cases is not None else None
    verdict = worst(findings)
    open_ = [finding.rows for finding in findings if finding.verdict == "INCONCLUSIVE"]
    rows = max((n for n in open_ if n is not None), default=None) if None not in open_ else None
    lost, won, p_value = mcnemar(sample)
    return GateReport(
        student=evidence.evaluation.name,
        verdict=verdict,
        reasons=tuple(f.reason for f in sorted(findings, key=lambda f: f.verdict != verdict)),
        retention={metric: _bounds(found) for metric, found in measured.items()},
        scores={metric: Scores(student=found.student, teacher=found.teacher) for metric, found in measured.items()},
        thresholds=dict(sorted(gate.retention.items())),
        budgets=budgets,
        rows_to_decide=rows if verdict == "INCONCLUSIVE" else None,
        confidence=gate.confidence,
        resamples=gate.resamples,
        seed=seed,
        test_rows=sample.rows,
        data_sha256=data_sha256,
        package_digest=evidence.evaluation.package_digest,
        agreement=_interval(*agreement_bounds(sample, gate.confidence)),
        ece=_interval(*ece_bounds(evidence.labels, evidence.student, gate.confidence, gate.resamples, seed)),
        disagreements=Disagreements(teacher_only=lost, student_only=won, p_value=p_value),
        class_recall=classes,
        slices=parts,
        cases=judged_cases,
        needs=tuple(need for finding in findings for need in finding.needs),
    )


def read_gate_report(path: Path) -> GateReport:
    """Read a gate report; raises InputError naming what is wrong with it."""
    try:
        return GateReport.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].lower()}; run the select stage again") from error


def _retained(
    metric: MetricName, sample: Cells, gate: GateParams, seed: int, threshold: float, of: str = ""
) -> tuple[Retention | None, Finding]:
    """Retention on these rows and what it says; without any, where the teacher's metric is 0, it fails. of: the slice
    that they are, if not all test rows."""
    what = f"slice {of}" if of else metric
    try:
        found = retention(sample, metric, gate.confidence, gate.resamples, seed)
    except InputError as error:
        return None, Finding("FAIL", f"{what}: {error}" if of else str(error))
    finding = kept(what, found, threshold, gate.confidence, sample.rows, f" of {what}" if of else "")
    if finding.verdict == "INCONCLUSIVE":
        need = Need("slice" if of else metric, of or None, finding.rows, sample.rows)
        finding = replace(finding, needs=(need,))
    return found, finding


def _slice(
    name: str, part: Cells, gate: GateParams, seed: int, test_rows: int, findings: list[Finding]
) -> SliceFinding:
    """Judge a slice and add what it says to the findings, whose rows are those of the whole test set."""
    threshold = gate.slices[name].retention or gate.retention["accuracy"]
    found, finding = _retained("accuracy", part, gate, seed, threshold, name)
    scaled = finding.rows and -(-finding.rows * test_rows // part.rows)
    findings.append(replace(finding, rows=scaled))
    return SliceFinding(
        rows=part.rows,
        threshold=threshold,
        verdict=finding.verdict,
        retention=_bounds(found) if found else None,
        scores=Scores(student=found.student, teacher=found.teacher) if found else None,
    )


def _classes(sample: Cells, gate: GateParams, names: Sequence[str], findings: list[Finding]) -> ClassRecalls | None:
    """Judge the recall of every class, where that is asked for, and add what it says to the findings."""
    asked = gate.class_recall
    if asked is None:
        return None
    found = class_recalls(sample, asked.floor, asked.significance)
    findings += recalls(found, asked, names)
    classes = {}
    for c, one in found.items():
        failed = one.p_value <= asked.significance
        verdict: Verdict = "FAIL" if failed else "PASS" if one.decidable else "INCONCLUSIVE"
        classes[names[c]] = ClassFinding(
            rows=one.rows, teacher=one.teacher, student=one.student, p_value=one.p_value, verdict=verdict
        )
    return ClassRecalls(floor=asked.floor, significance=asked.significance, classes=classes)


def _cases(answers: CaseAnswers, findings: list[Finding]) -> CasesFinding:
    """Judge the cases and add what they say to the findings."""
    findings.append(unchanged(answers))
    return CasesFinding(
        rows=len(answers.place),
        demanded=answers.demanded,
        changed=len(answers.where),
        where=answers.where,
        verdict=findings[-1].verdict,
    )


def _bounds(found: Retention) -> Bounds:
    return _interval(found.point, found.lower, found.upper)


def _interval(point: float, lower: float, upper: float) -> Bounds:
    return Bounds(point=point, lower=lower, upper=upper)


def _budgets(evaluation: Evaluation, gate: GateParams) -> dict[str, Budget]:
    measured: Mapping[str, float] = {
        "max_latency_p95_ms": evaluation.latency_ms.p95,
        "max_package_bytes": evaluation.size_bytes,
        "max_peak_memory_bytes": evaluation.peak_memory_bytes,
        "max_load_ms": evaluation.load_ms,
        "max_ece": evaluation.metrics.ece,
    }
    limits = {name: getattr(gate, name) for name in measured}
    return {name: Budget(limit=limit, measured=measured[name]) for name, limit in limits.items() if limit is not None}
