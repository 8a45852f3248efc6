import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from stillroom.data.sources.disk import RESERVE_BYTES
from stillroom.data.sources.materialise import snapshot
from stillroom.data.sources.teacher import checkpoint_folder
from stillroom.errors import InputError
from stillroom.files import file_digests, sha256_file, tree_digest
from stillroom.gate_params import GateParams
from stillroom.governance_params import GovernanceParams
from stillroom.params import CaptureParams, GrowthParams, Method, Params
from stillroom.personal_data_params import PersonalDataParams
from stillroom.student_params import Student
from tests.toys import write_smaller_checkpoint

MakeParams = Callable[..., Params]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_everything_that_a_run_reads_is_laid_out(
    make_params: MakeParams, rows_csv: Path, teacher: Path, state: Path, workspace: Path
) -> None:
    test = rows_csv.with_name("held.CSV")
    test.write_text("text,label\nsomething new about a card,arrival\n")
    taken = snapshot(make_params(test=str(test), licence="CC-BY-4.0"), workspace)
    assert taken.changed
    assert json.loads((workspace / "sources/data/source.json").read_text()) == {
        "train": {"uri": str(rows_csv), "sha256": sha256_file(rows_csv), "file": "train.csv"},
        "test": {"uri": str(test), "sha256": sha256_file(test), "file": "test.csv"},
        "validation": None,
        "licence": "CC-BY-4.0",
    }
    assert (workspace / "sources/data/train.csv").read_bytes() == rows_csv.read_bytes()
    assert json.loads((workspace / "sources/teacher.json").read_text()) == {
        "uri": str(teacher),
        "sha256": tree_digest(teacher),
        "licence": None,
        "files": file_digests(teacher),
    }
    assert sorted(listing(workspace)) == [
        "sources/data/source.json",
        "sources/data/test.csv",
        "sources/data/train.csv",
        "sources/teacher.json",
    ]


@pytest.mark.parametrize("kind", ["unlabelled", "cases"])
def test_texts_that_are_no_rows_are_laid_out_pinned_and_checked(
    make_params: MakeParams, tmp_path: Path, state: Path, workspace: Path, kind: str
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "something new about a card"}\n')
    assert snapshot(make_params(**{kind: str(own)}), workspace).changed
    record = json.loads((workspace / "sources/data/source.json").read_text())[kind]
    assert record == {"uri": str(own), "sha256": sha256_file(own), "file": f"{kind}.jsonl"}
    assert (workspace / f"sources/data/{kind}.jsonl").read_bytes() == own.read_bytes()
    with pytest.raises(InputError, match=rf"data\.{kind}: .* but params\.yaml demands 0000"):
        snapshot(make_params(**{kind: str(own), f"{kind}_sha256": "0" * 64}), workspace)
    before = listing(workspace)
    own.write_text('{"words": "something new about a card"}\n')
    with pytest.raises(InputError, match=r"own\.jsonl: line 1: has no column 'text' \(data\.text\)"):
        snapshot(make_params(**{kind: str(own)}), workspace)
    assert listing(workspace) == before
    assert snapshot(make_params(), workspace).changed
    assert not (workspace / f"sources/data/{kind}.jsonl").exists()


LANGUAGES = "text,label,language\n" + "".join(f"card {n},{'ab'[n % 2]},{['de', 'fr'][n % 2]}\n" for n in range(8))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"column": "languages", "values": ["de"]}, "has no column 'languages' (gate.slices.x.column); did you mean"),
        ({"column": "language", "values": ["it"]}, "gate.slices.x.values has 'it', which none of the 8 rows of"),
        ({"min_chars": 9}, "gate.slices.x selects none of the 8 rows of"),
        ({"column": "language", "values": ["de"]}, None),
    ],
)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("given", ["source", "test"])
def test_slices_that_can_have_no_test_row_stop_before_anything_is_trained(
    make_params: MakeParams,
    state: Path,
    workspace: Path,
    tmp_path: Path,
    part: dict[str, object],
    told: str | None,
    known: bool,
    given: str,
) -> None:
    (tmp_path / "told.csv").write_text(LANGUAGES)
    (tmp_path / "train.csv").write_text(LANGUAGES if given == "source" else LANGUAGES.replace("language", "code"))
    files = {"source": str(tmp_path / "train.csv"), given: str(tmp_path / "told.csv")}
    params = make_params(**files)
    if known:
        snapshot(params, workspace)
    before = listing(workspace)
    sliced = params.model_copy(update={"gate": GateParams.model_validate({"slices": {"x": part}})})
    if told is None:
        assert snapshot(sliced, workspace).changed is not known
        return
    with pytest.raises(InputError) as refused:
        snapshot(sliced, workspace)
    assert told in str(refused.value)
    assert listing(workspace) == before


