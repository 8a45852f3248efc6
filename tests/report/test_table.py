"""The result table in its three forms."""

import io
from typing import Any

import pytest
from rich.console import Console

from stillroom.report import table
from tests.report.summaries import summary


def test_every_column_a_user_wants_is_there() -> None:
    record = table.records(summary())[0]
    assert list(record) == [
        "student",
        "verdict",
        "retention, accuracy",
        "accuracy",
        "teacher accuracy",
        "accuracy without teacher",
        "macro-F1",
        "ECE",
        "family",
        "parameters",
        "share of teacher",
        "size",
        "quantisation",
        "latency p50",
        "latency p95",
        "speed vs torch fp32",
        "speed vs ONNX int8",
    ]
    assert record["retention, accuracy"].split() == ["0.9900", "[0.9800,", "1.0000]"]
    assert record["speed vs torch fp32"].split() == ["200", "×"]


def test_markdown_is_one_table_of_equal_rows() -> None:
    lines = table.markdown(summary()).splitlines()
    assert {line.count("|") for line in lines} == {5}
    assert "| verdict | PASS | FAIL |  |" in lines
    assert "good (selected)" in lines[0]
    assert "teacher big" in lines[0]


def test_markdown_escapes_what_would_split_a_cell() -> None:
    odd = summary()
    odd["teacher"]["name"] = "a|b"
    assert r"a\|b" in table.markdown(odd)


def test_the_terminal_shows_every_model_in_80_columns() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(table.rich_table(summary()))
    shown = stream.getvalue()
    for word in ("good", "bad", "big", "PASS", "FAIL", "[0.9800"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_metric_without_retention_is_told_as_undefined() -> None:
    odd = summary()
    odd["students"]["bad"]["retention"] = {}
    assert table.records(odd)[1]["retention, accuracy"] == "undefined"


@pytest.mark.parametrize(
    ("selected", "told"),
    [
        (
            "good",
            "with 1.0 % of the teacher's parameters it keeps 99.0 % of its accuracy (at least 98.0 %)",
        ),
        (None, "No student passes the gate: good PASS, bad FAIL."),
    ],
)
def test_headline(selected: Any, told: str) -> None:
    assert told in table.headline(summary() | {"selected": selected}).replace("\u00a0", " ")


def test_rungs_are_told_with_all_that_was_measured_and_why_they_failed() -> None:
    compared = {
        **{"rung": "fp32", "ok": True, "accuracy": 0.95, "drop": 0.0, "agreement": 1.0, "size_bytes": 4000},
        **{"latency_ms": 0.4, "difference": 2e-6, "difference_row": 7},
    }
    failed = {"rung": "static_entropy", "ok": False, "reason": "ValueError: no such node"}
    shipped = compared | {
        **{"rung": "mixed_int8", "drop": 0.0025, "difference": 0.31, "difference_row": 12},
        "left_out": [{"node": "node_linear", "change": 4.0}, {"node": "node_other", "change": 2.0}],
    }
    heading, rows = table.rungs({"rungs": [failed, shipped], "fp32": compared})
    assert {len(row) for row in rows} == {len(heading)}
    told = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["rung"] for row in told] == ["fp32", "static_entropy", "mixed_int8"]
    assert told[0]["remarks"] == "for comparison"
    assert set(told[1].values()) == {"static_entropy", "", "fails: ValueError: no such node"}
    assert told[2]["remarks"] == "ships; in fp32: node_linear, node_other"
    assert told[2]["drop"] == "+0.0025"
    assert told[2]["off PyTorch"] == "0.31 at row 12"
    assert told[2]["latency p50"].split() == ["0.4", "ms"]


def test_a_package_without_a_comparison_has_the_rungs_alone() -> None:
    _, rows = table.rungs({"rungs": [{"rung": "dynamic_int8", "accuracy": 0.9, "drop": 0.0, "size_bytes": 10}]})
    assert [row[0] for row in rows] == ["dynamic_int8"]
    assert rows[0][-1] == "ships"
