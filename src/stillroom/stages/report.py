"""report: the run's page, plots and model cards, and every student's package made ready to ship."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillroom import layout
from stillroom.cost_params import NEEDED, CostParams, Terms
from stillroom.data.grown import TOLD
from stillroom.data.manifest import read_report
from stillroom.data.splits import read_snapshot, read_split
from stillroom.errors import InputError
from stillroom.export.package import relist
from stillroom.export.runtime import read_manifest
from stillroom.files import atomic_folder, read_json
from stillroom.gate.evidence import Evidence, read_evidence
from stillroom.gate.metrics import per_class, reliability
from stillroom.gate.verdict import read_gate_report
from stillroom.governance.check import assess
from stillroom.params import Params
from stillroom.report.card import card
from stillroom.report.costs import Costs, subject, weigh
from stillroom.report.material import Bins, Material, StudentMaterial
from stillroom.report.page import html, markdown
from stillroom.report.plots import plots
from stillroom.report.style import DARK, LIGHT

CARD = "MODEL_CARD.md"
GATE_REPORT = "gate.json"

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish reports/report and release; the same inputs give the same bytes."""
    material = gather(params)
    drawn = {name: {theme.name: draw(theme) for theme in (LIGHT, DARK)} for name, draw in plots(material).items()}
    cards = {student.name: card(material, student) for student in material.students}
    with atomic_folder(layout.REPORT) as target:
        for name, themes in drawn.items():
            (target / f"{name}.png").write_bytes(themes["light"])
        (target / "report.md").write_text(markdown(material, list(drawn)), encoding="utf-8")
        (target / layout.PAGE).write_text(html(material, drawn, cards), encoding="utf-8")
    with atomic_folder(layout.RELEASE) as target:
        for student in material.students:
            release(target / student.name, student, cards[student.name])
    log.info("report: %s", layout.REPORT / layout.PAGE)
    return {"students": float(len(material.students)), "plots": float(len(drawn))}


def gather(params: Params) -> Material:
    """Read what the stages before left; raises InputError where two of them are not of one run."""
    snapshot = read_snapshot(layout.SPLIT)
    summary = read_json(layout.SUMMARY)
    if summary["data"]["sha256"] != snapshot.sha256:
        raise InputError(f"{layout.SUMMARY}: is about other data than {layout.SPLIT}; run the select stage again")
    if list(summary["students"]) != list(params.students):
        raise InputError(f"{layout.SUMMARY}: lists other students than params.yaml; run the select stage again")
    test = read_split(layout.SPLIT, "test")
    evidence = {
        name: read_evidence(layout.EVALUATIONS / name, test.row, test.label, len(snapshot.labels))
        for name in params.students
    }
    first = next(iter(evidence.values()))
    scan = None if params.data.personal_data_scan is None else read_report(layout.INGESTED).personal_data
    return Material(
        summary=summary,
        snapshot=snapshot.model_dump(mode="json"),
        teacher_source=params.teacher.source,
        teacher_licence=params.teacher.licence,
        data_licence=params.data.licence,
        teacher_per_class=per_class(first.labels, first.teacher, snapshot.labels),
        teacher_reliability=_bins(first, "teacher"),
        teacher_history=read_json(layout.TEACHER / "teacher.json")["history"],
        students=[_student(name, found, summary) for name, found in evidence.items()],
        governance=params.governance,
        findings=assess(params, scan=None if scan is None else scan.hits()),
        costs=_costs(params.cost, evidence, summary),
        machine_watts=params.cost.machine_watts,
        scan=scan,
        teacher_members=params.teacher.members,
        grown=read_json(layout.GROWN / TOLD),
    )


def release(folder: Path, student: StudentMaterial, told: str) -> None:
    """Fill release/NAME: the student's package with its gate report and its card `told`, every file listed."""
    shutil.copytree(layout.PACKAGES / student.name / "student", folder, copy_function=shutil.copyfile)
    shutil.copyfile(layout.GATE_REPORTS / f"{student.name}.json", folder / GATE_REPORT)
    (folder / CARD).write_text(told, encoding="utf-8")
    relist(folder, student.manifest)


def _costs(params: CostParams, evidence: Mapping[str, Evidence], summary: Mapping[str, Any]) -> Costs | None:
    terms = Terms.of(params)
    if terms is None:
        if len(params.missing) < len(NEEDED):
            log.warning("report: tells no costs until params.yaml gives %s", ", ".join(params.missing))
        return None
    name = subject(summary)
    return weigh(terms, evidence[name].evaluation, summary["students"][name]["verdict"])


def _student(name: str, evidence: Evidence, summary: Mapping[str, Any]) -> StudentMaterial:
    package = layout.PACKAGES / name / "student"
    manifest = read_manifest(package)
    gate = read_gate_report(layout.GATE_REPORTS / f"{name}.json")
    for told, digest in (
        ("gate report", gate.package_digest),
        ("evaluation", evidence.evaluation.package_digest),
    ):
        if digest != manifest["digest"]:
            raise InputError(
                f"{package}: digest is {manifest['digest']}, its {told} is about {digest}; "
                "run the stages evaluate and select again"
            )
    told = summary["students"][name]
    judged = gate.model_dump(mode="json")
    if any(told[key] != judged[key] for key in ("verdict", "reasons", "retention", "package_digest")):
        raise InputError(
            f"{layout.SUMMARY}: tells other things of {name} than its gate report; run the select stage again"
        )
    training = read_json(layout.STUDENTS / name / "student.json")
    confusion = None
    if manifest["problem_type"] == "single_label":
        confusion = np.zeros((len(manifest["labels"]),) * 2, dtype=np.int64)
        np.add.at(confusion, (evidence.labels, evidence.student.argmax(axis=1)), 1)
    return StudentMaterial(
        name=name,
        gate=judged,
        manifest=manifest,
        per_class=per_class(evidence.labels, evidence.student, manifest["labels"]),
        confusion=confusion,
        reliability=_bins(evidence, "student"),
        history=training["history"],
        baseline_history=training["baseline_history"],
        max_length=manifest["max_length"],
        machine=evidence.evaluation.machine,
        trimming=training["trimming"],
        teacher_latency_ms=evidence.evaluation.teacher.latency_ms.model_dump(),
        checkpoint=training.get("checkpoint"),
        trials=training.get("search", ()),
        settings=training.get("settings"),
    )


def _bins(evidence: Evidence, model: str) -> Bins:
    found = reliability(evidence.labels, getattr(evidence, model))
    return Bins(found.confidence, found.accuracy, found.rows)
