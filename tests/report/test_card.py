"""What a card says about limits and origin, beyond what the stage's tests see."""

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from stillroom.report.card import limits, metadata
from stillroom.report.material import Material
from tests.report.test_plots import material


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
        ("hf://owner/model@main", "hf://owner/rows@main/train.csv", "owner/model", ["owner/rows"]),
        ("/somewhere/model", "/somewhere/rows.csv", None, None),
    ],
)
def test_metadata_names_hub_models_and_data_only(
    teacher: str, data: str, base: str | None, datasets: list[str] | None
) -> None:
    run = material()
    run = replace(run, teacher_source=teacher, snapshot={**run.snapshot, "source": {"train": {"uri": data}}})
    card = ModelCard(f"---\n{metadata(run, run.students[0])}\n---\n")
    assert card.data.base_model == base
    assert card.data.datasets == datasets
    assert "somewhere" not in str(card)
