"""The model card that ships with a package: what it is, how good, how fast, from what, and where it ends."""

from collections.abc import Mapping
from typing import Any

from stillroom.report import words
from stillroom.report.declared import declarations
from stillroom.report.material import Material, StudentMaterial
from stillroom.report.page import render
from stillroom.report.rows import class_rows

_LOST = 0.02
_FEW_ROWS = 20


def card(material: Material, student: StudentMaterial) -> str:
    """The card in Markdown with Hugging Face's metadata block in front."""
    figures = material.summary["students"][student.name]
    teacher = material.summary["teacher"]
    context = {
        "metadata": metadata(material, student),
        "student": student,
        "figures": figures,
        "teacher": teacher,
        "summary": material.summary,
        "snapshot": material.snapshot,
        "sources": {k: v for k, v in material.snapshot["source"].items() if isinstance(v, Mapping)},
        "teacher_source": material.teacher_source,
        "teacher_licence": material.teacher_licence or "not declared",
        "data_licence": material.data_licence or "not declared",
        "governance": declarations(material),
        "classes": class_rows(material, student),
        "limits": limits(material, student),
        "share": words.percent(figures["params"] / teacher["params"]),
        "p50": words.milliseconds(figures["latency_ms"]["p50"]),
        "p95": words.milliseconds(figures["latency_ms"]["p95"]),
        "torch": words.times(figures["speedup"]["vs_torch_fp32"]),
        "int8": words.times(figures["speedup"]["vs_onnx_int8"]),
    }
    return render("card.md.j2", context)


def metadata(material: Material, student: StudentMaterial) -> str:
    """The YAML block. The licence is `other`: which terms bind a student is for its owner to decide."""
    from huggingface_hub import EvalResult, ModelCardData

    figures = material.summary["students"][student.name]
    data = material.snapshot["source"]["train"]["uri"]
    told = {"accuracy": "accuracy", "macro_f1": "f1"}
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=_hub_name(data) or "private",
            dataset_name=words.address(data),
            dataset_split="test",
            metric_type=kind,
            metric_name=words.metric(name),
            metric_value=round(figures["metrics"][name], 6),
        )
        for name, kind in told.items()
    ]
    start = student.checkpoint["source"] if student.checkpoint else material.teacher_source
    base, dataset = _hub_name(start), _hub_name(data)
    block: Any = ModelCardData(
        model_name=student.name,
        license="other",
        license_name="as-declared",
        library_name="stillroom",
        pipeline_tag="text-classification",
        tags=["knowledge-distillation", "onnx", student.manifest["quantisation"], student.manifest["family"]],
        metrics=list(told.values()),
        eval_results=results,
        base_model=base,
        datasets=[dataset] if dataset else None,
    )
    text: str = block.to_yaml()
    return text.strip()


def limits(material: Material, student: StudentMaterial) -> list[str]:
    """What a user must not expect, as far as the figures show it."""
    labels = material.labels
    rows = [row for row in class_rows(material, student) if row["rows"]]
    told = [
        f"It knows {len(labels)} labels and always answers with one of them, whatever the text is about."
        if material.problem_type == "single_label"
        else f"It knows {len(labels)} labels and gives a text any number of them; accuracy counts a text as right "
        "where every label is.",
        f"It reads the first {student.max_length} tokens of a text and nothing after them.",
    ]
    lost = [row for row in rows if row["change"] < -_LOST]
    if lost:
        names = ", ".join(f"{row['label']} ({row['change']:+.3f})" for row in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        told.append(f"Classes that lost more than {_LOST:g} of F1 against the teacher: {names}{more}.")
    few = [row["label"] for row in rows if row["rows"] < _FEW_ROWS]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        told.append(f"Classes with under {_FEW_ROWS} test rows, of which little is known: {', '.join(few[:5])}{more}.")
    absent = sum(1 for row in class_rows(material, student) if not row["rows"])
    if absent:
        told.append(f"{absent} of its labels have no test rows at all; nothing is known about them.")
    verdict = material.summary["students"][student.name]["verdict"]
    if verdict != "PASS":
        told.append(f"It did not pass the gate ({verdict}): do not use it in place of the teacher.")
    return told


def _hub_name(uri: str) -> str | None:
    """owner/name of an address on the Hugging Face hub."""
    if not uri.startswith("hf://"):
        return None
    return "/".join(uri.removeprefix("hf://").split("@")[0].split("/")[:2])
