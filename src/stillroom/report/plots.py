"""The plots of a run. Each function takes material and a theme and returns a PNG."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.report import costs_plot, words
from stillroom.report.material import Bins, Ints, Material
from stillroom.report.pareto import front, pareto
from stillroom.report.rows import models
from stillroom.report.style import Theme, figure, png, rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOP_CLASSES = 12
_WIDTH = 5.4
_LONGEST_LABEL = 24


def plots(material: Material) -> dict[str, Callable[[Theme], bytes]]:
    """Every plot of a run by file name, without its ending, in the order in which a reader wants them."""
    named: dict[str, Callable[[Theme], bytes]] = {
        "retention": partial(retention, material),
        "cost": partial(cost, material),
        "reliability": partial(reliability, material),
    }
    named |= {
        f"confusion-{s.name}": partial(confusion, s.name, s.confusion, list(material.labels))
        for s in material.students
        if s.confusion is not None
    }
    named |= {
        f"search-{s.name}": partial(pareto, s.trials, s.settings) for s in material.students if s.trials and s.settings
    }
    if material.costs is not None:
        place = list(material.summary["students"]).index(material.costs.student.name)
        named[costs_plot.NAME] = partial(costs_plot.break_even_plot, material.costs, place)
    return named | {"learning": partial(learning, material)}


def retention(material: Material, theme: Theme) -> bytes:
    """Retention of every student and guarded metric with its bounds, beside the threshold."""
    summary = material.summary
    thresholds: Mapping[str, float] = summary["gate"]["thresholds"]
    lines = [(name, metric) for metric in thresholds for name in reversed(summary["students"])]
    with figure(theme, _WIDTH, 1.3 + 0.42 * len(lines)) as (drawn, axes):
        for place, (name, metric) in enumerate(lines):
            student = summary["students"][name]
            bounds = student["retention"].get(metric)
            if bounds is None:
                continue
            colour = theme.verdict(student["verdict"])
            axes.plot([bounds["lower"], bounds["upper"]], [place, place], color=colour, lw=3, solid_capstyle="round")
            axes.plot(bounds["point"], place, "o", color=colour, ms=8, mec=theme.ground, mew=1.2)
            axes.annotate(
                f"{bounds['lower']:.3f}",
                (bounds["lower"], place),
                (0, 5),
                textcoords="offset points",
                ha="left",
                va="bottom",
                size=9,
            )
        for metric, threshold in thresholds.items():
            reach = [place for place, line in enumerate(lines) if line[1] == metric]
            axes.plot(
                [threshold, threshold],
                [reach[0] - 0.45, reach[-1] + 0.45],
                color=theme.ink,
                lw=1.2,
                ls=(0, (4, 3)),
            )
            axes.annotate(
                f"threshold {threshold:g}",
                (threshold, reach[-1] + 0.45),
                (0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                size=9,
            )
        axes.set_yticks(range(len(lines)), [f"{name}\n{words.metric(metric)}" for name, metric in lines])
        axes.set_ylim(-0.6, len(lines) - 0.1)
        axes.margins(x=0.18)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"student ÷ teacher, with one-sided {summary['gate']['confidence']:.0%} bounds")
        return png(drawn)


def cost(material: Material, theme: Theme) -> bytes:
    """Quality against latency; the area of a disc grows with the size on disk, a ring is the baseline, and the line
    is the front."""
    summary = material.summary
    teacher = summary["teacher"]
    int8 = teacher["onnx_int8"]
    students = summary["students"]
    marks = [
        (f"teacher\n{what}", teacher["latency_ms"][kind], owner["size_bytes"], owner, theme.teacher)
        for what, kind, owner in (("PyTorch", "torch_fp32", teacher), ("ONNX int8", "onnx_int8", int8))
    ]
    marks += [
        (name, student["latency_ms"], student["size_bytes"], student, theme.student(place))
        for place, (name, student) in enumerate(students.items())
    ]
    largest = max(size for _, _, size, _, _ in marks)
    with figure(theme, _WIDTH, 4.2) as (drawn, axes):
        labels = []
        for name, latency, size, owner, colour in marks:
            at = (latency["p50"], owner["metrics"]["accuracy"])
            area = 40 + 900 * size / largest
            axes.scatter(*at, s=area, color=colour, alpha=0.85, lw=0, zorder=3)
            beside = owner.get("baseline_metrics", owner["metrics"])["accuracy"]
            label = axes.annotate(
                f"{name}\n{words.size(size)}",
                (at[0], max(at[1], beside)),
                (0, 4 + np.sqrt(area) / 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                size=9,
            )
            labels.append(label)
            if "baseline_metrics" in owner:
                axes.plot([at[0]] * 2, [at[1], beside], color=colour, lw=1, ls=":", zorder=2)
                axes.scatter(at[0], beside, s=60, facecolor=theme.ground, edgecolor=colour, lw=1.6, zorder=3)
        points = [(row["latency_ms"], row["accuracy"]) for row in models(summary)]
        edge = [points[index] for index in front(points)]
        axes.plot(*zip(*edge, strict=True), color=theme.faint, lw=1.4, zorder=1)
        ring = axes.scatter([], [], s=60, facecolor=theme.ground, edgecolor=theme.ink, lw=1.6)
        axes.legend([ring], ["the same student trained without the teacher"], loc="lower right")
        axes.set_xscale("log")
        axes.margins(x=0.16, y=0.26)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid()
        axes.set_xlabel("p50 latency of one text, ms (log scale)")
        axes.set_ylabel("accuracy on the test rows")
        _raise_apart(drawn, labels)
        return png(drawn)


def reliability(material: Material, theme: Theme) -> bytes:
    """Accuracy against confidence in bins of equal mass, for the teacher and every student."""
    models: list[tuple[str, Bins, str, float]] = [
        (
            "teacher",
            material.teacher_reliability,
            theme.teacher,
            material.summary["teacher"]["metrics"]["ece"],
        )
    ]
    for place, student in enumerate(material.students):
        ece = material.summary["students"][student.name]["metrics"]["ece"]
        models.append((student.name, student.reliability, theme.student(place), ece))
    with figure(theme, _WIDTH, 4.2) as (drawn, axes):
        low = min(float(min(bins.confidence.min(), bins.accuracy.min())) for _, bins, _, _ in models)
        axes.plot([low, 1], [low, 1], color=theme.faint, lw=1.2, ls=(0, (4, 3)), label="perfect calibration")
        for name, bins, colour, ece in models:
            axes.plot(
                bins.confidence,
                bins.accuracy,
                "o-",
                color=colour,
                lw=1.6,
                ms=5,
                label=f"{name}, ECE {ece:.3f}",
            )
        axes.grid()
        axes.legend(loc="best")
        axes.set_xlabel("confidence in the answer")
        axes.set_ylabel("share that is right")
        return png(drawn)


def confusion(student: str, rows: Ints, labels: list[str], theme: Theme) -> bytes:
    """Rows by label and chosen class: every class, or those with most mistakes and the rest as one."""
    counts, names = condensed(rows, labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(names), dtype=bool)
    strength = np.where(right, 0.75 * share, np.cbrt(share))[..., None]
    hue = np.where(right[..., None], rgb(theme.students[0]), rgb(theme.bad))
    side = 1.7 + 0.42 * len(names)
    with figure(theme, max(side, _WIDTH), max(side - 0.6, 3.2)) as (drawn, axes):
        axes.imshow((1 - strength) * rgb(theme.ground) + strength * hue, aspect="auto")
        for (row, column), value in np.ndenumerate(counts):
            if value:
                strong = bool(strength[row, column, 0] > 0.5)
                colour = theme.on_hue if strong else theme.ink
                axes.text(column, row, str(value), ha="center", va="center", size=8, color=colour)
        for edge in range(1, len(names)):
            axes.axhline(edge - 0.5, color=theme.faint, lw=0.4)
            axes.axvline(edge - 0.5, color=theme.faint, lw=0.4)
        shown = [shortened(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), shown)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(True)
        axes.set_xlabel(f"chosen by {student}")
        axes.set_ylabel("label")
        return png(drawn)


def learning(material: Material, theme: Theme) -> bytes:
    """Validation accuracy by epoch: the teacher, and every student with its baseline."""
    panels: list[tuple[str, list[tuple[str, Any, str, str]]]] = []
    if material.teacher_history:
        panels.append(("teacher", [("fine-tuned", material.teacher_history, theme.teacher, "-")]))
    for place, student in enumerate(material.students):
        colour = theme.student(place)
        curves = [
            ("with the teacher", student.history, colour, "-"),
            ("without", student.baseline_history, colour, ":"),
        ]
        panels.append((student.name, curves))
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    grid = {"nrows": rows, "ncols": columns, "sharey": True, "squeeze": False}
    with figure(theme, _WIDTH, 2.7 * rows, **grid) as (drawn, axes):
        for panel, (title, curves) in zip(axes.flat, panels, strict=False):
            for name, history, colour, line in curves:
                epochs = [epoch["epoch"] for epoch in history]
                accuracy = [epoch["validation_accuracy"] for epoch in history]
                face = colour if line == "-" else theme.ground
                panel.plot(epochs, accuracy, ls=line, marker="o", ms=4, mfc=face, color=colour, label=name)
            panel.set_title(title)
            panel.grid()
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.set_xlabel("epoch")
            if len(curves) > 1:
                panel.legend(loc="lower right")
        for panel in axes.flat[len(panels) :]:
            panel.set_visible(False)
        for first in axes[:, 0]:
            first.set_ylabel("validation accuracy")
        return png(drawn)


def condensed(counts: Ints, labels: list[str]) -> tuple[Ints, list[str]]:
    """The matrix of the classes with most mistakes, all others summed as one; unchanged where they are
    few."""
    if len(labels) <= _TOP_CLASSES:
        return counts, labels
    wrong = counts - np.diag(np.diag(counts))
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: _TOP_CLASSES - 1])
    group = np.full(len(labels), len(kept))
    group[kept] = np.arange(len(kept))
    small = np.zeros((len(kept) + 1, len(kept) + 1), dtype=np.int64)
    np.add.at(small, (group[:, None], group[None, :]), counts)
    return small, [*(labels[c] for c in kept), f"{len(labels) - len(kept)} others"]


def shortened(label: str) -> str:
    """A label that fits beside a plot: its middle goes, since what tells long names apart is at their
    ends."""
    if len(label) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def _raise_apart(drawn: "Figure", labels: list[Any]) -> None:
    """Move labels up, from the lowest on, until none covers another."""
    drawn.draw_without_rendering()
    step = 4.0
    free: list[Any] = []
    for label in sorted(labels, key=lambda label: float(label.get_window_extent().y0)):
        while any(label.get_window_extent().overlaps(other.get_window_extent()) for other in free):
            x, y = label.xyann
            label.xyann = (x, y + step)
        free.append(label)
