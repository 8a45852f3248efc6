"""benchmarks/students.py on a tiny run, with the systems that the project's own environment can train."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import students
from benchmarks.students import Part, Workshop
from stillroom.export.measure import machine
from tests.e2e.conftest import TINY, TinyRun

pytestmark = [TINY, pytest.mark.slow]


def test_systems_are_measured_beside_the_workspaces_student(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "run_command", lambda *_: ["true"])  # the run that is there already
    monkeypatch.setattr(students, "peers_python", lambda _: Path(sys.executable))
    place = tmp_path / "sst2/tiny"
    place.mkdir(parents=True)
    (place / "workspace-0").symlink_to(tiny_run.workspace)
    workshop = Workshop(tmp_path, tmp_path / "peers", {"sst2": tmp_path}, {"tiny": tiny_run.workspace})
    parts = [Part("sst2", "tiny", *of) for of in (("student", 0), ("student", 1), ("teacher_int8", 0), ("tfidf", 0))]
    for part in parts:
        students.keep(tmp_path, part, workshop.perform(part))

    figures = students.summarise_all(parts, tmp_path)["sst2"]["tiny"]
    selected = tiny_run.summary["students"][tiny_run.summary["selected"]]
    first = students.summarise_all(parts[:1], tmp_path)["sst2"]["tiny"]["student"]
    assert first["accuracy"] == pytest.approx(selected["metrics"]["accuracy"], abs=1e-4)
    assert first["retention"]["point"] == pytest.approx(selected["retention"]["accuracy"]["point"], abs=1e-4)
    assert figures["student"]["seeds"] == 2
    assert figures["student"]["speedup"]["vs_student"] == pytest.approx(1.0, abs=0.5)
    assert figures["teacher_int8"]["params_fraction"] == 1.0
    assert figures["tfidf"]["accuracy"] > 0.5
    weights = [
        (folder / "artifacts/students" / tiny_run.summary["selected"] / "student.safetensors").read_bytes()
        for folder in (place / "workspace-0", place / "workspace-1")
    ]
    assert weights[0] != weights[1]
    of_seeds = [json.loads((place / f"student-{seed}.json").read_text()) for seed in (0, 1)]
    assert of_seeds[0]["teacher"] == of_seeds[1]["teacher"]
    assert min(one["train_seconds"] for one in of_seeds) > 0.0
    assert of_seeds[0]["machine"] == machine()
    assert of_seeds[0]["commit"] == students.commit()
    assert (of_seeds[0]["unquantised"] is None) == (selected["quantisation"] == "fp32")
    assert not list(tmp_path.rglob("*.answer"))


def test_a_family_is_set_beside_itself_without_the_teacher(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(students.ROOT / "benchmarks"))
    families = importlib.import_module("families")
    given = ["--workspace", str(tiny_run.workspace), "--results", str(tmp_path), "--family", "static", "--json"]
    monkeypatch.setattr(sys, "argv", ["families.py", *given])
    families.main()
    told = capfd.readouterr().out
    figures = json.loads(told.splitlines()[-1])["static"]
    without, gained = figures["baseline_accuracy"], figures["baseline_gain"]
    assert figures["accuracy"] == pytest.approx(without + gained["point"], abs=2e-4)
    assert gained["lower"] <= gained["point"] <= gained["upper"]
    assert figures["retention"]["lower"] <= figures["retention"]["point"]
    evaluated = tmp_path / "static-0/artifacts/evaluations/static/evaluation.json"
    measured = json.loads(evaluated.read_text())
    assert figures["baseline_accuracy"] == pytest.approx(measured["baseline_metrics"]["accuracy"], abs=1e-4)
    monkeypatch.setattr(families, "train_beside", lambda *_: pytest.fail("trained again"))
    families.main()
    assert capfd.readouterr().out == told
