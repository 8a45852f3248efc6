"""The result table: one column a model, one row a property; as data, in a terminal and in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stillroom.report import words

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def guarded(summary: Mapping[str, Any]) -> list[str]:
    """The metrics that any student's retention was judged by."""
    return sorted({metric for student in summary["students"].values() for metric in student["retention"]})


def records(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """One record a student, for tables of other tools (a Prefect table artefact, a web page)."""
    return [_record(name, summary) for name in summary["students"]]


def columns(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table: a property's name, every student's value, the teacher's."""
    heading = [name + (" (selected)" if name == summary["selected"] else "") for name in summary["students"]]
    heading = ["", *heading, f"teacher {summary['teacher']['name']}"]
    teacher = _teacher_record(summary["teacher"])
    students = records(summary)
    names = [name for name in students[0] if name not in ("student", "teacher accuracy")]
    return heading, [[name, *(row[name] for row in students), teacher.get(name, "")] for name in names]


def markdown(summary: Mapping[str, Any]) -> str:
    """The table in GitHub's Markdown."""
    return grid(*columns(summary))


def grid(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Any table of words in GitHub's Markdown, figures to the right."""
    lines = [heading, ["---", *(["---:"] * (len(heading) - 1))], *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines) + "\n"


def rich_table(summary: Mapping[str, Any]) -> "Table":
    """The table for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    heading, rows = columns(summary)
    table = Table(header_style="bold")
    for place, name in enumerate(heading):
        table.add_column(escape(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        cells = [escape(cell) for cell in row]
        if row[0] == "verdict":
            cells = [f"[{_COLOURS[cell]}]{cell}[/]" if cell in _COLOURS else cell for cell in cells]
        table.add_row(*cells)
    return table


def rungs(manifest: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table of a package's rungs: fp32 for comparison, then those tried; the last ships."""
    heading = ["rung", "accuracy", "drop", "agrees with fp32", "size", "latency p50", "off PyTorch", "remarks"]
    tried = manifest["rungs"]
    rows = [_rung(rung, "ships" if place == len(tried) else "") for place, rung in enumerate(tried, start=1)]
    compared = manifest.get("fp32")
    return heading, ([_rung(compared, "for comparison")] if compared else []) + rows


def growth(curve: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table of the steps that growth took."""
    heading = ["factor", "texts", "validation loss", "accuracy"]
    return heading, [
        [f"{step['factor']:g}", f"{step['texts']:,}", f"{step['loss']:.4f}", words.quality(step["accuracy"])]
        for step in curve
    ]


def trials(tried: Sequence[Mapping[str, Any]], winner: Mapping[str, Any] | None) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table of what a search tried, in order. winner: the settings that were chosen."""
    heading = ["student", "parameters", "size", "ships as", "p95", "retention", "trained", "remarks"]
    return heading, [_trial(one, one["whole"] and one["settings"] == winner) for one in tried]


def _trial(trial: Mapping[str, Any], chosen: bool) -> list[str]:
    package = trial["measured"]
    figures = ["", "", "", ""]
    if package is not None:
        figures = [
            words.size(package["size_bytes"]),
            package["quantisation"],
            words.milliseconds(package["latency_p95_ms"]),
            words.percent(trial["retention"]),
        ]
    remarks = [*(["chosen"] if chosen else []), *(trial["lacks"] or ("holds all that is asked",))]
    took = "" if package is None else words.duration(package["seconds"]) + ("" if trial["whole"] else ", in part")
    return [trial["name"], words.count(trial["cost"]["params"]), *figures, took, "; ".join(remarks)]


def _rung(rung: Mapping[str, Any], remark: str) -> list[str]:
    def told(name: str, form: Callable[[Any], str]) -> str:
        return form(rung[name]) if name in rung else ""

    off = told("difference", "{:.2g}".format) + told("difference_row", " at row {}".format)
    left_out = [f"in fp32: {', '.join(entry['node'] for entry in rung['left_out'])}"] if rung.get("left_out") else []
    failed = [f"fails: {rung['reason']}"] if "reason" in rung else []
    return [
        rung["rung"],
        told("accuracy", words.quality),
        told("drop", "{:+.4f}".format),
        told("agreement", words.percent),
        told("size_bytes", words.size),
        told("latency_ms", words.milliseconds),
        off,
        "; ".join([*([remark] if remark else []), *left_out, *failed]),
    ]


def headline(summary: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    name = summary["selected"]
    if name is None:
        told = ", ".join(f"{other} {student['verdict']}" for other, student in summary["students"].items())
        return f"No student passes the gate: {told}."
    student = summary["students"][name]
    kept = " and ".join(
        f"{words.percent(at['point'])} of its {words.metric(metric)} (at least {words.percent(at['lower'])})"
        for metric, at in student["retention"].items()
    )
    share = student["params"] / summary["teacher"]["params"]
    faster = f"{student['speedup']['vs_torch_fp32']:,.0f}"
    return (
        f"{name} passes: with {words.percent(share)} of the teacher's parameters it keeps {kept} and answers "
        f"{faster} times as fast as the teacher in PyTorch."
    )


def _record(name: str, summary: Mapping[str, Any]) -> dict[str, str]:
    student, teacher = summary["students"][name], summary["teacher"]
    retention = {f"retention, {words.metric(m)}": _interval(student["retention"].get(m)) for m in guarded(summary)}
    return {
        "student": name,
        "verdict": student["verdict"],
        **retention,
        "accuracy": words.quality(student["metrics"]["accuracy"]),
        "teacher accuracy": words.quality(teacher["metrics"]["accuracy"]),
        "accuracy without teacher": words.quality(student["baseline_metrics"]["accuracy"]),
        "macro-F1": words.quality(student["metrics"]["macro_f1"]),
        "ECE": words.quality(student["metrics"]["ece"]),
        "family": student["family"],
        "parameters": words.count(student["params"]),
        "share of teacher": words.percent(student["params"] / teacher["params"]),
        "size": words.size(student["size_bytes"]),
        "quantisation": student["quantisation"],
        "latency p50": words.milliseconds(student["latency_ms"]["p50"]),
        "latency p95": words.milliseconds(student["latency_ms"]["p95"]),
        "speed vs torch fp32": words.times(student["speedup"]["vs_torch_fp32"]),
        "speed vs ONNX int8": words.times(student["speedup"]["vs_onnx_int8"]),
    }


def _teacher_record(teacher: Mapping[str, Any]) -> dict[str, str]:
    latency, slow = teacher["latency_ms"]["onnx_int8"], teacher["latency_ms"]["torch_fp32"]
    return {
        "accuracy": words.quality(teacher["metrics"]["accuracy"]),
        "macro-F1": words.quality(teacher["metrics"]["macro_f1"]),
        "ECE": words.quality(teacher["metrics"]["ece"]),
        "parameters": words.count(teacher["params"]),
        "size": words.size(teacher["size_bytes"]),
        "quantisation": "fp32 (int8)",
        "latency p50": f"{words.milliseconds(slow['p50'])} ({words.milliseconds(latency['p50'])})",
        "latency p95": f"{words.milliseconds(slow['p95'])} ({words.milliseconds(latency['p95'])})",
        "speed vs torch fp32": f"1 × ({words.times(slow['p50'] / latency['p50'])})",
    }


def _interval(bounds: Mapping[str, float] | None) -> str:
    return "undefined" if bounds is None else words.interval(bounds)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