@pytest.mark.parametrize(("redact", "seen", "unseen"), [(True, r"\[EMAIL\]", "@"), (False, "@", r"\[EMAIL\]")])
def test_slices_are_asked_of_the_texts_as_the_run_will_see_them(
    make_params: MakeParams, state: Path, workspace: Path, tmp_path: Path, redact: bool, seen: str, unseen: str
) -> None:
    texts = [f"row {n} of a@example.org" for n in range(8)]
    (tmp_path / "told.csv").write_text("text,label\n" + "".join(f"{t},{'ab'[n % 2]}\n" for n, t in enumerate(texts)))
    params = make_params(source=str(tmp_path / "told.csv"))
    scan = PersonalDataParams(kinds=("email",), redact=redact)

    def with_pattern(pattern: str) -> Params:
        gate = GateParams.model_validate({"slices": {"x": {"pattern": pattern}}})
        return params.model_copy(
            update={"gate": gate, "data": params.data.model_copy(update={"personal_data_scan": scan})}
        )

    with pytest.raises(InputError, match=r"gate\.slices\.x selects none of the 8 rows of"):
        snapshot(with_pattern(unseen), workspace)
    assert snapshot(with_pattern(seen), workspace).changed


def test_a_value_of_no_row_shows_no_others_where_texts_are_scanned(
    make_params: MakeParams, state: Path, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "told.csv").write_text(LANGUAGES)
    params = make_params(source=str(tmp_path / "told.csv"))
    gate = GateParams.model_validate({"slices": {"x": {"column": "language", "values": ["it"]}}})
    data = params.data.model_copy(update={"personal_data_scan": PersonalDataParams(kinds=("email",))})
    with pytest.raises(InputError, match=r"look up how the file spells it$"):
        snapshot(params.model_copy(update={"gate": gate, "data": data}), workspace)


@pytest.mark.parametrize(
    ("method", "told"), [("mask", "has no mask token; leave mask out"), ("replace", "has no masked-language head; use")]
)
def test_a_teacher_without_what_growth_needs_of_it_is_refused(
    method: Method, told: str, make_params: MakeParams, state: Path, workspace: Path
) -> None:
    growth = GrowthParams(factor=1, methods=(method,))
    with pytest.raises(InputError, match=rf"^teacher\.source: .* {told}"):
        snapshot(make_params().model_copy(update={"growth": growth}), workspace)
    assert list(workspace.iterdir()) == []
    idle = growth.model_copy(update={"factor": 0})
    assert snapshot(make_params().model_copy(update={"growth": idle}), workspace).changed


