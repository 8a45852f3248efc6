"""select: every student's evaluation → its verdict, the cheapest that passes, and the run's summary."""

import logging

from stillroom import layout
from stillroom.data.cases import FILE, read_cases
from stillroom.data.columns import columns_of_test
from stillroom.data.splits import read_snapshot, read_split
from stillroom.files import atomic_folder, sha256_file, write_json
from stillroom.gate.approval import asked
from stillroom.gate.cases import read_case_answers
from stillroom.gate.evidence import read_evidence
from stillroom.gate.select import Judged, summarise, with_spreads
from stillroom.gate.slices import asked_columns, select_rows
from stillroom.gate.spread import twins
from stillroom.gate.verdict import judge
from stillroom.params import Params

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish reports/gate and reports/summary.json; that nobody passes is a result, not a failure."""
    snapshot = read_snapshot(layout.SPLIT)
    test = read_split(layout.SPLIT, "test")
    wanted = asked_columns(params.gate.slices)
    columns = columns_of_test(layout.SOURCE_DATA, snapshot, test.row, wanted) if wanted else {}
    slices = select_rows(params.gate.slices, test.text, columns, quoting=False)
    approval = asked(params.gate, params.governance)
    cases = read_cases(layout.INGESTED / FILE)
    digest = sha256_file(layout.INGESTED / FILE)
    students = []
    for name in params.students:
        folder = layout.EVALUATIONS / name
        evidence = read_evidence(folder, test.row, test.label, len(snapshot.labels))
        answers = read_case_answers(folder, evidence.evaluation, cases, digest, len(snapshot.labels))
        report = judge(evidence, params.gate, snapshot.labels, snapshot.sha256, params.seed, slices, answers)
        students.append(Judged(evidence.evaluation, report.model_copy(update={"approval": approval})))
        log.info("select: %s %s: %s", name, report.verdict, report.reasons[0])
    students = with_spreads(students, twins(params.students, params.seed))
    summary = summarise(students, snapshot.rows, snapshot.sha256)
    with atomic_folder(layout.GATE_REPORTS) as target:
        for student in students:
            write_json(target / f"{student.evaluation.name}.json", student.report.model_dump(mode="json"))
    write_json(layout.SUMMARY, summary)
    for told in summary["seeds"]:
        kept = "; ".join(
            f"retention of {metric} {of['mean']:.4f} ± {of['deviation']:.4f} ({of['least']:.4f} to {of['most']:.4f})"
            for metric, of in told["retention"].items()
        )
        log.info("select: %d seeds of %s: %s", len(told["seeds"]), ", ".join(told["students"]), kept)
    selected = summary["selected"]
    log.info("select: %s", f"{selected} is the cheapest student that passes" if selected else "no student passes")
    passed = sum(student.report.verdict == "PASS" for student in students)
    lowest = {
        f"{name}_{metric}_retention_lower": bounds["lower"]
        for name, student in summary["students"].items()
        for metric, bounds in student["retention"].items()
    }
    return {"students": float(len(students)), "passed": float(passed), **lowest}
