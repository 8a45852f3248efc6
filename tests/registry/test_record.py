"""The record step: complete, idempotent, quick the second time, and never a picture of something else."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillroom import layout
from stillroom.data.splits import read_snapshot
from stillroom.errors import GateRefused, InputError, TryAgain
from stillroom.files import read_json, write_json
from stillroom.registry import ledger, promotion, record, runs, tracking, versions
from stillroom.registry.marker import RecordedRun


def record_again(workspace: Any, *, executed: bool = True, name: str = "run") -> RecordedRun:
    """Record a workspace as a flow would."""
    return record.record_run(workspace.root, workspace.params, workspace.outcomes(executed), name)


def all_runs(tracker: tracking.Tracker) -> list[Any]:
    """Every run of the experiment, deleted ones too."""
    experiment = tracker.client.get_experiment_by_name("toy")
    return list(tracker.client.search_runs([experiment.experiment_id], run_view_type=3))


def picture(tracker: tracking.Tracker) -> dict[str, Any]:
    """Everything that recording writes, without the ids that MLflow invents."""
    ids = {run.info.run_id: run.info.run_name for run in all_runs(tracker)}
    told = {}
    for run in all_runs(tracker):
        tags = {name: ids.get(value, value) for name, value in run.data.tags.items()}
        losses = tracker.client.get_metric_history(run.info.run_id, "train_loss")
        told[run.info.run_name] = (run.info.status, run.data.metrics, run.data.params, tags, len(losses))
    found = {
        int(version.version): ({name: ids.get(value, value) for name, value in version.tags.items()})
        for version in tracker.client.search_model_versions("name = 'toy'")
    }
    return {"runs": told, "versions": found, "aliases": dict(versions.model(tracker, "toy").aliases)}


def test_every_trial_of_a_search_is_a_run_below_its_stage_and_logged_once(state: Path, workspace: Any) -> None:
    file = workspace.root / layout.STUDENTS / "static" / "student.json"
    trials = [
        {
            "name": f"static#{number}",
            "settings": {"family": "static", "epochs": 3 + number},
            "whole": True,
            "retention": 0.9 + number / 100,
            "measured": {"accuracy": 0.9, "latency_p95_ms": 0.1, "quantisation": "fp32"},
            "lacks": lacks,
        }
        for number, lacks in enumerate((["p95 is above", "retention is below"], []))
    ]
    trials.append({**trials[0], "name": "cnn#0", "measured": None, "retention": None, "lacks": ["failed: diverged"]})
    searched = {"search": trials, "settings": trials[1]["settings"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | searched))
    recorded = record_again(workspace)
    tracker = tracking.connect()
    stage = tracker.client.get_run(recorded.run_id).data.tags["stage.distil.static"]
    found = {run.data.tags["trial.name"]: run for run in all_runs(tracker) if "trial.of" in run.data.tags}
    assert sorted(found) == ["cnn#0", "static#0", "static#1"]
    assert found["cnn#0"].data.metrics == {}
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == run.data.tags["trial.of"] == stage
        assert run.info.status == "FINISHED"
    assert found["static#1"].data.metrics == {"accuracy": 0.9, "latency_p95_ms": 0.1, "retention": 0.91}
    assert found["static#1"].data.params == {"family": "static", "epochs": "4"}
    assert found["static#0"].data.tags["trial.lacks"] == "p95 is above; retention is below"
    assert found["static#1"].data.tags["trial.lacks"] == "nothing"
    assert [found[name].data.tags["trial.chosen"] for name in sorted(found)] == ["false", "false", "true"]
    before = picture(tracker)
    shutil.rmtree(state / "recorded", ignore_errors=True)
    record_again(workspace)
    assert picture(tracker) == before


def test_a_run_is_recorded_whole(state: Path, workspace: Any) -> None:
    recorded = record_again(workspace, name="nightly")
    assert recorded.versions == {"static": 1, "tiny": 2}
    assert (recorded.challenger, recorded.champion, recorded.unchanged) == (1, 1, False)
    tracker = tracking.connect()
    parent = tracker.client.get_run(recorded.run_id)
    assert (parent.info.run_name, parent.info.status) == ("nightly", "FINISHED")
    assert parent.data.params["students.tiny.epochs"] == "2"
    assert parent.data.metrics["static.retention.accuracy.lower"] == 0.98
    assert parent.data.metrics["teacher.metrics.accuracy"] == 0.96
    assert parent.data.tags["selected"] == "static"
    assert "| static | PASS |" in parent.data.tags["mlflow.note.content"]
    data = {found.dataset.name: found.dataset for found in parent.inputs.dataset_inputs}
    assert set(data) == {"rows.train", "rows.validation", "rows.test"}
    sha256 = read_snapshot(workspace.root / layout.SPLIT).sha256
    assert data["rows.test"].digest == sha256[:36]
    assert json.loads(data["rows.test"].source)["sha256"] == sha256
    files = {file.path for file in tracker.client.list_artifacts(recorded.run_id)}
    assert {"report", "summary.json", "pipeline"} <= files
    child = tracker.client.get_run(parent.data.tags["stage.distil.static"])
    assert child.data.tags["mlflow.parentRunId"] == recorded.run_id
    losses = tracker.client.get_metric_history(child.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in losses] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert child.data.metrics["cpu_s"] == 1.5
    assert (child.info.start_time, child.info.end_time) == (1_700_000_000_000, 1_700_000_002_000)
    capture = tracker.client.get_run(parent.data.tags["stage.capture"])
    assert capture.data.metrics["entries"] == 5.0
    version = versions.get(tracker, "toy", 1)
    assert version is not None
    assert version.run_id == parent.data.tags["stage.evaluate.static"]
    [entry] = ledger.read("toy", ledger.default_store())
    assert (entry.to_version, entry.actor) == (1, "stillroom run")


def test_recording_again_changes_nothing_and_needs_no_mlflow(state: Path, workspace: Any) -> None:
    first = record_again(workspace)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    again = record_again(workspace, executed=False, name="another name")
    assert again == replace(first, unchanged=True)
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before
    fingerprints = [(stage.address, stage.fingerprint) for stage in workspace.outcomes()]
    code = (
        "import sys, time; from pathlib import Path; from stillroom.registry import record, marker\n"
        "from stillroom.params_file import load_params\n"
        f"summary = Path({str(workspace.root)!r}) / 'reports/summary.json'\n"
        f"params = load_params(Path({str(workspace.root)!r}) / 'params.yaml')\n"
        f"key = marker.key(params.registry, {fingerprints!r}, summary)\n"
        "began = time.perf_counter(); found = marker.recall(key); took = time.perf_counter() - began\n"
        "assert found and found.unchanged and 'mlflow' not in sys.modules and took < 0.3, took\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_recording_again_without_the_note_changes_nothing(state: Path, workspace: Any) -> None:
    record_again(workspace)
    tracker = tracking.connect()
    before = picture(tracker)
    shutil.rmtree(state / "recorded")
    again = record_again(workspace, executed=False)
    assert again.unchanged is False
    assert picture(tracker) == before
    assert len(list((state / "mlartifacts/models").iterdir())) == 2
    assert len(ledger.read("toy", ledger.default_store())) == 1


def test_cached_stages_are_told_from_files(state: Path, workspace: Any) -> None:
    recorded = record_again(workspace, executed=False)
    tracker = tracking.connect()
    parent = tracker.client.get_run(recorded.run_id)
    child = tracker.client.get_run(parent.data.tags["stage.distil.static"])
    assert child.data.tags["stage.told_by"] == "files"
    assert len(tracker.client.get_metric_history(child.info.run_id, "train_loss")) == 3
    assert "cpu_s" not in child.data.metrics


def test_a_changed_student_adds_its_stages_and_links_the_rest(state: Path, workspace: Any) -> None:
    first = record_again(workspace)
    tracker = tracking.connect()
    count = len(all_runs(tracker))
    workspace.release("tiny", verdict="PASS", bias=0.3)
    second = record_again(workspace)
    assert second.run_id != first.run_id
    assert second.versions == {"static": 1, "tiny": 3}
    parents = [tracker.client.get_run(each.run_id).data.tags for each in (first, second)]
    assert parents[0]["stage.distil.static"] == parents[1]["stage.distil.static"]
    assert parents[0]["stage.teach"] == parents[1]["stage.teach"]
    assert parents[0]["stage.distil.tiny"] != parents[1]["stage.distil.tiny"]
    assert len(all_runs(tracker)) == count + 5  # parent, distil, quantise, evaluate and select


def test_no_student_passes(state: Path, workspace: Any) -> None:
    workspace.release("static", verdict="INCONCLUSIVE", bias=0.1, lower=0.96)
    recorded = record_again(workspace)
    assert (recorded.challenger, recorded.champion) == (1, None)
    assert ledger.read("toy", ledger.default_store()) == []
    assert record_again(workspace).unchanged


def test_failed_run_leaves_the_champion(state: Path, workspace: Any) -> None:
    record_again(workspace)
    workspace.release("static", verdict="FAIL", bias=0.9, lower=0.5)
    recorded = record_again(workspace)
    assert (recorded.challenger, recorded.champion) == (2, 1)


def test_a_summary_edited_by_hand_promotes_nobody(state: Path, workspace: Any) -> None:
    path = workspace.root / "reports/summary.json"
    summary = read_json(path)
    summary["students"]["tiny"] |= {"verdict": "PASS", "retention": {}}
    write_json(path, summary | {"selected": "tiny"})
    recorded = record_again(workspace)
    assert (recorded.versions, recorded.champion) == ({"static": 1, "tiny": 2}, None)
    assert ledger.read("toy", ledger.default_store()) == []


def test_a_rollback_outlives_the_same_result(state: Path, workspace: Any, caplog: pytest.LogCaptureFixture) -> None:
    record_again(workspace)
    workspace.release("static", verdict="PASS", bias=0.5)
    assert record_again(workspace).champion == 3
    promotion.rollback("toy", "ada", "slow in production")
    again = record_again(workspace)
    assert (again.champion, again.challenger, again.unchanged) == (1, 3, False)
    assert "was champion before" in caplog.text
    assert record_again(workspace).unchanged
    assert len(ledger.read("toy", ledger.default_store())) == 3


@pytest.mark.parametrize("rolled_back", [False, True])
def test_nobody_returns_by_itself_where_the_champion_is_damaged(
    state: Path, workspace: Any, caplog: pytest.LogCaptureFixture, rolled_back: bool
) -> None:
    record_again(workspace)
    if rolled_back:
        workspace.release("static", verdict="PASS", bias=0.5)
        record_again(workspace)
        promotion.rollback("toy", "ada", "slow in production")
    before = ledger.read("toy", ledger.default_store())
    for model in (state / "mlartifacts").rglob("model.onnx"):
        model.write_bytes(b"damaged")
    assert promotion.reconcile("toy").outcome == "damaged"
    assert record_again(workspace).champion is None
    assert "was champion before" in caplog.text
    assert "there is no champion; `stillroom promote` makes it champion" in caplog.text
    assert ledger.read("toy", ledger.default_store()) == before


def test_a_student_that_needs_a_person_stays_challenger_until_one_agrees(
    state: Path, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_AUTHOR", "Ada")
    asked = {"required": True, "because": "gate.approval is human", "four_eyes": True}
    workspace.release("static", verdict="PASS", bias=0.1, approval=asked)
    recorded = record_again(workspace)
    assert (recorded.challenger, recorded.champion) == (1, None)
    assert recorded.waits is not None
    assert "version 1 passed and waits for a person's approval (gate.approval is human)" in recorded.waits
    assert record_again(workspace) == replace(recorded, unchanged=True)
    version = versions.get(tracking.connect(), "toy", 1)
    assert version is not None
    assert version.tags[versions.AUTHOR_TAG] == "Ada"
    with pytest.raises(GateRefused, match="another than its author Ada"):
        promotion.promote("toy", 1, "ada", "mine")
    promotion.promote("toy", 1, "bob", "looked at it")
    again = record_again(workspace)
    assert (again.champion, again.waits) == (1, None)
    [entry] = ledger.read("toy", ledger.default_store())
    assert (entry.actor, entry.reason) == ("bob", "looked at it")


def test_alias_moved_by_hand_is_met(state: Path, workspace: Any) -> None:
    record_again(workspace)
    tracking.connect().client.set_registered_model_alias("toy", "champion", "2")
    again = record_again(workspace)
    assert (again.champion, again.unchanged) == (1, False)


def test_deleted_version_is_registered_again(state: Path, workspace: Any) -> None:
    record_again(workspace)
    tracking.connect().client.delete_model_version("toy", "2")
    assert record_again(workspace).versions == {"static": 1, "tiny": 3}


def test_deleted_runs_are_filled_in(state: Path, workspace: Any) -> None:
    first = record_again(workspace)
    tracking.connect().client.delete_run(first.run_id)
    again = record_again(workspace, executed=False)
    assert again.run_id != first.run_id
    assert again.versions == first.versions


def test_deleted_experiment_comes_back(state: Path, workspace: Any) -> None:
    first = record_again(workspace)
    tracking.connect().client.delete_experiment(first.experiment_id)
    again = record_again(workspace)
    assert (again.experiment_id, again.versions) == (first.experiment_id, first.versions)


def test_interrupted_recording_is_completed(
    state: Path, workspace: Any, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_again(workspace)
    reference = picture(tracking.connect())
    other = state.parent / "other"
    other.mkdir()
    shutil.copyfile(empty_store, other / "mlflow.db")
    monkeypatch.setenv(layout.STATE_VARIABLE, str(other))

    def cut(*_: object, **__: object) -> None:
        raise ConnectionError("the line went dead")

    cuts = ((runs, "finish"), (runs, "log_inputs"), (runs, "log_files"), (promotion, "_project"))
    for module, step in cuts:
        with monkeypatch.context() as patched:
            patched.setattr(module, step, cut)
            with pytest.raises(ConnectionError):
                record_again(workspace)
    assert record_again(workspace).champion == 1
    assert picture(tracking.connect()) == reference
    assert len(ledger.read("toy", ledger.default_store())) == 1


def test_locked_database_is_tried_again_and_then_recorded(state: Path, workspace: Any) -> None:
    holder = sqlite3.connect(state / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(TryAgain, match="locked"):
        record_again(workspace)
    holder.close()
    assert time.monotonic() - began < 15
    assert record_again(workspace).champion == 1


def test_damaged_database_is_wrong_input(state: Path, workspace: Any) -> None:
    (state / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="damaged"):
        record_again(workspace)


def test_unfinished_workspace_is_wrong_input(state: Path, workspace: Any) -> None:
    (workspace.root / layout.SUMMARY).unlink()
    with pytest.raises(InputError, match="run the pipeline to its end"):
        record_again(workspace)
    assert sorted(path.name for path in state.iterdir()) == ["mlflow.db"]


def test_damaged_release_is_wrong_input_and_registers_nothing(state: Path, workspace: Any) -> None:
    (workspace.root / "release/tiny/model.onnx").write_bytes(b"half")
    with pytest.raises(InputError, match=r"release/tiny/model\.onnx"):
        record_again(workspace)
    assert tracking.connect().client.search_model_versions("name = 'toy'") == []


RECORD = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from stillroom.params_file import load_params
from stillroom.pipeline.outcome import StageOutcome
from stillroom.registry.record import record_run
root = Path(sys.argv[1])
stages = [StageOutcome(address, False, print_, 0.0, None) for address, print_ in json.loads(sys.argv[2])]
recorded = record_run(root, load_params(root / "params.yaml"), stages, "of its own process")
print(json.dumps(asdict(recorded)))
"""