@pytest.mark.parametrize("family", ["pretrained", "auto"])
def test_an_encoder_that_students_start_from_is_fetched_and_checked_before_anything_is_written(
    family: str, make_params: MakeParams, teacher: Path, tmp_path: Path, state: Path, workspace: Path
) -> None:
    own = Path(shutil.copytree(teacher, tmp_path / "own"))

    def params(sha256: str) -> Params:
        told = {"family": family, "checkpoint": {"source": str(own), "sha256": sha256}}
        return make_params().model_copy(update={"students": {"own": TypeAdapter(Student).validate_python(told)}})

    digest = tree_digest(own)
    with pytest.raises(InputError, match=rf"^students\.own\.checkpoint\.source: .* {digest}"):
        snapshot(params("0" * 64), workspace)
    (own / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"^students\.own\.checkpoint\.source: .*: has no model\.safetensors"):
        snapshot(params(tree_digest(own)), workspace)
    assert list(workspace.iterdir()) == []
    shutil.copyfile(teacher / "model.safetensors", own / "model.safetensors")
    assert snapshot(params(digest), workspace).changed
    assert checkpoint_folder("nowhere", digest, "test") == own


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ({"family": "sliced", "layers": 3}, "students.own: layers is 3; the teacher has 2"),
        ({"family": "narrow", "layers": 1, "width": 24}, "students.own: width is 24; the teacher's heads are 16 wide"),
        ({"family": "pretrained", "layers": 3}, "students.own: layers is 3; the checkpoint has 2"),
        (None, "capture.signals names layer 3; the teacher has 2 layers"),
    ],
)
def test_what_an_encoder_does_not_allow_its_students_is_refused_before_it_is_trained(
    student: dict[str, object] | None,
    told: str,
    make_params: MakeParams,
    tiny_checkpoint: Path,
    tmp_path: Path,
    state: Path,
    workspace: Path,
) -> None:
    params = make_params()
    teacher = params.teacher.model_copy(update={"source": str(tiny_checkpoint)})
    params = params.model_copy(update={"teacher": teacher})
    if student is None:
        params = params.model_copy(update={"capture": CaptureParams(signals=("logits", "hidden.3"))})
    else:
        if student["family"] == "pretrained":
            smaller = write_smaller_checkpoint(tmp_path / "smaller")
            student = student | {"checkpoint": {"source": str(smaller), "sha256": tree_digest(smaller)}}
        students = {"own": TypeAdapter(Student).validate_python(student)}
        params = params.model_copy(update={"students": students})
    with pytest.raises(InputError, match=rf"^params\.yaml: {re.escape(told)}"):
        snapshot(params, workspace)
    assert list(workspace.iterdir()) == []


def governed(params: Params, licence: str | None = None, **declared: str) -> Params:
    """The params with these declarations, and with this licence of the teacher."""
    teacher = params.teacher.model_copy(update={"licence": licence})
    return params.model_copy(update={"governance": GovernanceParams.model_validate(declared), "teacher": teacher})


def test_a_rule_that_stops_writes_nothing_and_is_asked_after_all_was_fetched(
    make_params: MakeParams, rows_csv: Path, state: Path, workspace: Path
) -> None:
    personal = governed(make_params(), personal_data="personal", policy="off")
    with pytest.raises(InputError, match=r"^governance: a rule stops .*personal-data-without-dpia") as caught:
        snapshot(personal, workspace)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="demands 0000"):
        snapshot(governed(make_params(sha256="0" * 64), personal_data="personal"), workspace)
    rows_csv.write_text("text,label\nx,a\ny,a\n")
    with pytest.raises(InputError, match=r"^governance: "):
        snapshot(personal, workspace)
    assert list(workspace.iterdir()) == []


def test_declarations_are_asked_anew_where_data_and_teacher_are_laid_out_already(
    make_params: MakeParams, state: Path, workspace: Path
) -> None:
    snapshot(make_params(), workspace)
    before = listing(workspace)
    with pytest.raises(InputError, match="personal-data-without-dpia"):
        snapshot(governed(make_params(), personal_data="personal"), workspace)
    assert listing(workspace) == before
    assert not snapshot(governed(make_params(), personal_data="personal", dpia="DPIA-7"), workspace).changed


SCAN = PersonalDataParams(regions=("DE",))


def test_personal_data_declared_as_none_and_found_by_a_scan_write_nothing(
    make_params: MakeParams, rows_csv: Path, state: Path, workspace: Path
) -> None:
    rows_csv.write_text(rows_csv.read_text() + "write to max@example.org,arrival\n")
    params = make_params(personal_data_scan=SCAN, licence="CC0-1.0")
    told = {"policy": "stop", "personal_data": "none", "teacher_terms": "allowed"}
    with pytest.raises(InputError, match=r"^governance: a rule stops .*personal-data-found: .* found email 1;"):
        snapshot(governed(params, "MIT", **told), workspace)
    assert list(workspace.iterdir()) == []
    assert snapshot(governed(params, "MIT", **told | {"policy": "warn"}), workspace).changed


