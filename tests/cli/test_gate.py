"""`stillroom gate power`: what it prints of planned and of present test rows, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from stillroom import layout
from tests.cli.conftest import Call
from tests.gate.evaluations import write_split


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no checkout, with a params file."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(
        "data: {source: rows.csv}\nteacher: {source: teacher}\nstudents: {tiny: {family: static}}\n"
        "gate: {retention: {accuracy: 0.9}}\n"
    )
    return path


def test_a_plan_is_judged_without_any_workspace(call: Call, params: Path) -> None:
    plan = ("gate", "power", "--params", params, "--rows", 300, "--classes", 3, "--runs", 20)
    code, out, err = call(*plan, "--json")
    assert (code, err) == (0, [])
    told = json.loads(out)
    assert (told["test_rows"], told["classes"], told["runs"]) == (300, 3, 20)
    accuracy = told["metrics"]["accuracy"]
    assert accuracy["threshold"] == 0.9
    assert accuracy["false_pass_rate"] <= 0.25
    assert 0.9 < accuracy["least_retention"]["0.8"] <= accuracy["least_retention"]["0.95"] <= 1.0
    code, out, err = call(*plan)
    assert (code, err) == (0, [])
    assert f"{accuracy['least_retention']['0.8']:.4f}" in out
    assert "300 test rows of 3 classes" in out


def test_the_present_split_is_judged_by_its_own_classes(call: Call, params: Path, tmp_path: Path) -> None:
    write_split(tmp_path / layout.SPLIT, np.repeat([0, 1, 2, 3], [100, 60, 36, 4]))
    both = ("--set", "gate.retention.macro_f1=0.8")
    code, out, err = call("gate", "power", "--params", params, "--workspace", tmp_path, "--runs", 20, "--json", *both)
    assert (code, err) == (0, [])
    told = json.loads(out)
    assert (told["test_rows"], told["classes"]) == (200, 4)
    assert told["metrics"]["accuracy"]["copy_pass_rate"] == 1.0
    assert told["metrics"]["macro_f1"]["least_retention"] == {"0.8": None, "0.95": None}  # a class of 4 rows


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rows", 100], "give --rows and --classes both"),
        (["--rows", 3, "--classes", 4], "--rows is 3 and --classes 4"),
        (["--rows", 100, "--classes", 4, "--teacher-accuracy", 1.5], "--teacher-accuracy is 1.5"),
        (["--rows", 100, "--classes", 2, "--teacher-accuracy", 0.5], "the most frequent answer has 50.00%"),
        (["--workspace", "."], "no split yet"),
        (["--rows", 100, "--classes", 4, "--set", "gate.retention.accuracy=2"], "gate.retention.accuracy is 2"),
        (["--rows", 100, "--classes", 4, "--set", "gate.slices.a.pattern='(a'"], "does not compile: missing )"),
    ],
)
def test_refused_in_one_line(call: Call, params: Path, arguments: list[object], told: str) -> None:
    code, out, err = call("gate", "power", "--params", params, *arguments)
    assert (code, out, len(err)) == (2, "", 1), err
    assert told in err[0]
