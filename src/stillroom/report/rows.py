"""Rows of the page's tables: models on the front, classes, mistakes, what else the gate measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stillroom.report import words
from stillroom.report.material import Material, StudentMaterial
from stillroom.report.pareto import front

_MOST_MISTAKES = 15
_BUDGETS = {
    "max_latency_p95_ms": ("latency p95 of one text", words.milliseconds),
    "max_package_bytes": ("size of the package", words.size),
    "max_peak_memory_bytes": ("peak memory", words.size),
    "max_load_ms": ("start-up", words.milliseconds),
    "max_ece": ("ECE", words.quality),
}


def models(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Teacher, students and both baselines with what they cost, fastest first; front: none beats it in all three."""
    teacher = summary["teacher"]
    latency, int8 = teacher["latency_ms"], teacher["onnx_int8"]
    found = [
        ("teacher, PyTorch", latency["torch_fp32"], teacher["size_bytes"], teacher["metrics"]),
        ("teacher, ONNX int8", latency["onnx_int8"], int8["size_bytes"], int8["metrics"]),
    ]
    for name, student in summary["students"].items():
        for what, metrics in ((name, "metrics"), (f"{name} without the teacher", "baseline_metrics")):
            found.append((what, student["latency_ms"], student["size_bytes"], student[metrics]))
    points = [(cost["p50"], float(size), metrics["accuracy"]) for _, cost, size, metrics in found]
    edge = set(front(points))
    rows = [
        {"name": name, "latency_ms": point[0], "size_bytes": point[1], "accuracy": point[2], "front": index in edge}
        for index, ((name, *_), point) in enumerate(zip(found, points, strict=True))
    ]
    return sorted(rows, key=lambda row: (row["latency_ms"], row["name"]))


def class_rows(material: Material, student: StudentMaterial) -> list[dict[str, Any]]:
    """A row for each class: test rows, F1 and recall of teacher and student, what the gate says of it if it judged
    classes; greatest loss of F1 first."""
    judged = (student.gate.get("class_recall") or {}).get("classes", {})
    rows = [
        {
            "label": label,
            "rows": int(figures["support"]),
            "student": figures,
            "teacher": material.teacher_per_class[label],
            "change": figures["f1"] - material.teacher_per_class[label]["f1"],
            "judged": judged.get(label),
        }
        for label, figures in student.per_class.items()
    ]
    return sorted(rows, key=lambda row: (row["rows"] == 0, row["change"], row["label"]))


def mistakes(material: Material, student: StudentMaterial) -> list[dict[str, Any]]:
    """The pairs of label and wrongly chosen class that happen most: their rows, and the share of the label's rows."""
    if student.confusion is None:
        return []
    wrong = student.confusion - np.diag(np.diag(student.confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES]
    pairs = [divmod(int(place), len(wrong)) for place in order]
    return [
        {
            "label": material.labels[label],
            "chosen": material.labels[chosen],
            "rows": int(wrong[label, chosen]),
            "share": float(wrong[label, chosen] / student.confusion[label].sum()),
        }
        for label, chosen in pairs
        if wrong[label, chosen]
    ]


def budgets(student: StudentMaterial) -> list[tuple[str, str, str, str]]:
    """Every budget of the gate: what, what was measured, its limit, and PASS or FAIL."""
    rows = []
    for name, budget in student.gate.get("budgets", {}).items():
        what, form = _BUDGETS.get(name, (name, "{:g}".format))
        held = "PASS" if budget["measured"] <= budget["limit"] else "FAIL"
        rows.append((what, form(budget["measured"]), form(budget["limit"]), held))
    return rows


def notes(student: StudentMaterial) -> list[str]:
    """In words, what the vocabulary lost and what calibration gave; both are measured on the validation rows."""
    lost, error = student.trimming, student.manifest.get("calibration")
    whose = "its checkpoint" if student.checkpoint else "the teacher"
    told = [
        f"Vocabulary: {lost['pieces']:,} of {whose}'s {lost['pieces_of']:,} pieces; {lost['changed']:.1%} of the "
        f"validation texts are cut otherwise, {lost['unknown']:.2%} of their pieces are unknown "
        f"({lost['unknown_before']:.2%} to {whose})."
    ]
    if error:
        temperature = student.manifest["temperature"]
        before, after = error["ece_before"], error["ece_after"]
        told.append(
            f"Calibration: ECE {before:.3f}, and {after:.3f} with the temperature {temperature:.3g}, on the validation "
            "rows, which also chose it."
        )
    return told


def grown(material: Material) -> str:
    """In words, the texts without a label that the teacher answers for students to learn from."""
    kept, refused = material.grown["kept"], sum(material.grown["refused"].values())
    told = ", ".join(f"{kind} {count:,}" for kind, count in kept.items() if count)
    return (told or "none") + (f"; {refused:,} left out, too near a validation or test row" if refused else "")


def dropped(material: Material) -> list[str]:
    """In words, the rows that are in no split; reasons without rows are left out."""
    return [f"{count:,} {reason.replace('_', ' ')}" for reason, count in material.snapshot["dropped"].items() if count]
