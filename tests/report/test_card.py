"""What a card says about limits and origin, beyond what the stage's tests see."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stillroom import layout
from stillroom.files import read_json
from stillroom.governance_params import GovernanceParams
from stillroom.report import words
from stillroom.report.card import card, energy, limits, metadata, training
from stillroom.report.material import Material
from stillroom.stages import report
from tests.report.test_plots import material
from tests.report.workspaces import params_of, write_large_workspace


def with_figures(run: Material, **changes: float) -> Material:
    """The run, with these figures for class a of its students."""
    student = run.students[0]
    per_class = dict(student.per_class) | {"a": dict(student.per_class["a"]) | changes}
    return replace(run, students=[replace(student, per_class=per_class)])


def test_limits_name_what_was_lost_and_what_is_not_known() -> None:
    run = with_figures(material(), f1=0.7)
    told = " ".join(limits(run, run.students[0]))
    assert "Classes that lost more than 0.02 of F1 against the teacher: a (-0.200)." in told
    assert "under 20 test rows, of which little is known: a, b, c" in told
    assert "do not use it" not in told
    empty = with_figures(material(), support=0)
    assert "1 of its labels have no test rows" in " ".join(limits(empty, empty.students[0]))


def test_a_student_that_did_not_pass_says_so() -> None:
    run = material()
    assert "did not pass the gate (FAIL)" in " ".join(limits(run, run.students[1]))


@pytest.mark.parametrize(
    ("teacher", "data", "base", "datasets"),
    [
        ("hf://owner/model@main", "hf://datasets/owner/rows@main/train.csv", ["owner/model"], ["owner/rows"]),
        ("/somewhere/model", "/somewhere/rows.csv", None, None),
    ],
)
def test_metadata_names_hub_models_and_data_only(
    teacher: str, data: str, base: list[str] | None, datasets: list[str] | None
) -> None:
    run = material()
    run = replace(run, teacher_source=teacher, snapshot={**run.snapshot, "source": {"train": {"uri": data}}})
    card = ModelCard(f"---\n{metadata(run, run.students[0])}\n---\n")
    assert card.data.base_model == base
    assert card.data.datasets == datasets
    assert "somewhere" not in str(card)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with many classes in which the stage report has run; the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        patch.setattr(report, "plots", lambda _: {})
        report.run(write_large_workspace())
        yield Path.cwd()


def text_of(student: str) -> str:
    return (layout.RELEASE / student / "MODEL_CARD.md").read_text(encoding="utf-8")


def sources_of(student: str) -> list[dict[str, Any]]:
    """All files that figures of a student's card may come from."""
    return [
        read_json(path)
        for path in (
            layout.RELEASE / student / "gate.json",
            layout.RELEASE / student / "stillroom.json",
            layout.EVALUATIONS / student / "evaluation.json",
            layout.STUDENTS / student / "student.json",
            layout.TEACHER / "teacher.json",
            layout.SPLIT / "snapshot.json",
        )
    ]


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers_in(part)
    elif isinstance(value, int | float):
        yield value


def table_of(text: str, heading: str) -> list[list[str]]:
    """Rows of the first table below a heading, without its own heading."""
    lines = [line for line in text.partition(f"\n## {heading}\n")[2].splitlines() if line.startswith("| ")]
    count = next((n for n, line in enumerate(lines) if n > 1 and line.startswith("| ---")), len(lines) + 1) - 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:count]]


def test_metadata_come_back_as_they_were_written(cards: Path) -> None:
    for student in ("static", "sliced"):
        card = ModelCard(text_of(student))
        again = ModelCard(str(card))
        assert again.data.to_dict() == card.data.to_dict()
        assert again.text == card.text
        assert (card.data.license, card.data.license_name, card.data.library_name) == (
            "other",
            "as-declared",
            "stillroom",
        )
        [result, macro] = card.data.eval_results
        snapshot = read_json(layout.SPLIT / "snapshot.json")
        assert result.dataset_args == {"rows": snapshot["rows"]["test"], "sha256": snapshot["sha256"]}
        assert macro.metric_args == {"average": "macro"}
        assert card.data.model_name == student