def test_a_scan_without_its_libraries_is_refused_before_anything_is_fetched(
    make_params: MakeParams, state: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(InputError, match=r"install the extra stillroom\[privacy\]") as caught:
        snapshot(make_params(personal_data_scan=SCAN), workspace)
    assert caught.value.exit_code == 2
    assert [*workspace.iterdir(), *(path for path in state.rglob("*") if path.is_file())] == []


@pytest.mark.parametrize("part", ["teacher", "students.own.checkpoint"])
def test_a_licence_is_compared_with_the_checkpoint_s_own_card(
    part: str,
    make_params: MakeParams,
    teacher: Path,
    tmp_path: Path,
    state: Path,
    workspace: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = Path(shutil.copytree(teacher, tmp_path / "own"))
    carried = {"teacher": teacher, "students.own.checkpoint": own}[part]
    (carried / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")

    def params(licence: str, policy: str) -> Params:
        told = {"source": str(own), "sha256": tree_digest(own), "licence": licence}
        student = TypeAdapter(Student).validate_python({"family": "pretrained", "checkpoint": told})
        run = governed(
            make_params(licence="MIT"), licence, policy=policy, teacher_terms="allowed", personal_data="none"
        )
        return run.model_copy(update={"students": {"own": student}})

    told = rf"licence-differs-from-card: {part}\.licence is MIT, .* says cc-by-nc-4\.0;"
    with pytest.raises(InputError, match=f"^governance: a rule stops .*: {told}"):
        snapshot(params("MIT", "stop"), workspace)
    assert list(workspace.iterdir()) == []
    with caplog.at_level(logging.WARNING, "stillroom"):
        assert snapshot(params("MIT", "warn"), workspace).changed
    assert len([record for record in caplog.records if re.search(told, record.getMessage())]) == 1
    caplog.clear()
    (carried / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    snapshot(params("MIT", "stop"), workspace)
    assert caplog.records == []


def test_nothing_is_touched_when_nothing_changed(make_params: MakeParams, state: Path, workspace: Path) -> None:
    params = make_params()
    snapshot(params, workspace)
    before = listing(workspace)
    assert not snapshot(params, workspace).changed
    assert listing(workspace) == before


def test_changed_damaged_and_dropped_files_are_laid_anew(
    make_params: MakeParams, rows_csv: Path, state: Path, workspace: Path
) -> None:
    test = rows_csv.with_name("held.csv")
    test.write_text("text,label\nsomething new about a card,arrival\n")
    snapshot(make_params(test=str(test)), workspace)
    pin = (workspace / "sources/teacher.json").stat().st_mtime_ns
    snapshot(make_params(), workspace)
    assert not (workspace / "sources/data/test.csv").exists()
    (workspace / "sources/data/train.csv").write_text("text,label\n")
    assert snapshot(make_params(), workspace).changed
    assert (workspace / "sources/data/train.csv").read_bytes() == rows_csv.read_bytes()
    rows_csv.write_text(rows_csv.read_text() + "one more about the card,arrival\n")
    assert snapshot(make_params(), workspace).source.train.sha256 == sha256_file(rows_csv)
    assert (workspace / "sources/teacher.json").stat().st_mtime_ns == pin


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda rows, teacher: rows.write_text("text,label\nx,a\ny,a\n"), "one class only"),
        (lambda rows, teacher: rows.write_bytes(b""), "is empty"),
        (lambda rows, teacher: rows.unlink(), "no such file"),
        (lambda rows, teacher: (teacher / "tokenizer.json").unlink(), "has no tokeniser"),
        (lambda rows, teacher: (teacher / "model.safetensors").write_bytes(b"half"), "is not whole"),
    ],
)
def test_bad_input_writes_nothing(
    break_it: Callable[[Path, Path], object],
    told: str,
    make_params: MakeParams,
    rows_csv: Path,
    teacher: Path,
    state: Path,
    workspace: Path,
) -> None:
    params = make_params()
    break_it(rows_csv, teacher)
    with pytest.raises(InputError, match=told) as caught:
        snapshot(params, workspace)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert list(workspace.iterdir()) == []


def test_bad_input_leaves_the_snapshot_before_it(
    make_params: MakeParams, rows_csv: Path, state: Path, workspace: Path
) -> None:
    snapshot(make_params(), workspace)
    before = listing(workspace)
    rows_csv.write_text("text,label\nx,a\ny,a\n")
    with pytest.raises(InputError):
        snapshot(make_params(), workspace)
    assert listing(workspace) == before


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"source": "rows.xlsx"}, r"data\.source: rows\.xlsx: \.xlsx is no known format"),
        ({"test": "s3://bucket/folder"}, r"data\.test: s3://bucket/folder: no ending is no known format"),
        ({"sha256": "0" * 64}, r"data\.source: .* but params\.yaml demands 0000"),
        ({"validation": "https://127.0.0.1:9/rows.csv"}, r"data\.validation: .* needs its sha256"),
    ],
)
def test_the_parameter_at_fault_is_named(
    data: dict[str, str], told: str, make_params: MakeParams, state: Path, workspace: Path
) -> None:
    with pytest.raises(InputError, match=told):
        snapshot(make_params(**data), workspace)


