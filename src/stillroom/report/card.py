"""The model card that ships with a package: what it is, how good, how fast, from what, and where it ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from stillroom.report import words
from stillroom.report.declared import declarations
from stillroom.report.material import Material, StudentMaterial
from stillroom.report.page import render
from stillroom.report.personal import scan_limits
from stillroom.report.rows import class_rows

_LOST = 0.02
_FEW_ROWS = 20
_OF_WHICH = "of which "


def card(material: Material, student: StudentMaterial) -> str:
    """The card in Markdown with Hugging Face's metadata block in front."""
    figures = material.summary["students"][student.name]
    teacher = material.summary["teacher"]
    agreement = student.gate.get("agreement")
    trained = training(material, student)
    context = {
        "metadata": metadata(material, student),
        "student": student,
        "gate": {**dict.fromkeys(("slices", "class_recall", "ece", "disagreements", "cases", "seeds")), **student.gate},
        "figures": figures,
        "agreement": words.interval(agreement) if agreement else words.quality(figures["agreement"]),
        "teacher": teacher,
        "summary": material.summary,
        "snapshot": material.snapshot,
        "tested": _tested(material),
        "sources": {k: v for k, v in material.snapshot["source"].items() if isinstance(v, Mapping)},
        "teacher_source": material.teacher_source,
        "teacher_licence": material.teacher_licence or "not declared",
        "data_licence": material.data_licence or "not declared",
        "governance": declarations(material),
        "classes": class_rows(material, student),
        "limits": [*limits(material, student), *scan_limits(material.scan)],
        "training": trained,
        "energy": energy(trained, material.machine_watts),
        "share": figures["params"] / teacher["params"],
    }
    return render("card.md.j2", context)


def metadata(material: Material, student: StudentMaterial) -> str:
    """The YAML block. The licence is `other`: which terms bind a student is for its owner to decide."""
    from huggingface_hub import EvalResult, ModelCardData

    figures = material.summary["students"][student.name]
    snapshot = material.snapshot
    tested = _tested(material)["uri"]
    told = {"accuracy": ("accuracy", None), "macro_f1": ("f1", {"average": "macro"})}
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=_hub_name(tested) or "private",
            dataset_name=words.address(tested),
            dataset_split="test",
            dataset_args={"rows": snapshot["rows"]["test"], "sha256": snapshot["sha256"]},
            metric_type=kind,
            metric_name=words.metric(name),
            metric_value=round(figures["metrics"][name], 6),
            metric_args=how,
        )
        for name, (kind, how) in told.items()
    ]
    sources = [source["uri"] for source in snapshot["source"].values() if isinstance(source, Mapping)]
    models = [student.checkpoint["source"]] if student.checkpoint else []
    block: Any = ModelCardData(
        model_name=student.name,
        language=list(material.governance.languages) or None,
        license="other",
        license_name="as-declared",
        library_name="stillroom",
        pipeline_tag="text-classification",
        tags=["knowledge-distillation", "onnx", student.manifest["quantisation"], student.manifest["family"]],
        metrics=[kind for kind, _ in told.values()],
        eval_results=results,
        base_model=_on_hub([*models, material.teacher_source]) or None,
        datasets=_on_hub(sources) or None,
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
    recall = student.gate.get("class_recall")
    fallen = [label for label, one in recall["classes"].items() if one["verdict"] == "FAIL"] if recall else []
    if recall and fallen:
        told.append(f"Classes whose recall falls below {recall['floor']} of the teacher's: {', '.join(fallen)}.")
    open_ = [
        f"{name} ({part['verdict']}, {part['rows']:,} rows)"
        for name, part in student.gate.get("slices", {}).items()
        if part["verdict"] != "PASS"
    ]
    if open_:
        told.append(f"Slices in which it is not shown to keep enough of the teacher's accuracy: {', '.join(open_)}.")
    verdict = material.summary["students"][student.name]["verdict"]
    if verdict != "PASS":
        told.append(f"It did not pass the gate ({verdict}): do not use it in place of the teacher.")
    return told


def training(material: Material, student: StudentMaterial) -> list[tuple[str, float | None]]:
    """What was trained and the seconds that its epochs took; None where that was not recorded."""
    tried = [trial["measured"] for trial in student.trials if trial["measured"]]
    members = material.teacher_members
    parts: list[tuple[str, Sequence[Mapping[str, Any]]]] = [
        (f"teacher, fine-tuned{f', the first of {members} members' if members > 1 else ''}", material.teacher_history),
        (f"{len(tried)} trials of the search, with packaging", tried),
        (f"{_OF_WHICH if tried else ''}this student", student.history),
        ("the same without the teacher, for comparison", student.baseline_history),
    ]
    return [
        (what, sum(part["seconds"] for part in told) if all("seconds" in part for part in told) else None)
        for what, told in parts
        if told
    ]


def energy(trained: Sequence[tuple[str, float | None]], watts: float | None) -> str:
    """An estimate, where the machine's power is declared and all of `training` was recorded."""
    seconds = [took_s for what, took_s in trained if not what.startswith(_OF_WHICH)]
    if watts is None:
        return "not measured; cost.machine_watts in params.yaml would give an estimate"
    if None in seconds:
        return "not measured; there is no estimate without the times"
    kwh = sum(filter(None, seconds)) * watts / 3.6e6
    return f"about {kwh:.2g} kWh, which is these times at the {watts:g} W declared for the machine; it was not measured"


def _tested(material: Material) -> Mapping[str, Any]:
    """The source of the test rows."""
    source = material.snapshot["source"]
    found: Mapping[str, Any] = source.get("test") or source["train"]
    return found


def _on_hub(addresses: Sequence[str]) -> list[str]:
    """Names of those that are on the hub, each once."""
    return list(dict.fromkeys(filter(None, map(_hub_name, addresses))))


def _hub_name(uri: str) -> str | None:
    """owner/name of a model's or a data set's address on the Hugging Face hub."""
    if not uri.startswith("hf://"):
        return None
    return "/".join(uri.removeprefix("hf://").removeprefix("datasets/").split("@")[0].split("/")[:2])