def start_recording(workspace: Any) -> "subprocess.Popen[str]":
    """Record in a process of its own, as every flow run does."""
    stages = json.dumps([(stage.address, stage.fingerprint) for stage in workspace.outcomes()])
    return subprocess.Popen(
        [sys.executable, "-c", RECORD, str(workspace.root), stages],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> RecordedRun:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    return RecordedRun(**json.loads(out.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.serial
def test_processes_that_record_at_once_log_nothing_twice(state: Path, workspace: Any) -> None:
    racers = [start_recording(workspace) for _ in range(3)]
    recorded = [ended(racer) for racer in racers]
    assert len({each.run_id for each in recorded}) == 1
    assert {each.champion for each in recorded} == {1}
    tracker = tracking.connect()
    assert len(all_runs(tracker)) == 1 + len(workspace.outcomes())
    assert len(tracker.client.search_model_versions("name = 'toy'")) == 2
    assert len(ledger.read("toy", ledger.default_store())) == 1


@pytest.mark.slow
@pytest.mark.serial
def test_wiped_database_is_filled_in_again(state: Path, workspace: Any) -> None:
    first = ended(start_recording(workspace))
    workspace.release("static", verdict="PASS", bias=0.5)
    second = ended(start_recording(workspace))
    assert (first.champion, second.champion) == (1, 3)
    (state / "mlflow.db").unlink()
    again = ended(start_recording(workspace))
    assert again.unchanged is False
    assert again.versions == {"static": 1, "tiny": 2}
    assert (again.champion, again.challenger) == (1, 1)
    entries = ledger.read("toy", ledger.default_store())
    assert [entry.to_version for entry in entries] == [1, 3, 1]
    assert "rebuilt" in entries[-1].reason
    tracker = tracking.connect()
    assert len(all_runs(tracker)) == 1 + len(workspace.outcomes())
    assert ended(start_recording(workspace)).unchanged
