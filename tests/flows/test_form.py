"""Overrides as the form of a deployment and as the server's check."""

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from flows.form import Overrides, assignments
from stillroom.params import Params, validate
from stillroom.params_file import merged
from stillroom.student_params import SlicedParams, Student

BASE: dict[str, Any] = {
    "data": {"source": "rows.csv"},
    "teacher": {"source": "checkpoint"},
    "students": {"small": {"family": "static"}},
}


def applied(overrides: dict[str, Any]) -> Params:
    return validate(merged(BASE, assignments(Overrides.model_validate(overrides))), "overrides")


def test_only_what_was_given_is_assigned() -> None:
    given = {
        "teacher": {"epochs": 5, "learning_rate": 1e-05},
        "students": {"small": {"dimensions": 64}, "tall": {"family": "sliced", "layers": 3}},
        "gate": {"retention": {"accuracy": 0.9}, "max_ece": None},
        "data": {"label": "Größe: no"},
        "capture": {"signals": ["logits"]},
        "registry": None,
    }
    with pytest.raises(Exception, match=r"students\.tall learns from the signal embedding"):
        applied(given)
    given["students"]["tall"]["cosine_weight"] = 0.0  # type: ignore[index]
    params = applied(given)
    assert (params.teacher.epochs, params.teacher.learning_rate) == (5, 1e-05)
    assert params.students["small"].dimensions == 64  # type: ignore[union-attr]
    assert isinstance(params.students["tall"], SlicedParams)
    assert params.gate.retention == {"accuracy": 0.9}
    assert params.data.label == "Größe: no"
    assert params.registry.model == "stillroom"


def test_a_search_may_stand_in_for_all_students() -> None:
    assert assignments(Overrides.model_validate({"students": "auto"})) == ['students="auto"']
    assert list(applied({"students": "auto"}).students) == ["auto"]
    with pytest.raises(ValidationError):
        Overrides.model_validate({"students": "some"})
    found = applied({"students": {"small": {"family": "auto", "retention": 0.98, "trials": 2}}}).students["small"]
    assert (found.family, found.retention) == ("auto", 0.98)  # type: ignore[union-attr]


def test_nothing_given_changes_nothing() -> None:
    assert assignments(Overrides()) == []
    sections = dict.fromkeys(Params.model_fields)
    assert applied(sections) == validate(BASE, "base")


def test_the_form_has_every_section_and_key_of_params() -> None:
    assert set(Overrides.model_fields) == set(Params.model_fields)
    schema = Overrides.model_json_schema()["$defs"]
    for name, field in Params.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            assert set(schema[f"{section.__name__}Override"]["properties"]) == set(section.model_fields), name
    student = set(schema["StudentOverride"]["properties"])
    families = get_args(get_args(Student)[0])
    assert student == {key for family in families for key in family.model_fields}
    assert {"ngram_buckets", "layers", "families"} <= student
    assert schema["TeacherParamsOverride"]["properties"]["max_length"]["description"].startswith("Tokens read")


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": {"epochs": -3}},
        {"teacher": {"epoch": 3}},
        {"students": {"small": {"family": "huge"}}},
        {"students": {"small": {"dimensions": 1}}},
        {"gate": {"retention": {"accuracy": 1.5}}},
        {"quantise": {"rungs": ["int4"]}},
        {"seed": -1},
        {"teachers": {}},
    ],
)
def test_what_params_would_refuse_the_form_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate(wrong)
