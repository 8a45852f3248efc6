"""benchmarks/students.py without its trainings: which parts are due, and what results over seeds are summed up to."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers, students
from benchmarks.students import Part
from stillroom import layout
from stillroom.data.splits import read_split
from stillroom.files import tree_digest, write_json
from stillroom.params_file import load_params
from stillroom.stages.receipt import RECEIPTS_VARIABLE, write_ended, write_started
from stillroom.student_params import AutoParams, StaticParams
from tests.toys import Workspace, write_smaller_checkpoint

LABELS = [0, 1] * 100


def wrong(count: int) -> list[int]:
    """Predictions for LABELS of which the first `count` are wrong."""
    return [1 - label if place < count else label for place, label in enumerate(LABELS)]


def answer(mistakes: int, own_ms: float = 1.0, **changes: Any) -> dict[str, Any]:
    times = {"own": own_ms, "student": 0.5, "onnx_int8": 20.0, "tokenise": 0.1}
    return {
        "data_sha256": "a",
        "predicted": wrong(mistakes),
        "unquantised": None,
        "params": 1_000,
        "size_bytes": 4_000,
        "setting": "defaults",
        "train_seconds": 3.0,
        "latency_ms": {name: {"p50": taken, "p95": taken} for name, taken in times.items()},
        "machine": {"cpu": "one"},
        "python": "3.11.4",
        **changes,
    }


def own_answer(mistakes: int, **changes: Any) -> dict[str, Any]:
    beside = {
        "student": "static",
        "labels": LABELS,
        "teacher": wrong(10),
        "baseline": wrong(40),
        "teacher_params": 100_000,
        "teacher_size_bytes": 400_000,
        "torch_over_int8": 3.0,
    }
    return answer(mistakes, own_ms=0.5, unquantised=wrong(mistakes - 2)) | beside | changes


def test_a_systems_figures_over_seeds() -> None:
    pairs = [(answer(mistakes), own_answer(20)) for mistakes in (28, 29, 30)]
    figures = students.summarise(pairs)
    assert figures["seeds"] == 3
    assert figures["accuracy"] == pytest.approx(171 / 200, abs=1e-4)
    assert figures["retention"]["point"] == pytest.approx(171 / 190, abs=1e-4)
    assert figures["baseline_gain"]["point"] == pytest.approx(11 / 200, abs=1e-4)
    assert figures["params_fraction"] == 0.01
    assert figures["size_ratio"] == 100.0
    assert figures["speedup"] == {"vs_torch_fp32": 60.0, "vs_onnx_int8": 20.0, "vs_tokenise": 0.1, "vs_student": 0.5}
    assert figures["int8_drop"] is None
    assert students.summarise([(own_answer(20), own_answer(20))])["int8_drop"] == 0.01


def test_the_interval_over_seeds_holds_that_of_each() -> None:
    alone = [students.summarise([(answer(mistakes), own_answer(20))]) for mistakes in (20, 40)]
    both = students.summarise([(answer(mistakes), own_answer(20)) for mistakes in (20, 40)])
    for figure in ("retention", "baseline_gain"):
        assert both[figure]["lower"] == alone[1][figure]["lower"] < alone[1][figure]["point"]
        assert both[figure]["upper"] == alone[0][figure]["upper"] > alone[0][figure]["point"]
        assert alone[1][figure]["point"] < both[figure]["point"] < alone[0][figure]["point"]


def test_results_of_other_rows_are_not_compared() -> None:
    with pytest.raises(SystemExit, match="different rows"):
        students.summarise([(answer(20, data_sha256="b"), own_answer(20))])


@pytest.mark.parametrize(("what", "other"), [("machine", {"cpu": "two"}), ("machine", None), ("python", "3.11.5")])
def test_parts_of_one_table_are_of_one_machine_and_python(tmp_path: Path, what: str, other: Any) -> None:
    parts = students.all_parts(["sst2"], ["large", "small"])
    for teacher, changes in (("large", {}), ("small", {what: other})):
        students.keep(tmp_path, Part("sst2", teacher, "student", 0), own_answer(20, **changes))
        students.keep(tmp_path, Part("sst2", teacher, "tfidf", 0), answer(20, **changes))
    assert set(students.summarise_all(parts, tmp_path)["sst2"]) == {"large", "small"}, "tables may differ"
    students.keep(tmp_path, Part("sst2", "small", "tfidf", 0), answer(20))
    with pytest.raises(SystemExit, match=f"sst2/small: parts of one table differ in {what}: "):
        students.summarise_all(parts, tmp_path)


def test_time_to_train_is_not_told_where_a_receipt_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspaces = [tmp_path / "own", tmp_path / "first"]

    def leave(place: Path, stage: str, seconds: float, code: int = 0) -> None:
        monkeypatch.setenv(RECEIPTS_VARIABLE, str(place / ".stillroom/receipts"))
        began = write_started(stage)
        monkeypatch.setattr("time.time", lambda: began.started_at + seconds)
        write_ended(began, code, None, {})
        monkeypatch.undo()

    def told() -> float | None:
        return students.stage_seconds(("teach", "distil@{}"), "static", workspaces)

    leave(workspaces[1], "teach", 30.0)
    assert told() is None
    leave(workspaces[1], "distil@static", 5.0)
    assert told() == pytest.approx(35.0)
    leave(workspaces[0], "distil@static", 7.0)
    assert told() == pytest.approx(37.0)
    leave(workspaces[0], "distil@static", 7.0, code=1)
    assert told() is None

    students.keep(tmp_path, Part("sst2", "small", "student", 0), own_answer(20, train_seconds=None))
    figures = students.summarise_all(students.all_parts(["sst2"], ["small"]), tmp_path)
    assert figures["sst2"]["small"]["student"]["train_seconds"] is None
    students.print_table(figures)
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert row.endswith(" -")
    assert len(row) == len(head)
    assert "[least lower, greatest upper]" in head


def test_a_system_is_asked_without_gpu_in_a_state_of_its_own_and_answers_by_its_parts_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def call(command: list[str], _: Path, variables: dict[str, str]) -> None:
        given.update(variables=variables, out=Path(command[command.index("--out") + 1]))
        given["out"].write_text('{"params": 3}')

    monkeypatch.setattr(students, "_call", call)
    monkeypatch.setenv("STILLROOM_STATE", "elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    workshop = students.Workshop(tmp_path, tmp_path / "peers", {}, {"small": tmp_path})
    part = Part("sst2", "small", "teacher_int8", 0)
    assert workshop.ask(part, tmp_path, "static") == {"params": 3}
    assert given["out"] == tmp_path / "sst2/small/teacher_int8-0.answer"
    assert not given["out"].exists()
    assert given["variables"]["STILLROOM_STATE"] == str(tmp_path / "sst2/small/state")
    assert given["variables"]["CUDA_VISIBLE_DEVICES"] == ""


def test_a_peer_is_timed_on_test_texts_once_after_it_met_others(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def predict(texts: Sequence[str]) -> list[int]:
        heard.extend(texts)
        return [0] * len(texts)

    parts = {name: read_split(layout.SPLIT, name).text for name in ("train", "validation", "test")}
    rows = [*parts["train"], *parts["validation"]]
    own = peers.Trained(predict, 1, 1, "")
    task = peers.Task(Path(), "static", Path(), rows, [], parts["test"], 0, Path())
    monkeypatch.setattr(peers, "TIMED_TEXTS", 30)
    monkeypatch.setattr(peers, "SLOW_TEXTS", 7)
    found = peers.latencies(task, own)
    assert found.keys() == {"own", "student", "onnx_int8", "tokenise"}
    tested = [text for text in heard if text not in rows]
    assert len(tested) == len(set(tested)) == 30
    first = heard.index(tested[0])
    assert set(rows[-30:]) == set(heard[:first]), "all of the others before any"
    heard.clear()
    monkeypatch.setattr(peers, "FAST_MS", 0.0)
    peers.latencies(task, own)
    assert set(heard) - set(rows) < set(tested)
    assert len(set(heard) - set(rows)) == 7


def test_a_student_in_fp32_has_nothing_that_int8_costs(finished: Workspace, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(layout.PACKAGES / "static/student", package)
    manifest = json.loads((package / "stillroom.json").read_text())
    for quantisation, unquantised in (("fp32", None), ("dynamic_int8", [1, 0])):
        (package / "stillroom.json").write_text(json.dumps(manifest | {"quantisation": quantisation}))
        assert peers._package(package, [1, 0]).unquantised == unquantised


def test_setfit_gets_as_many_rows_whatever_the_classes() -> None:
    each = {classes: peers.rows_of_each_class(classes) for classes in (2, 3, 77, 150)}
    assert each == {2: 308, 3: 205, 77: 8, 150: 8}


def test_a_part_that_is_done_is_not_due_again(tmp_path: Path) -> None:
    parts = students.all_parts(["banking77", "sst2"], ["large", "small"])
    assert len({part.name for part in parts}) == len(parts) == 2 * 2 * (4 * 3 + 2)
    done = Part("sst2", "small", "setfit", 1)
    students.keep(tmp_path, done, answer(20))
    assert students.missing(parts, tmp_path) == [part for part in parts if part != done]
    due = students.missing(parts, tmp_path, "sst2/*/setfit-*")
    assert [(part.teacher, part.seed) for part in due] == [
        ("large", 0),
        ("large", 1),
        ("large", 2),
        ("small", 0),
        ("small", 2),
    ]
    assert list(tmp_path.rglob("*.partial")) == []


def test_what_is_done_is_told_by_data_teacher_and_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = students.all_parts(["sst2"], ["small"])
    for part in parts:
        if part.seed < 2:
            students.keep(tmp_path, part, own_answer(20) if part.system == "student" else answer(30))
    students.keep(tmp_path, Part("sst2", "small", "setfit", 2), answer(30))  # its seed's student is not there yet
    figures = students.summarise_all(parts, tmp_path)
    assert set(figures["sst2"]["small"]) == {*students.OURS, *students.PEERS}
    seeds = {system: row["seeds"] for system, row in figures["sst2"]["small"].items()}
    assert seeds == {"student": 2, "teacher_int8": 1, "tfidf": 1, "model2vec": 2, "setfit": 2, "layer_cut": 2}
    assert json.loads(json.dumps(figures)) == figures
    students.print_table(figures)
    assert len(capsys.readouterr().out.strip().splitlines()) == 2 + len(seeds)


def test_nothing_is_measured_beside_a_student_that_is_not_there(tmp_path: Path) -> None:
    workshop = students.Workshop(tmp_path, tmp_path / "peers", {"sst2": tmp_path}, {"small": tmp_path})
    with pytest.raises(SystemExit, match="sst2/small/tfidf-0: needs student-0"):
        workshop.perform(Part("sst2", "small", "tfidf", 0))


def test_the_chosen_student_is_the_selected_or_the_best() -> None:
    kept = {name: {"retention": {"accuracy": {"lower": lower}}} for name, lower in (("a", 0.8), ("b", 0.9))}
    assert students.choose({"selected": "a", "students": kept}) == "a"
    assert students.choose({"selected": None, "students": kept}) == "b"


def test_validation_rows_are_used_where_the_data_have_some(tmp_path: Path) -> None:
    def given() -> list[str]:
        return students.run_command("own.yaml", tmp_path, Path("teacher"), tmp_path / "workspace")

    assert "data.validation=null" in given()
    (tmp_path / "validation.csv").touch()
    assert f"data.validation={tmp_path / 'validation.csv'}" in given()


def test_a_search_is_given_the_smaller_encoder_and_nothing_else_is(tmp_path: Path) -> None:
    compact = write_smaller_checkpoint(tmp_path / "compact")

    def checkpoints(students_of: dict[str, Any]) -> list[str]:
        params = tmp_path / "own.json"
        params.write_text(json.dumps({"data": {"source": "x"}, "teacher": {"source": "y"}, "students": students_of}))
        command = students.run_command(str(params), tmp_path, Path("teacher"), tmp_path / "workspace", compact)
        given = [word for word in command if word.startswith("students.")]
        assert all(word.startswith("students.one.") for word in given)
        one = load_params(params, given).students["one"]
        assert getattr(one, "unseen_pieces", False) == bool(given)
        return [one.checkpoint.sha256] if isinstance(one, AutoParams) and one.checkpoint else []

    assert checkpoints({"one": {"family": "auto"}, "two": {"family": "static"}}) == [tree_digest(compact)]
    assert checkpoints({"one": {"family": "static"}}) == []


def test_another_seed_has_the_settings_that_the_first_search_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    found = StaticParams(family="static", epochs=3)
    write_json(first / "artifacts/students/one/student.json", {"settings": found.model_dump(mode="json")})
    raw = {"data": {"source": "x"}, "teacher": {"source": "y"}, "students": {"one": {"family": "auto"}}, "seed": 4}
    write_json(first / "params.yaml", raw)
    called: list[list[str]] = []
    monkeypatch.setattr(students, "_call", lambda command, *_: called.append(command[-2:]))
    students.train_again(first, again, "one", 2, {})
    params = load_params(again / "params.yaml")
    assert (params.seed, dict(params.students)) == (2, {"one": found})
    assert called == [[stage, "one"] for stage in ("distil", "quantise", "evaluate")]
