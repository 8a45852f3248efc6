import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from stillroom.errors import ParamsError
from stillroom.params import Params, in_long_form, json_schema, validate
from stillroom.params_file import load_params, merged, read_yaml, write_yaml
from stillroom.student_params import AutoParams, SlicedParams, StaticParams
from tests.toys import toy_params

ROOT = Path(__file__).parent.parent


def minimal(**sections: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "data": {"source": "rows.csv"},
        "teacher": {"source": "checkpoint"},
        "students": {"static": {"family": "static"}},
    }
    return given | sections


def refusal(raw: dict[str, Any]) -> str:
    """The message with which a description of a run is refused; always one line of exit code 2."""
    with pytest.raises(ParamsError) as caught:
        validate(raw, "params.yaml")
    told = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in told
    assert told.startswith("params.yaml: ")
    return told


def every_key(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {str(key) for key in value} | {key for inner in value.values() for key in every_key(inner)}
    if isinstance(value, list | tuple):
        return {key for inner in value for key in every_key(inner)}
    return set()


@pytest.mark.parametrize("defaults", [True, False])
def test_what_is_written_is_read_back_equal(tmp_path: Path, defaults: bool) -> None:
    params = validate(toy_params(), "toy")
    write_yaml(params, tmp_path / "params.yaml", defaults=defaults)
    assert load_params(tmp_path / "params.yaml") == params


def test_written_with_defaults_every_field_stands_in_the_file(tmp_path: Path) -> None:
    params = validate(minimal(), "minimal")
    write_yaml(params, tmp_path / "params.yaml")
    written = read_yaml(tmp_path / "params.yaml")
    assert set(written) == set(Params.model_fields)
    assert set(written["students"]["static"]) == set(StaticParams.model_fields)


def test_written_without_defaults_only_what_was_given_stands_in_the_file(tmp_path: Path) -> None:
    """…and every section that was not, empty, because DVC refuses a stage whose section is missing."""
    write_yaml(validate(minimal(), "minimal"), tmp_path / "params.yaml", defaults=False)
    written = read_yaml(tmp_path / "params.yaml")
    absent = {name: {} for name in Params.model_fields.keys() - minimal().keys() - {"seed"}}
    assert written == absent | {"seed": 0} | minimal()
    assert validate(written, "written") == validate(minimal(), "minimal")


# text that looks like another type, or like YAML's own signs, must come back as the same text
awkward = st.sampled_from(
    [
        "yes",
        "no",
        "null",
        "~",
        "1e3",
        "0x10",
        "0o7",
        "2024-01-31",
        "1_000",
        "- a",
        "a: b",
        "#",
        "'",
        '"',
        "é\u2028",
        "a\nb",
    ]
)


@given(text=awkward | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_any_column_name_survives_yaml(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("yaml") / "params.yaml"
    params = validate(minimal(data={"source": "rows.csv", "text": text}), "given")
    write_yaml(params, path)
    assert load_params(path).data.text == text


@pytest.mark.parametrize(
    ("raw", "name", "hint"),
    [
        (minimal(techer={"source": "x"}), "techer", "did you mean teacher?"),
        (minimal(data={"source": "x", "lable": "y"}), "data.lable", "did you mean label?"),
        (minimal(gate={"confidense": 0.9}), "gate.confidense", "did you mean confidence?"),
        (minimal(gate={"class_recall": {"flor": 0.9}}), "gate.class_recall.flor", "did you mean floor?"),
        (minimal(gate={"slices": {"vip": {"patern": "a"}}}), "gate.slices.vip.patern", "did you mean pattern?"),
        (
            minimal(students={"a": {"family": "sliced", "layer": 1}}),
            "students.a.layer",
            "did you mean layers?",
        ),
        (minimal(compute={"zzzzzz": 1}), "compute.zzzzzz", "known keys: device, precision, threads"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(raw: dict[str, Any], name: str, hint: str) -> None:
    assert f"{name} is not a known key; {hint}" in refusal(raw)


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (minimal(seed="many"), ["seed is 'many'", "integer"]),
        (minimal(seed=-1), ["seed is -1", "greater than or equal to 0"]),
        (minimal(seed=2**32), ["seed is 4294967296", "less than 4294967296"]),
        (
            minimal(teacher={"source": "x", "epochs": -3}),
            ["teacher.epochs is -3", "greater than or equal to 1"],
        ),
        (minimal(teacher={"source": "x", "epochs": 1.5}), ["teacher.epochs is 1.5", "integer"]),
        (minimal(teacher={"source": "x", "sha256": "abc"}), ["teacher.sha256 is 'abc'"]),
        (minimal(teacher={"source": "x", "learning_rate": float("nan")}), ["teacher.learning_rate is nan"]),
        (minimal(students={"a": {"family": "static", "epochs": -3}}), ["students.a.epochs is -3"]),
        (
            minimal(students={"a": {"family": "static", "word_dropout": 1.0}}),
            ["students.a.word_dropout is 1.0"],
        ),
        (
            minimal(students={"a": {"family": "dynamic"}}),
            ["students.a", "'dynamic'", "'static', 'cnn', 'bilstm', 'sliced', 'narrow', 'pretrained', 'auto'"],
        ),
        (minimal(students={"a": {"epochs": 3}}), ["students.a", "family"]),
        (minimal(students={}), ["students is {}", "at least 1"]),
        (minimal(data={}), ["data.source is missing"]),
        (minimal(data=None), ["data is None"]),
        (minimal(gate={"retention": {}}), ["gate.retention", "at least 1"]),
        (minimal(gate={"retention": {"recall": 0.9}}), ["gate.retention.recall", "'accuracy' or 'macro_f1'"]),
        (minimal(gate={"retention": {"accuracy": 1.1}}), ["gate.retention.accuracy is 1.1"]),
        (minimal(gate={"class_recall": {"floor": 1.5}}), ["gate.class_recall.floor is 1.5"]),
        (minimal(gate={"class_recall": {"significance": 0}}), ["gate.class_recall.significance is 0"]),
        (minimal(gate={"slices": {"vip": {"retention": -1, "max_chars": 9}}}), ["gate.slices.vip.retention is -1"]),
        (
            minimal(gate={"slices": {"vip": {"pattern": "a(b"}}}),
            ["gate.slices.vip.pattern: 'a(b' does not compile: missing ) at character 3"],
        ),
        (minimal(gate={"slices": {"vip": {}}}), ["gate.slices.vip: give either pattern, or min_chars"]),
        (minimal(gate={"slices": {"vip": {"pattern": "a", "max_chars": 9}}}), ["gate.slices.vip: give either pattern"]),
        (minimal(gate={"slices": {"vip": {"column": "x"}}}), ["gate.slices.vip: column and values go together"]),
        (minimal(gate={"slices": {"vip": {"max_chars": 9, "values": ["x"]}}}), ["gate.slices.vip: column and values"]),
        (
            minimal(gate={"slices": {"vip": {"pattern": "a", "column": "x", "values": ["x"]}}}),
            ["gate.slices.vip: give either pattern"],
        ),
        (minimal(gate={"slices": {"vip": {"min_chars": 9, "max_chars": 3}}}), ["no text has such a length"]),
        (minimal(gate={"slices": {"a/b": {"max_chars": 3}}}), ["slices: 'a/b' is no slice name"]),
        (minimal(gate={"slices": {"size": {"max_chars": 3}}}), ["slices: 'size' is a key that DVC ignores"]),
        (
            minimal(gate={"retention": {"macro_f1": 0.9}, "slices": {"vip": {"max_chars": 3}}}),
            ["slices.vip.retention is missing, and there is no retention.accuracy"],
        ),
        (minimal(capture={"signals": ["embedding"]}), ["capture.signals", "logits among them"]),
        (minimal(capture={"signals": ["logits", "logits"]}), ["capture.signals", "once"]),
        (minimal(quantise={"rungs": ["dynamic_int8"]}), ["quantise.rungs", "end with fp32"]),
        (minimal(quantise={"rungs": []}), ["quantise.rungs", "end with fp32"]),
        (minimal(quantise={"rungs": ["mixed_int8", "fp32"]}), ["quantise.rungs", "another int8 rung before"]),
        (minimal(quantise={"calibration_rows": 31}), ["quantise.calibration_rows is 31", "32"]),
        (minimal(growth={"methods": []}), ["growth.methods", "one at least"]),
        (minimal(growth={"methods": ["mix", "mix"]}), ["growth.methods", "each method once"]),
        (minimal(growth={"methods": ["join"]}), ["growth.methods.0 is 'join'", "'drop', 'mask', 'mix' or 'replace'"]),
        (minimal(registry={"model": "../x"}), ["registry.model is '../x'"]),
        (minimal(registry={"model": "x" * 129}), ["registry.model is 'xxx", "at most 128 characters"]),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_value(raw: dict[str, Any], parts: list[str]) -> None:
    told = refusal(raw)
    assert all(part in told for part in parts), told


def test_many_mistakes_are_counted_and_the_first_three_told() -> None:
    wrong = dict.fromkeys(("epochs", "max_length", "batch_tokens", "patience", "dropout"), -1)
    told = refusal(minimal(teacher={"source": "x"} | wrong))
    assert told.count(" is -1; ") == 3
    assert told.endswith("; and 2 more")


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".", "../a", "a b", "", "-a", "_a", "a.b", "é", "a\n", "a" * 65, "a\\b", "$a", "a=b"],
)
def test_a_student_name_that_cannot_be_a_folder_and_a_word_is_refused(name: str) -> None:
    assert f"{name!r} is no student name" in refusal(minimal(students={name: {"family": "static"}}))


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_a_student_name_that_dvc_would_drop_from_its_key_is_refused(name: str) -> None:
    assert name in refusal(minimal(students={name: {"family": "static"}}))


@pytest.mark.parametrize("name", ["a", "A-1_b", "9", "a" * 64])
def test_a_plain_student_name_is_taken(name: str) -> None:
    assert name in validate(minimal(students={name: {"family": "static"}}), "given").students


def test_two_students_that_differ_in_case_only_are_refused() -> None:
    told = refusal(minimal(students={"Small": {"family": "static"}, "small": {"family": "static"}}))
    assert "'Small' and 'small' differ in case only" in told


def test_students_auto_is_short_for_one_student_that_is_searched() -> None:
    found = validate(minimal(students="auto", capture={"signals": ["logits", "embedding"]}), "given").students
    assert list(found) == ["auto"]
    assert found["auto"].family == "auto"
    assert found == validate(minimal(students={"auto": {"family": "auto"}}), "given").students


def test_what_dvc_must_find_in_a_file_may_not_be_left_out() -> None:
    whole = {name: {} for name in Params.model_fields} | {"students": {"small": {"family": "static"}}}
    search = {"family": "auto"}
    assert in_long_form(whole)
    assert not in_long_form({name: section for name, section in whole.items() if name != "growth"})
    assert not in_long_form(whole | {"students": "auto"})
    assert in_long_form(whole | {"students": {"found": search}})
    ladder = {"allowed_drop": 0.01}
    assert not in_long_form(whole | {"students": {"found": search}, "quantise": ladder})
    assert in_long_form(whole | {"students": {"found": search | {"quantise": ladder}}, "quantise": ladder})
    gate = {"retention": {"macro_f1": 0.9}}
    assert not in_long_form(whole | {"students": {"found": search}, "gate": gate})
    assert in_long_form(whole | {"students": {"found": search | gate}, "gate": gate})


def test_a_search_must_not_ask_for_less_than_the_gate() -> None:
    students = {"found": {"family": "auto", "retention": 0.95}}
    told = refusal(minimal(students=students, gate={"retention": {"accuracy": 0.96}}))
    assert "students.found.retention asks for 0.95, and the gate wants 0.96 of the teacher's accuracy" in told
    assert validate(minimal(students=students, gate={"retention": {"accuracy": 0.95}}), "given")
    told = refusal(minimal(students=students, gate={"retention": {"macro_f1": 0.9}}))
    assert "students.found.retention does not name it, and the gate wants 0.9 of the teacher's macro_f1" in told


def test_a_search_asks_for_what_the_gate_asks_for_unless_it_says_otherwise() -> None:
    wanted = {"accuracy": 0.96, "macro_f1": 0.9}
    students: dict[str, Any] = {"found": {"family": "auto"}, "small": {"family": "static"}}
    (found, _) = validate(minimal(students=students, gate={"retention": wanted}), "given").students.values()
    assert isinstance(found, AutoParams)
    assert found.retained == wanted
    students["found"]["retention"] = {"accuracy": 0.97, "macro_f1": 0.9}
    (found, _) = validate(minimal(students=students, gate={"retention": wanted}), "given").students.values()
    assert isinstance(found, AutoParams)
    assert found.retained == students["found"]["retention"]


def test_a_student_must_not_read_more_than_its_teacher() -> None:
    raw = minimal(students={"small": {"family": "static"}, "found": {"family": "auto"}})
    raw["teacher"]["max_length"] = 64
    told = refusal(raw)
    assert "students.small.max_length is 128; the teacher reads 64 tokens (teacher.max_length)" in told
    del raw["students"]["small"]
    assert validate(raw, "given"), "a search reads as much as it can"


def test_a_search_must_package_as_the_run_does() -> None:
    students: dict[str, Any] = {"found": {"family": "auto"}}
    ladder = {"rungs": ["fp32"]}
    found = validate(minimal(students=students, quantise=ladder), "given")
    assert found.students["found"].quantise == found.quantise
    assert students == {"found": {"family": "auto"}}, "what was given is left as it is"
    students["found"]["quantise"] = {"rungs": ["dynamic_int8", "fp32"]}
    assert "students.found.quantise differs from quantise" in refusal(minimal(students=students, quantise=ladder))
    assert "students.found.quantise differs from quantise" in refusal(minimal(students=students))


def test_the_schema_allows_the_short_form_of_a_search() -> None:
    described = json_schema()["properties"]["students"]
    assert {"const": "auto"} in described["anyOf"]


def test_a_student_that_imitates_states_needs_their_signal() -> None:
    students = {"thin": {"family": "narrow", "hidden_layer": 4}}
    assert "students.thin learns from the signal hidden.4" in refusal(minimal(students=students))
    assert validate(minimal(students=students, capture={"signals": ["logits", "hidden.4:int8"]}), "given")


def test_states_of_tokens_are_compared_with_the_teachers_own_tokens_alone() -> None:
    students = {"thin": {"family": "narrow", "hidden_layer": 4, "piece_dropout": 0.1}}
    capture = {"signals": ["logits", "hidden.4"]}
    assert "students.thin: piece_dropout: 0 with a hidden_layer" in refusal(minimal(students=students, capture=capture))
    del students["thin"]["hidden_layer"]
    assert validate(minimal(students=students, capture=capture), "given")


def test_a_cosine_loss_needs_the_embedding_that_capture_keeps() -> None:
    students = {"cut": {"family": "sliced", "cosine_weight": 0.1}}
    told = refusal(minimal(students=students, capture={"signals": ["logits"]}))
    assert "students.cut learns from the signal embedding; add it to capture.signals, or set cosine_weight" in told
    students["cut"]["cosine_weight"] = 0
    assert validate(minimal(students=students, capture={"signals": ["logits"]}), "given")


def test_a_token_table_under_frozen_layers_cannot_learn() -> None:
    teacher = {"source": "folder", "train_embeddings": True, "freeze_layers": 1}
    assert "teacher" in (told := refusal(minimal(teacher=teacher)))
    assert "train_embeddings needs freeze_layers 0" in told


def test_families_have_their_own_defaults() -> None:
    params = validate(minimal(students={"a": {"family": "static"}, "b": {"family": "sliced"}}), "given")
    assert isinstance(params.students["a"], StaticParams)
    assert isinstance(params.students["b"], SlicedParams)
    assert params.students["a"].epochs > params.students["b"].epochs


def test_params_do_not_change_once_made() -> None:
    params = validate(minimal(), "given")
    for owner, key in ((params, "seed"), (params.teacher, "epochs"), (params.students["static"], "epochs")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(owner, key, 2)


def test_overrides_replace_values_and_grow_sections() -> None:
    raw = minimal()
    raw["data"]["personal_data_scan"] = None
    result = merged(
        raw,
        [
            "teacher.epochs=5",
            "gate.retention.accuracy=0.5",
            "capture.signals=[logits]",
            "data.licence=a=b",
            "data.test=",
            "data.personal_data_scan.redact=true",
            "seed=1",
            "seed=2",
        ],
    )
    assert result["teacher"] == {"source": "checkpoint", "epochs": 5}
    assert result["gate"] == {"retention": {"accuracy": 0.5}}
    assert result["capture"] == {"signals": ["logits"]}
    assert result["data"] == {
        "source": "rows.csv",
        "licence": "a=b",
        "test": None,
        "personal_data_scan": {"redact": True},
    }
    assert result["seed"] == 2
    assert raw["data"] == minimal()["data"] | {"personal_data_scan": None}


def test_the_params_that_the_gate_s_page_shows_are_valid() -> None:
    page = (ROOT / "docs/reference/gate.md").read_text(encoding="utf-8")
    shown = [YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [list(sections) for sections in shown] == [["gate"], ["data"], ["students"]]
    for sections in shown:
        validate(minimal(**sections), "gate.md")


PINNED: dict[str, Any] = {
    "data": {
        "source": "a.csv",
        "sha256": "0" * 64,
        "validation": "v.csv",
        "validation_sha256": "1" * 64,
        "test": "t.csv",
        "test_sha256": "2" * 64,
        "unlabelled": "u.csv",
        "unlabelled_sha256": "4" * 64,
        "cases": "c.csv",
        "cases_sha256": "5" * 64,
        "licence": "CC-BY-4.0",
    },
    "teacher": {"source": "encoder", "sha256": "3" * 64, "name": "big", "licence": "MIT", "epochs": 2},
    "governance": {"teacher_terms": "allowed", "personal_data": "none", "owner": "we"},
}


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("data.source=b.csv", {"data.sha256", "data.licence", "governance.personal_data"}),
        ("data.validation=b.csv", {"data.validation_sha256"}),
        ("data.test=b.csv", {"data.test_sha256"}),
        ("data.test=null", {"data.test_sha256"}),
        ("data.unlabelled=b.csv", {"data.unlabelled_sha256"}),
        ("data.cases=b.csv", {"data.cases_sha256"}),
        (
            "teacher.source=other",
            {"teacher.sha256", "teacher.name", "teacher.licence", "governance.teacher_terms"},
        ),
        ("data.source=a.csv", set()),
        ("teacher.epochs=3", set()),
    ],
)
def test_an_address_that_changes_takes_along_what_was_told_of_the_old_one(override: str, gone: set[str]) -> None:
    result = merged(PINNED, [override])
    left = {f"{section}.{key}" for section, keys in result.items() for key in keys}
    assert {f"{section}.{key}" for section, keys in PINNED.items() for key in keys} - left == gone


def test_what_an_override_tells_of_a_new_address_stays_in_either_order() -> None:
    digest = f"data.sha256='{'7' * 64}'"
    for overrides in (["data.source=b.csv", digest], [digest, "data.source=b.csv"]):
        assert merged(PINNED, overrides)["data"]["sha256"] == "7" * 64


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teacher.epochs", "not of the form"),
        ("=5", "not of the form"),
        ("teacher..epochs=5", "not of the form"),
        ("teacher.=5", "not of the form"),
        ("teacher.source.deep=5", "source holds a value, not a section"),
        ("teacher.epochs=[1", "not valid YAML"),
        ("data.licence=2024-13-45", "not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_applied_is_told_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said) as caught:
        merged(minimal(), [override])
    assert repr(override) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_is_checked_by_the_same_models(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    write_yaml(validate(minimal(), "given"), path)
    assert load_params(path, ["students.static.epochs=2"]).students["static"].epochs == 2
    with pytest.raises(ParamsError, match=r"did you mean epochs\?"):
        load_params(path, ["students.static.epoch=2"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"data: [1\nseed: }", "not valid YAML"),
        (b"seed: 1\nseed: 2\n", "duplicate key"),
        (b"data:\n\tsource: x\n", "not valid YAML"),
        (b"seed: 2024-13-45\n", "not valid YAML"),
        (b"seed: \x00\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not readable"),
        (b"- a\n- b\n", "must be a mapping of sections, not list"),
        (b"", "must be a mapping of sections, not NoneType"),
        (b"plain", "must be a mapping of sections, not str"),
        (b"[" * 5000, "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match=said) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="not readable"):
        load_params(tmp_path)


@given(
    raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "students", "source", "family", "a", "retention"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_is_given_is_a_run_or_one_line(raw: Any) -> None:
    if not isinstance(raw, dict):
        raw = minimal(students=raw)
    told = ""
    try:
        assert validate(raw, "params.yaml").students
    except ParamsError as error:
        told = str(error)
    assert "\n" not in told


def models(kind: type[BaseModel]) -> set[type[BaseModel]]:
    found = {kind}
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= models(field.annotation)
    return found


@pytest.mark.parametrize("family", ["static", "auto"])
def test_dissent_needs_teachers_and_members_need_fine_tuning(family: str) -> None:
    raw = minimal(students={"a": {"family": family, "dissent": 0.5}})
    with pytest.raises(ParamsError, match=r"students\.a\.dissent is 0\.5, and there is one teacher; set teacher\.mem"):
        validate(raw, "params.yaml")
    raw["teacher"] |= {"members": 2}
    assert validate(raw, "params.yaml").teacher.members == 2
    raw["teacher"] |= {"fine_tune": False}
    with pytest.raises(ParamsError, match="members above 1 need fine_tune"):
        validate(raw, "params.yaml")


def test_dkd_is_refused_where_a_text_has_several_labels() -> None:
    raw = {
        "data": {"source": "rows.csv", "problem_type": "multi_label"},
        "teacher": {"source": "t"},
        "students": {"cnn": {"family": "cnn", "objective": "dkd"}, "found": {"family": "auto"}},
    }
    with pytest.raises(ParamsError, match=r"students\.cnn\.objective is dkd, which .*; .* use kl or mse"):
        validate(raw, "params.yaml")
    del raw["students"]["cnn"]
    assert validate(raw, "params.yaml").data.label_separator == ";"


def test_the_schema_covers_and_describes_every_field() -> None:
    schema = json_schema()
    described = schema["$defs"] | {"Params": schema}
    for kind in models(Params) | {StaticParams, SlicedParams}:
        assert set(described[kind.__name__]["properties"]) == set(kind.model_fields)
        assert described[kind.__name__]["additionalProperties"] is False
    assert set(schema["required"]) == {"data", "teacher", "students"}
    assert "Tokens read of each text" in json.dumps(schema)


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_no_key_is_named_as_dvc_drops_from_its_run_cache_key(name: str) -> None:
    dumped = validate(toy_params(), "toy").model_dump()
    assert name not in every_key(dumped)
    properties = {key for kind in models(Params) | {StaticParams, SlicedParams} for key in kind.model_fields}
    assert name not in properties


def test_the_params_files_of_the_project_are_runs() -> None:
    files = [ROOT / "params.yaml", *sorted((ROOT / "examples").rglob("*.yaml"))]
    assert len(files) >= 3
    for path in files:
        assert load_params(path).students
