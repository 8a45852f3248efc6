"""Plots: every one is a picture, the same bytes each time, whatever the labels are called."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from stillroom.governance_params import GovernanceParams
from stillroom.report.material import Bins, Material, StudentMaterial
from stillroom.report.plots import condensed, plots, shortened
from stillroom.report.style import DARK, LIGHT
from tests.report.summaries import summary


def material(names: tuple[str, ...] = ("a", "b", "c")) -> Material:
    """Two students over these classes."""
    bins = Bins(np.array([0.5, 0.8]), np.array([0.6, 0.9]), np.array([20, 20]))
    history = [{"epoch": n, "validation_accuracy": 0.8 + n / 100} for n in (1, 2, 3)]
    figures = {"precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 10}
    student = StudentMaterial(
        name="good",
        gate={},
        manifest={"rungs": [], "lineage": {}, "digest": "p" * 64, "quantisation": "fp32", "family": "static"},
        per_class=dict.fromkeys(names, figures),
        confusion=np.eye(len(names), dtype=np.int64) * 9 + 1,
        reliability=bins,
        history=history,
        baseline_history=history[:2],
        max_length=64,
        machine={},
        trimming={},
        teacher_latency_ms={},
    )
    return Material(
        summary=summary(),
        snapshot={
            "problem_type": "single_label",
            "labels": list(names),
            "rows": {"train": 80, "validation": 10, "test": 40},
            "sha256": "d" * 64,
        },
        teacher_source="big",
        teacher_licence=None,
        data_licence=None,
        teacher_per_class=dict.fromkeys(names, figures),
        teacher_reliability=bins,
        teacher_history=history,
        students=[student, replace(student, name="bad")],
        governance=GovernanceParams(),
        findings=[],
        grown={},
    )


def test_every_plot_is_a_png_in_both_themes_and_the_same_each_time() -> None:
    drawn = plots(material())
    assert list(drawn) == ["retention", "cost", "reliability", "confusion-good", "confusion-bad", "learning"]
    for draw in drawn.values():
        light, dark = draw(LIGHT), draw(DARK)
        assert light != dark
        for image in (light, dark):
            assert image.startswith(b"\x89PNG")
            assert min(struct.unpack(">II", image[16:24])) > 150
            assert b"tEXt" not in image
        assert draw(LIGHT) == light


def test_labels_of_any_kind_can_be_drawn() -> None:
    odd = ("$5 off_", "^{x", "退款", "🙂", "<b>&", "x" * 200)
    for draw in plots(material(odd)).values():
        assert draw(LIGHT).startswith(b"\x89PNG")


def test_a_ready_teacher_has_no_curve_and_an_undefined_retention_no_bar() -> None:
    run = replace(material(), teacher_history=[])
    run.summary["students"]["bad"]["retention"] = {}
    drawn = plots(run)
    assert drawn["learning"](LIGHT) != plots(material())["learning"](LIGHT)
    assert drawn["retention"](LIGHT) != plots(material())["retention"](LIGHT)


def test_many_classes_are_condensed_and_no_row_is_lost() -> None:
    rng = np.random.default_rng(0)
    counts = np.diag(np.full(77, 40))
    for _ in range(100):
        counts[rng.integers(77), rng.integers(77)] += 1
    counts[5, 9] += 50
    small, names = condensed(counts, [f"label {n}" for n in range(77)])
    assert small.shape == (12, 12)
    assert small.sum() == counts.sum()
    assert names[-1] == "66 others"
    assert small[names.index("label 5"), names.index("label 9")] == counts[5, 9]


def test_few_classes_stay_as_they_are() -> None:
    counts = np.eye(3, dtype=np.int64)
    small, names = condensed(counts, ["a", "b", "c"])
    assert small is counts
    assert names == ["a", "b", "c"]


@pytest.mark.parametrize("label", ["short", "a_label_that_is_much_too_long_for_a_plot"])
def test_shortened(label: str) -> None:
    short = shortened(label)
    assert len(short) <= 24
    assert (short[0], short[-1]) == (label[0], label[-1])