def test_languages_and_all_models_on_the_hub_are_named() -> None:
    run = material()
    run = replace(
        run,
        teacher_source="hf://owner/teacher@main",
        snapshot={**run.snapshot, "source": {"train": {"uri": "hf://datasets/owner/rows@main/train.csv"}}},
        governance=GovernanceParams(languages=("en", "de")),
        students=[replace(run.students[0], checkpoint={"source": "hf://owner/encoder", "licence": "MIT"})],
    )
    card = ModelCard(f"---\n{metadata(run, run.students[0])}\n---\n")
    assert card.data.language == ["en", "de"]
    assert card.data.base_model == ["owner/encoder", "owner/teacher"]
    assert card.data.datasets == ["owner/rows"]


def test_every_section_says_something(cards: Path) -> None:
    sections = re.split(r"^## (.+)$", text_of("static"), flags=re.MULTILINE)
    told = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(told) == [
        "Quality",
        "Slices",
        "Speed and size",
        "How to use it",
        "Limits",
        "Training",
        "Origin and licences",
        "Personal data and governance",
        "Maintenance",
        "Lineage",
        "Classes",
    ]
    assert all(len(body.strip()) > 40 for body in told.values())
    assert not re.search(r"\bNone\b|\bnan\b|\{\{|\n\n\n", text_of("static"))


@pytest.mark.parametrize("student", ["static", "sliced"])
def test_no_figure_of_a_card_is_made_up(cards: Path, student: str) -> None:
    material = report.gather(params_of("static", "sliced"))
    gate, manifest, evaluation, trained, teacher, _ = sources = sources_of(student)
    told = set(numbers_in(sources)) | set(numbers_in(material.teacher_per_class))
    told |= {
        figures["f1"] - material.teacher_per_class[label]["f1"] for label, figures in evaluation["per_class"].items()
    }
    told |= {
        sum(epoch["seconds"] for epoch in h)
        for h in (teacher["history"], trained["history"], trained["baseline_history"])
    }
    told |= {len(gate["seeds"]["seeds"])}
    told |= {manifest["params"] / evaluation["teacher"]["params"], len(manifest["labels"])}
    told |= {0.02, 20}  # what counts as a loss, and as few rows
    forms = (
        *(words.count, words.duration, words.milliseconds, words.percent, words.quality, words.size, words.times),
        *(form.format for form in ("{}", "{:.0%}", "{:.3f}", "{:+.3f}", "{:.3g}")),
        lambda value: f"{value:,}",
    )
    known = {shown for value in told for form in forms for shown in re.findall(r"\d[\d.,]*", form(value))}
    text = ModelCard(text_of(student)).text
    text = re.sub(r"```.*?```|`[^`]*`|[0-9a-f]{64}|class \d\d", "", text, flags=re.DOTALL)
    reasons = "".join(gate["reasons"])
    shown = [found.rstrip(".,") for found in re.findall(r"(?<![\w.])\d[\d.,]*(?!\w)", text)]
    assert len(shown) > 100
    assert [figure for figure in shown if figure not in known and figure not in reasons] == []


def test_the_teacher_s_speed_is_that_measured_beside_this_student(cards: Path) -> None:
    for student in ("static", "sliced"):
        latency = read_json(layout.EVALUATIONS / student / "evaluation.json")["teacher"]["latency_ms"]
        rows = table_of(text_of(student), "Speed and size")
        assert [row[1:] for row in rows[1:]] == [
            [words.milliseconds(latency[form][at]) for at in ("p50", "p95")] for form in ("torch_fp32", "onnx_int8")
        ]
    assert len({str(table_of(text_of(student), "Speed and size")[1:]) for student in ("static", "sliced")}) == 2


def test_cases_and_seeds_are_told_as_the_gate_found_them(cards: Path) -> None:
    material = report.gather(params_of("static", "sliced"))
    found = sources_of("static")[0]["seeds"]["accuracy"]
    assert f"accuracy is {found['mean']:.4f} on average, from {found['least']:.4f} to" in text_of("static")
    cases = {"rows": 1200, "demanded": "teacher", "changed": 3, "where": [], "verdict": "FAIL"}
    static = material.students[0]
    told = card(material, replace(static, gate={**static.gate, "cases": cases}))
    assert "Of 1,200 cases whose answers must not change, 3 are answered otherwise than the teacher demands." in told


