"""The report of a run as one self-contained HTML page, and as Markdown beside its plots."""

import base64
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stillroom.report import costs_plot, costs_told, words
from stillroom.report.declared import declarations
from stillroom.report.material import Material
from stillroom.report.prose import prose
from stillroom.report.rows import budgets, class_rows, dropped, grown, mistakes, models, notes
from stillroom.report.table import columns, grid, growth, headline, rungs, trials
from stillroom.report.table import markdown as table_markdown

TEMPLATES = Path(__file__).parent / "templates"
_PIXEL_RATIO = 1.3
CHANGE_PLACE = "<!-- what changes since the champion is told here when the run is recorded -->"
"""Where tell_change puts its section."""
_FILTERS = (
    *("address", "count", "duration", "interval", "metric", "milliseconds", "percent", "plain", "quality", "size"),
    "times",
)


@dataclass(frozen=True)
class Plot:
    """A plot on the page: its file's name, heading and caption; its data URIs; its size in CSS pixels."""

    name: str
    title: str
    caption: str
    light: str = ""
    dark: str = ""
    width: int = 0
    height: int = 0


def html(material: Material, drawn: Mapping[str, Mapping[str, bytes]], cards: Mapping[str, str]) -> str:
    """The page. drawn: plot name → theme name → PNG; cards: model cards in Markdown by student. Images, styles and
    the one script, which sorts tables, are in the page; nothing is fetched."""
    shown = [
        Plot(name, *_told(name), _data_uri(themes["light"]), _data_uri(themes["dark"]), *_size(themes["light"]))
        for name, themes in drawn.items()
    ]
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    context = _context(material, shown) | {
        "cards": {name: prose(card, name) for name, card in cards.items()},
        "change_place": Markup(CHANGE_PLACE),
        "script": Markup(script),
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    return render("report.html.j2", context)


def tell_change(page: str, change: Mapping[str, Any], words: str) -> str:
    """The page of `html` with a section on what changes since the champion. change: reports/change.json; words: the
    same in a line. A page without a place for it, of another version of Stillroom, stays as it is."""
    return page.replace(CHANGE_PLACE, render("change.html.j2", {"change": change, "words": words}), 1)


def markdown(material: Material, names: Sequence[str]) -> str:
    """The same report in Markdown; the plots are files beside it."""
    return render("report.md.j2", _context(material, [Plot(name, *_told(name)) for name in names]))


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package; a name that the context lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(words, name) for name in _FILTERS} | {"grid": lambda table: grid(*table)}
    return environment.get_template(template).render(context)


def _context(material: Material, shown: Sequence[Plot]) -> dict[str, Any]:
    summary, snapshot = material.summary, material.snapshot
    heading, rows = columns(summary)
    students = [
        {
            "name": student.name,
            "selected": student.name == summary["selected"],
            **{key: summary["students"][student.name][key] for key in ("verdict", "reasons", "metrics")},
            "gate": student.gate,
            "budgets": budgets(student),
            "classes": class_rows(material, student),
            "mistakes": mistakes(material, student),
            "notes": notes(student),
            "rungs": rungs(student.manifest),
            "trials": trials(student.trials, student.settings) if student.trials else None,
            "lineage": {**student.manifest["lineage"], "package": student.manifest["digest"]},
        }
        for student in material.students
    ]
    return {
        "headline": headline(summary),
        "verdict": "PASS" if summary["selected"] else _best([student["verdict"] for student in students]),
        "summary": summary,
        "heading": heading,
        "rows": rows,
        "models": models(summary),
        "table": table_markdown(summary),
        "students": students,
        "plots": [plot for plot in shown if plot.name != costs_plot.NAME],
        "costs": costs_told.section(material.costs) if material.costs else None,
        "costs_plot": next((plot for plot in shown if plot.name == costs_plot.NAME), None),
        "snapshot": snapshot,
        "sources": {k: v for k, v in snapshot["source"].items() if isinstance(v, Mapping)},
        "dropped": dropped(material),
        "grown": grown(material),
        "curve": growth(curve) if (curve := material.grown["curve"]) else None,
        "data_licence": material.data_licence or "not declared",
        "teacher_licence": material.teacher_licence or "not declared",
        "teacher_source": material.teacher_source,
        "governance": declarations(material),
    }


def _best(verdicts: Sequence[str]) -> str:
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "FAIL"


def _told(name: str) -> tuple[str, str]:
    kind, _, student = name.partition("-")
    return {
        "retention": (
            "Retention",
            "How much of the teacher's quality each student keeps on the test rows. The dot is what was "
            "measured, the bar ends at its bounds. A student passes when the left end reaches the threshold.",
        ),
        "cost": (
            "Quality against cost",
            "Up is better, left is faster, small is small on disk. A ring is the same student trained "
            "without the teacher's answers: the distance is what distilling gained. Nothing beats those on the line in "
            "quality and latency both.",
        ),
        "reliability": (
            "Calibration",
            "How often a model is right when it says how sure it is, in bins of equally many answers on test rows: of "
            "a class each or, where a text may have several labels, of each decision for or against one. "
            "ECE is the mean distance from the dashed line.",
        ),
        "confusion": (
            f"What {student} mistakes for what",
            "Test rows by label and chosen class. Blue is right, orange is wrong; the stronger the colour, "
            "the larger the share of the label's rows.",
        ),
        "search": (
            f"What the search for {student} tried",
            "Packages of the students that were tried, on the validation rows: up is better, left is faster. Hollow "
            "ones were trained for a part of their epochs only. No whole one beats those on the line in both.",
        ),
        "break": (
            "Cost",
            "What each has cost by the end of a month. The dot is the month in which the student has paid for itself "
            "against the API; the teacher is drawn in the form that costs less.",
        ),
        "learning": (
            "Learning curves",
            "Validation accuracy after every epoch, with and without the teacher.",
        ),
    }[kind]


def _data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of a PNG, read from its header, in CSS pixels."""
    width, height = struct.unpack(">II", image[16:24])
    return round(width / _PIXEL_RATIO), round(height / _PIXEL_RATIO)