def test_a_folder_is_no_data_file(make_params: MakeParams, tmp_path: Path, state: Path, workspace: Path) -> None:
    (tmp_path / "many.csv").mkdir()
    with pytest.raises(InputError, match="is a folder; give the one file"):
        snapshot(make_params(source=str(tmp_path / "many.csv")), workspace)


def test_no_space_in_the_workspace_writes_nothing(
    make_params: MakeParams, state: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.data.sources.disk.free_bytes", lambda folder: 10)
    with pytest.raises(InputError, match="has 10 B free"):
        snapshot(make_params(), workspace)
    assert list(workspace.iterdir()) == []


def test_no_space_for_the_run_writes_nothing(
    make_params: MakeParams, teacher: Path, state: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_bytes = sum(path.stat().st_size for path in teacher.iterdir())
    monkeypatch.setattr("stillroom.data.sources.disk.free_bytes", lambda folder: RESERVE_BYTES + 10 * size_bytes)
    with pytest.raises(InputError, match=r"a run may write .* free some, or move the checkout"):
        snapshot(make_params(), workspace)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["arrival", "access", "other"], "the checkpoint gives 3 labels, the data have 2"),
        (["arrival", "entry"], "the checkpoint's labels lack access"),
        (["access", "arrival"], None),
    ],
)
def test_a_ready_teacher_of_other_labels_writes_nothing(
    make_params: MakeParams, teacher: Path, state: Path, workspace: Path, labels: list[str], told: str | None
) -> None:
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"] = dict(enumerate(labels))
    (teacher / "config.json").write_text(json.dumps(config))
    params = make_params()
    params = params.model_copy(update={"teacher": params.teacher.model_copy(update={"fine_tune": False})})
    if told is None:
        assert snapshot(params, workspace).changed
        return
    with pytest.raises(InputError, match=told):
        snapshot(params, workspace)
    assert list(workspace.iterdir()) == []


def test_one_wheel_serves_data_and_test(
    make_wheel: Callable[..., Path],
    make_params: MakeParams,
    rows_csv: Path,
    state: Path,
    workspace: Path,
    tmp_path: Path,
) -> None:
    make_wheel({"pkg/train.csv": rows_csv.read_bytes(), "pkg/test.csv": b"text,label\nmy app is slow,access\n"})
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho call >> "{calls}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        params = make_params(source="pypi://some-rows==1.0/pkg/train.csv", test="pypi://some-rows==1.0/pkg/test.csv")
        snapshot(params, workspace)
        assert not snapshot(params, workspace).changed
    assert calls.read_text() == "call\n"


def test_an_unchanged_snapshot_imports_nothing_heavy(make_params: MakeParams, state: Path, workspace: Path) -> None:
    params = make_params()
    snapshot(params, workspace)
    code = (
        "import sys; from pathlib import Path; from stillroom.params import Params; "
        "from stillroom.data.sources.materialise import snapshot; "
        f"params = Params.model_validate_json({params.model_dump_json()!r}); "
        f"assert not snapshot(params, Path({str(workspace)!r})).changed; "
        "print({'pandas', 'pyarrow', 'torch', 'boto3', 'huggingface_hub', 'scipy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert ended.stdout.strip() == "set()"
