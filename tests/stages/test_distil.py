import json
import logging
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from stillroom import layout, training
from stillroom.cache.manifest import FIRST
from stillroom.export.runtime import Package
from stillroom.files import file_digests, sha256_file, tree_digest
from stillroom.stages.receipt import read_receipt
from stillroom.student_params import PretrainedParams
from stillroom.training import Learner
from tests.conftest import run_stage
from tests.toys import LABELS, Workspace, write_smaller_checkpoint

STUDENTS = ("static", "sliced")


def told_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.STUDENTS / name / "student.json").read_text())
    return found


def weights(name: str) -> dict[str, str]:
    """What the training has made, without how long it took."""
    return {file: digest for file, digest in file_digests(layout.STUDENTS / name).items() if file != "student.json"}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_published_with_its_baseline(finished: Workspace, name: str) -> None:
    told = told_of(name)
    assert (told["name"], told["family"], told["labels"]) == (name, name, list(LABELS))
    for history in (told["history"], told["baseline_history"]):
        assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
        assert all({"train_loss", "validation_accuracy"} <= epoch.keys() for epoch in history)
    assert told["seconds"].keys() == {"read", "student", "baseline"}
    assert told["lineage"]["teacher"] == sha256_file(layout.TEACHER / "model.safetensors")
    assert told["lineage"]["cache"] == sha256_file(layout.CACHE / FIRST)
    assert len(told["lineage"]["code"]) == 64
    student, baseline = (load_file(layout.STUDENTS / name / f"{kind}.safetensors") for kind in ("student", "baseline"))
    assert student.keys() == baseline.keys()
    assert any((student[key] != baseline[key]).any() for key in student)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_receipt_tells_both_accuracies_and_where_the_time_went(finished: Workspace, name: str) -> None:
    receipt, told = read_receipt(f"distil@{name}"), told_of(name)
    assert receipt is not None
    best = {kind: max(e["validation_accuracy"] for e in told[kind]) for kind in ("history", "baseline_history")}
    assert receipt.metrics["validation_accuracy"] == best["history"] > 0.6
    assert receipt.metrics["baseline_validation_accuracy"] == best["baseline_history"]
    assert {f"seconds_{part}" for part in told["seconds"]} <= receipt.metrics.keys()
    assert list((layout.state() / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("name", STUDENTS)
def test_the_same_inputs_give_the_same_students(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = weights(name)
    assert run_stage(monkeypatch, "distil", name) == 0
    assert weights(name) == before
    own_finished.override("seed=3")
    assert run_stage(monkeypatch, "distil", name) == 0
    other = weights(name)
    assert other != before
    own_finished.override("seed=0", f"students.{name}.seed=3")
    assert run_stage(monkeypatch, "distil", name) == 0
    assert weights(name) == other, "a student's own seed is that of its training"


@pytest.mark.parametrize("variant", ["student", "baseline"])
def test_a_broken_stage_leaves_the_old_students_and_goes_on_where_it_broke(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    before = file_digests(layout.STUDENTS / "static")
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    real = Learner.training_step
    steps: list[int] = []
    breaks_at = 20 if variant == "student" else told_steps() + 20

    def step(self: Learner, batch: Any, index: int) -> Any:
        steps.append(self.global_step)
        if len(steps) == breaks_at:
            raise RuntimeError("the power is gone")
        return real(self, batch, index)

    own_finished.override("seed=4")
    monkeypatch.setattr(Learner, "training_step", step)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_stage(monkeypatch, "distil", "static")
    assert file_digests(layout.STUDENTS / "static") == before
    done = len(steps)
    assert run_stage(monkeypatch, "distil", "static") == 0
    resumed = weights("static")
    again = len(steps) - done
    monkeypatch.setattr(Learner, "training_step", real)
    assert run_stage(monkeypatch, "distil", "static") == 0
    assert weights("static") == resumed
    assert again < 2 * told_steps() - 15, "what was done before the break was not done again"


def told_steps() -> int:
    """Optimiser steps of one variant: 120 rows in batches of 16, over all epochs."""
    return 8 * 8


def test_a_loss_that_is_no_number_ends_with_65(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_digests(layout.STUDENTS / "static")
    monkeypatch.setattr(
        "stillroom.students.family.distillation_loss", lambda student, *_, **__: student.sum() * float("nan")
    )
    own_finished.override("seed=5")
    assert run_stage(monkeypatch, "distil", "static") == 65
    assert file_digests(layout.STUDENTS / "static") == before
    receipt = read_receipt("distil@static")
    assert receipt is not None
    assert (receipt.state, receipt.exit_code) == ("failed", 65)


def test_a_student_that_its_teacher_cannot_have_is_wrong_input(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = file_digests(layout.STUDENTS / "sliced")
    own_finished.override("students.sliced.layers=3")
    assert run_stage(monkeypatch, "distil", "sliced") == 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "layers is 3; the teacher has 2" in line
    assert file_digests(layout.STUDENTS / "sliced") == before


def test_a_resumed_training_keeps_its_precision(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def no_training(*_: Any, **options: Any) -> None:
        folders.append(options["scratch"].folder)
        raise RuntimeError("enough")

    monkeypatch.setattr("stillroom.students.distil.fit", no_training)
    for precision in ("fp32", "bf16"):
        own_finished.override(f"compute.precision={precision}")
        with pytest.raises(RuntimeError, match="enough"):
            run_stage(monkeypatch, "distil", "static")
    assert folders[0] != folders[1]


def test_a_student_of_a_cache_without_embeddings_needs_no_cosine(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own_finished.override("capture.signals=[logits]", "students.sliced.cosine_weight=0")
    assert run_stage(monkeypatch, "capture") == 0
    assert run_stage(monkeypatch, "distil", "sliced") == 0
    own_finished.override("capture.signals=[logits, embedding]", "students.sliced.cosine_weight=0.2")
    assert run_stage(monkeypatch, "distil", "sliced") == 2
    assert "the cache keeps logits, not embedding; add it to capture.signals" in caplog.text


def test_a_search_publishes_its_winner_like_any_student_and_keeps_every_trial(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "{family: auto, families: [static, sliced], retention: 0.97, margin: 0, trials: 2, max_length: 32}"
    own_finished.override(f"students={{found: {asked}}}")
    assert run_stage(monkeypatch, "distil", "found") == 0
    told = told_of("found")
    whole = [trial for trial in told["search"] if trial["whole"]]
    assert told["settings"] in [trial["settings"] for trial in whole]
    assert told["family"] == told["settings"]["family"]
    assert told["seconds"].keys() == {"read", "search", "baseline"}
    for trial in told["search"]:
        assert trial["retention"] == pytest.approx(trial["measured"]["accuracy"] / teacher_accuracy(), abs=1e-9)
        assert trial["measured"]["size_bytes"] > 0 < trial["measured"]["latency_p95_ms"]
    assert not list((layout.state() / "checkpoints").iterdir())
    assert run_stage(monkeypatch, "quantise", "found") == 0
    assert run_stage(monkeypatch, "evaluate", "found") == 0


def test_a_search_that_is_killed_does_not_try_again_what_it_has_tried(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillroom.students import search, trial

    monkeypatch.setattr(search.Asked, "lacks", lambda self, measured: ("something",))
    asked = "{family: auto, families: [static, sliced], retention: 1.0, margin: 0, trials: 1, max_length: 32}"
    own_finished.override(f"students={{found: {asked}}}")
    real, ran = trial.train, []

    def train(material: Any, settings: Any, *rest: Any) -> Any:
        ran.append(settings.family)
        if len(ran) == 2:
            raise MemoryError("killed")
        return real(material, settings, *rest)

    monkeypatch.setattr(trial, "train", train)
    with pytest.raises(MemoryError, match="killed"):
        run_stage(monkeypatch, "distil", "found")
    assert run_stage(monkeypatch, "distil", "found") == 0
    assert sorted(ran[:2]) == ["sliced", "static"]
    assert ran[2:] == ran[1:2], "the one that was broken off, and no other, is trained again"


def teacher_accuracy() -> float:
    accuracy: float = json.loads((layout.TEACHER / "teacher.json").read_text())["metrics"]["validation"]["accuracy"]
    return accuracy


def own_encoder(folder: Path) -> str:
    """A student that starts from another encoder, as an override."""
    checkpoint = write_smaller_checkpoint(folder)
    told = {"source": str(checkpoint), "sha256": tree_digest(checkpoint), "licence": "MIT"}
    student = {"family": "pretrained", "checkpoint": told, "epochs": 1, "max_length": 32, "batch_tokens": 256}
    return f"students.own={json.dumps(student)}"


def test_a_student_may_start_from_another_encoder_which_its_lineage_names(
    own_finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = own_finished.override(own_encoder(tmp_path / "smaller"))
    for stage in ("distil", "quantise"):
        assert run_stage(monkeypatch, stage, "own") == 0, stage
    told, expected = told_of("own"), params.students["own"]
    assert isinstance(expected, PretrainedParams)
    assert told["checkpoint"] == expected.checkpoint.model_dump(mode="json")
    assert told["lineage"]["checkpoint"] == expected.checkpoint.sha256
    package = Package.load(layout.PACKAGES / "own" / "student")
    assert package.manifest["lineage"]["checkpoint"] == expected.checkpoint.sha256
    assert set(package.answer(["my parcel", "my password"])) <= set(LABELS)