@pytest.mark.parametrize("student", ["static", "sliced"])
def test_tables_are_those_of_gate_and_evaluation(cards: Path, student: str) -> None:
    gate, _, evaluation, *_ = sources_of(student)
    text = text_of(student)
    for row, name in zip(table_of(text, "Quality"), ("accuracy", "macro_f1", "ece"), strict=True):
        owners = evaluation["metrics"], evaluation["teacher"]["metrics"], evaluation["baseline_metrics"]
        assert row[1:4] == [f"{owner[name]:.4f}" for owner in owners]
        found = gate["retention"].get(name)
        assert row[4] == (f"{found['point']:.4f} [{found['lower']:.4f},\u00a0{found['upper']:.4f}]" if found else "")
    rows = {row[0]: row for row in table_of(text, "Slices")}
    assert rows.keys() == gate["slices"].keys() == {"tens", "short"}
    for name, part in gate["slices"].items():
        assert rows[name][1:4] == [str(part["rows"]), *(f"{part['scores'][who]:.4f}" for who in ("student", "teacher"))]
        assert rows[name][-1] == part["verdict"]
    classes = {re.sub(r"\\(.)", r"\1", row[0])[:8]: row for row in table_of(text.replace("\\|", "¦"), "Classes")}
    judged = {label[:8]: found for label, found in gate["class_recall"]["classes"].items()}
    assert classes.keys() == judged.keys()
    for label, found in judged.items():
        figures = [found["rows"], found["teacher"], found["student"], found["p_value"]]
        row = classes[label]
        assert [float(row[place]) for place in (1, 5, 6, 7)] == pytest.approx(figures, abs=0.0005)
        assert row[8] == found["verdict"]


def test_energy_is_an_estimate_that_counts_nothing_twice(cards: Path) -> None:
    trained = [("teacher", 1800.0), ("3 trials", 900.0), ("of which this student", 300.0), ("without", 900.0)]
    assert energy(trained, 50.0).startswith("about 0.05 kWh, which is these times at the 50 W declared")
    assert energy(trained, None).startswith("not measured; cost.machine_watts")
    assert energy([*trained, ("more", None)], 50.0).startswith("not measured; there is no estimate")
    assert "Energy: not measured; cost.machine_watts in params.yaml would give an estimate." in text_of("static")
    run = replace(report.gather(params_of("static", "sliced")), machine_watts=65.0)
    assert "these times at the 65 W declared for the machine" in card(run, run.students[0])


def test_what_was_not_recorded_is_said_so() -> None:
    run = material()
    assert [took_s for _, took_s in training(run, run.students[0])] == [None, None, None]
    tried = [{"measured": {"seconds": 2.0}}, {"measured": None}, {"measured": {"seconds": 3.5}}]
    searched = replace(run.students[0], trials=tried)
    assert [what for what, _ in training(run, run.students[0])][1] == "this student"
    assert training(run, searched)[1:3] == [
        ("2 trials of the search, with packaging", 5.5),
        ("of which this student", None),
    ]
    ensemble = replace(run, teacher_members=3)
    assert training(ensemble, run.students[0])[0][0] == "teacher, fine-tuned, the first of 3 members"
    ready = replace(run, teacher_history=())
    assert all(what != "teacher, fine-tuned" for what, _ in training(ready, ready.students[0]))


def test_limits_name_slices_and_classes_that_are_not_shown_to_hold() -> None:
    run = material()
    recall = {
        "floor": 0.9,
        "significance": 0.05,
        "classes": {"a": {"verdict": "FAIL"}, "b": {"verdict": "INCONCLUSIVE"}},
    }
    slices = {"short": {"verdict": "INCONCLUSIVE", "rows": 1200}, "long": {"verdict": "PASS", "rows": 9}}
    told = limits(run, replace(run.students[0], gate={"class_recall": recall, "slices": slices}))
    assert "Classes whose recall falls below 0.9 of the teacher's: a." in told
    assert any(limit.endswith("accuracy: short (INCONCLUSIVE, 1,200 rows).") for limit in told)
