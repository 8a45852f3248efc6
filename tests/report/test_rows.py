"""Rows of the page's tables: what is told of whom, and in which order."""

from dataclasses import replace

import numpy as np

from stillroom.report.rows import budgets, class_rows, mistakes, models
from tests.report.summaries import summary
from tests.report.test_plots import material


def test_models_are_teacher_students_and_baselines_and_the_front_is_what_nothing_beats() -> None:
    told = models(summary())
    assert {row["name"] for row in told} == {
        "teacher, PyTorch",
        "teacher, ONNX int8",
        *(name + what for name in ("good", "bad") for what in ("", " without the teacher")),
    }
    assert [row["latency_ms"] for row in told] == sorted(row["latency_ms"] for row in told)
    # Both students are as good as the teacher and cost less; of the two equal ones the first counts.
    assert [row["name"] for row in told if row["front"]] == ["good"]


def test_a_dear_model_is_on_the_front_where_it_is_better() -> None:
    run = summary()
    run["teacher"]["metrics"] = run["teacher"]["metrics"] | {"accuracy": 0.96}
    assert {row["name"] for row in models(run) if row["front"]} == {"good", "teacher, PyTorch"}


def test_mistakes_are_the_most_frequent_pairs_and_never_the_right_answers() -> None:
    run = material()
    confusion = np.array([[50, 0, 3], [9, 0, 1], [0, 0, 7]])
    told = mistakes(run, replace(run.students[0], confusion=confusion))
    assert [(row["label"], row["chosen"], row["rows"]) for row in told] == [("b", "a", 9), ("a", "c", 3), ("b", "c", 1)]
    assert [row["share"] for row in told] == [0.9, 3 / 53, 0.1]
    assert mistakes(run, replace(run.students[0], confusion=None)) == []


def test_what_the_gate_says_of_a_class_stands_in_its_row() -> None:
    run = material()
    judged = {"rows": 10, "teacher": 1.0, "student": 0.5, "p_value": 0.01, "verdict": "FAIL"}
    gate = {"class_recall": {"floor": 0.9, "significance": 0.05, "classes": {"b": judged}}}
    rows = class_rows(run, replace(run.students[0], gate=gate))
    assert {row["label"]: row["judged"] for row in rows} == {"a": None, "b": judged, "c": None}


def test_a_budget_holds_at_its_limit() -> None:
    gate = {
        "budgets": {
            "max_latency_p95_ms": {"limit": 2.0, "measured": 2.0},
            "max_package_bytes": {"limit": 1000.0, "measured": 2500.0},
        }
    }
    told = budgets(replace(material().students[0], gate=gate))
    assert [(what, held) for what, *_, held in told] == [
        ("latency p95 of one text", "PASS"),
        ("size of the package", "FAIL"),
    ]
    assert [words.replace("\u00a0", " ") for words in told[1][1:3]] == ["2.5 kB", "1 kB"]
