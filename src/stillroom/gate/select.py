"""Choose among the judged students, and sum up the run for people and tools."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stillroom.errors import InputError
from stillroom.gate.evidence import Evaluation, TeacherFigures
from stillroom.gate.spread import spread
from stillroom.gate.verdict import GateReport

TASK = "text-classification"
SAME_LATENCY = 1.05


@dataclass(frozen=True)
class Judged:
    """A student's figures and its verdict."""

    evaluation: Evaluation
    report: GateReport


def cheapest(students: Sequence[Judged]) -> str | None:
    """Name of the cheapest student that passed, or None.

    Cheapest is the lowest p50 latency of one text. Latencies within 5 % of the lowest count as equal, since a
    repeated measurement moves by as much; among them the smallest package wins, and then the first name.
    """
    passed = [student.evaluation for student in students if student.report.verdict == "PASS"]
    if not passed:
        return None
    limit = min(evaluation.latency_ms.p50 for evaluation in passed) * SAME_LATENCY
    fast = [evaluation for evaluation in passed if evaluation.latency_ms.p50 <= limit]
    return min(fast, key=lambda evaluation: (evaluation.size_bytes, evaluation.name)).name


def with_spreads(students: Sequence[Judged], groups: Iterable[Mapping[str, int]]) -> list[Judged]:
    """The students, each report with the spread over its seeds. groups: the seeds of `stillroom.gate.spread.twins`."""
    found = {student.evaluation.name: student for student in students}
    for seeds in groups:
        evaluations = {name: found[name].evaluation for name in seeds}
        points = {name: {m: kept.point for m, kept in found[name].report.retention.items()} for name in seeds}
        told = spread(seeds, evaluations, points)
        for name in seeds:
            report = found[name].report.model_copy(update={"seeds": told})
            found[name] = replace(found[name], report=report)
    return list(found.values())


def summarise(students: Sequence[Judged], rows: Mapping[str, int], data_sha256: str) -> dict[str, Any]:
    """The contents of reports/summary.json. rows: number of rows by split.

    The teacher's latency was measured anew beside each student; the summary shows what was measured beside
    the selected student, or beside the first where none was selected. Raises InputError where the evaluations
    are of different teachers.
    """
    _check_one_teacher([student.evaluation for student in students])
    selected = cheapest(students)
    shown = next((s for s in students if s.evaluation.name == selected), students[0])
    report = shown.report
    return {
        "task": TASK,
        "data": {"rows": dict(rows), "sha256": data_sha256},
        "teacher": shown.evaluation.teacher.model_dump(),
        "students": {student.evaluation.name: _row(student) for student in students},
        "seeds": list(_spreads(students)),
        "selected": selected,
        "gate": {
            "thresholds": dict(report.thresholds),
            "confidence": report.confidence,
            "resamples": report.resamples,
            "seed": report.seed,
            "test_rows": report.test_rows,
        },
        "machine": shown.evaluation.machine,
    }


def _spreads(students: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """The spread of each group of students, once; tuples as the lists that JSON has."""
    told = [student.report.seeds for student in students if student.report.seeds is not None]
    for one in {spread_.students: spread_ for spread_ in told}.values():
        yield {**asdict(one), "students": list(one.students), "seeds": list(one.seeds)}


def _row(student: Judged) -> dict[str, Any]:
    figures, report = student.evaluation, student.report
    return {
        "family": figures.family,
        "params": figures.params,
        "size_bytes": figures.size_bytes,
        "quantisation": figures.quantisation,
        "metrics": figures.metrics.model_dump(),
        "baseline_metrics": figures.baseline_metrics.model_dump(),
        "retention": {metric: bounds.model_dump() for metric, bounds in report.retention.items()},
        "latency_ms": figures.latency_ms.model_dump(),
        "tokenise_latency_ms": figures.tokenise_latency_ms.model_dump(),
        "speedup": figures.speedup.model_dump(),
        "agreement": figures.agreement,
        "throughput_rows_per_s": figures.throughput_rows_per_s,
        "load_ms": figures.load_ms,
        "peak_memory_bytes": figures.peak_memory_bytes,
        "verdict": report.verdict,
        "reasons": list(report.reasons),
        "rows_to_decide": report.rows_to_decide,
        "package_digest": figures.package_digest,
    }


def _check_one_teacher(evaluations: Sequence[Evaluation]) -> None:
    def identity(teacher: TeacherFigures) -> tuple[object, ...]:
        return teacher.name, teacher.params, teacher.size_bytes, teacher.metrics

    first = evaluations[0]
    for other in evaluations[1:]:
        if identity(other.teacher) != identity(first.teacher):
            raise InputError(
                f"artifacts/evaluations: {first.name} and {other.name} are beside different teachers; "
                "run the evaluate stage of both again"
            )
