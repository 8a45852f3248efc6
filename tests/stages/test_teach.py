import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom import layout, training
from stillroom.batching import load_tokeniser, tokenise
from stillroom.data.splits import read_snapshot, read_split
from stillroom.files import file_digests
from stillroom.gate.metrics import classification_metrics
from stillroom.problem import probabilities
from stillroom.stages.receipt import read_receipt
from stillroom.teacher.finetune import FineTune
from stillroom.teacher.inference import predict
from stillroom.teacher.model import TOKENISER, load_teacher
from tests.conftest import run_stage
from tests.teacher.test_model import classifier
from tests.toys import LABELS, Workspace, pin_teacher

Make = Callable[..., Workspace]
SHORT = ("teacher.epochs=1", "teacher.batch_tokens=512")


def without_times(folder: Path) -> dict[str, Any]:
    """The contents of a teacher's folder, but for how long it took."""
    digests: dict[str, Any] = dict(file_digests(folder))
    told = json.loads((folder / "teacher.json").read_text())
    told.pop("tokens_per_second")
    for epoch in told["history"]:
        epoch.pop("seconds")
    return digests | {"teacher.json": told}


def test_a_teacher_is_published_with_what_it_reached(finished: Workspace) -> None:
    model, description = load_teacher(layout.TEACHER)
    validation = read_split(layout.SPLIT, "validation")
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), validation.text, 32)
    logits = predict(model, tokens, description.pad, 300)
    found = classification_metrics(validation.label, probabilities(logits, "single_label", description.temperature))
    told = description.metrics["validation"]
    assert told == pytest.approx(found, abs=1e-4)
    assert told["accuracy"] > 0.7
    assert told["accuracy"] == pytest.approx(max(epoch["validation_accuracy"] for epoch in description.history))
    assert description.labels == read_snapshot(layout.SPLIT).labels == LABELS
    assert (description.name, description.precision, description.max_length) == ("checkpoint", "fp32", 32)
    assert not description.ready
    assert {path.name for path in layout.TEACHER.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "teacher.json",
    }


def test_the_receipt_tells_metrics_and_nothing_is_left_to_resume(finished: Workspace) -> None:
    receipt = read_receipt("teach")
    assert receipt is not None
    assert receipt.state == "finished"
    assert receipt.metrics.keys() == {"accuracy", "macro_f1", "ece", "tokens_per_second", "epochs"}
    assert receipt.metrics["epochs"] == len(load_teacher(layout.TEACHER)[1].history)
    assert list((layout.state() / "checkpoints").iterdir()) == []


def test_the_same_inputs_give_the_same_teacher_and_another_seed_another(
    workspace: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workspace(rows=(45, 15, 15))
    found = []
    for seed in (0, 0, 1):
        made.override(*SHORT, f"seed={seed}")
        assert run_stage(monkeypatch, "teach") == 0
        found.append(without_times(layout.TEACHER))
    assert found[0] == found[1] != found[2]


def test_a_broken_stage_leaves_the_old_teacher_and_goes_on_from_where_it_broke(
    workspace: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workspace(rows=(45, 15, 15))
    made.override(*SHORT)
    assert run_stage(monkeypatch, "teach") == 0
    old = without_times(layout.TEACHER)
    made.override("teacher.batch_tokens=128", "teacher.epochs=2")
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    real = FineTune.loss
    first_steps: list[int] = []

    def loss(self: FineTune, batch: Any) -> torch.Tensor:
        first_steps.append(self.global_step)
        if self.global_step == 7 and len(first_steps) == 8:
            raise RuntimeError("the power is gone")
        return real(self, batch)

    monkeypatch.setattr(FineTune, "loss", loss)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_stage(monkeypatch, "teach")
    assert without_times(layout.TEACHER) == old
    receipt = read_receipt("teach")
    assert receipt is not None
    assert (receipt.state, receipt.error) == ("failed", "RuntimeError: the power is gone")
    assert run_stage(monkeypatch, "teach") == 0
    assert first_steps[8] >= 6, "it goes on, rather than beginning anew"
    resumed = without_times(layout.TEACHER)
    assert resumed != old
    monkeypatch.setattr(FineTune, "loss", real)
    assert run_stage(monkeypatch, "teach") == 0
    assert without_times(layout.TEACHER) == resumed, "as if it had not been broken"
    assert list((layout.state() / "checkpoints").iterdir()) == []


def test_a_teacher_that_diverges_ends_with_65_and_publishes_nothing(
    workspace: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace(rows=(45, 15, 15)).override(*SHORT)
    real = FineTune.loss
    monkeypatch.setattr(FineTune, "loss", lambda self, batch: real(self, batch) * float("nan"))
    assert run_stage(monkeypatch, "teach") == 65
    assert "the loss is nan at step 1 of" in caplog.text
    assert not layout.TEACHER.exists()


def test_a_ready_teacher_is_only_evaluated(
    workspace: Make, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workspace(rows=(45, 15, 15))
    pin_teacher(made.path, classifier(tmp_path / "ready", tiny_checkpoint, ("refund", "delivery", "login")))
    made.override("teacher.fine_tune=false")
    monkeypatch.setattr("stillroom.stages.teach.fine_tune", lambda *_: pytest.fail("it was trained"))
    assert run_stage(monkeypatch, "teach") == 0
    model, description = load_teacher(layout.TEACHER)
    assert description.ready
    assert description.labels == LABELS
    assert (description.history, description.tokens_per_second) == ((), None)
    assert not (layout.state() / "checkpoints").exists()
    validation = read_split(layout.SPLIT, "validation")
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), validation.text, 32)
    accuracy = (predict(model, tokens, 0, 300).argmax(axis=1) == validation.label).mean()
    assert description.metrics["validation"]["accuracy"] == pytest.approx(accuracy)
    assert [run_stage(monkeypatch, stage) for stage in ("grow", "capture")] == [0, 0], "its answers can be captured"


def test_a_ready_teacher_of_other_labels_is_wrong_input(
    workspace: Make, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workspace(rows=(45, 15, 15))
    made.override("teacher.fine_tune=false")
    for number, labels in enumerate((("delivery", "login"), ("delivery", "login", "other"))):
        pin_teacher(made.path, classifier(tmp_path / str(number), tiny_checkpoint, labels))
        assert run_stage(monkeypatch, "teach") == 2
        assert not layout.TEACHER.exists()


def test_a_checkpoint_that_changed_since_it_was_pinned_is_wrong_input(
    workspace: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = workspace(rows=(45, 15, 15))
    (made.path / "checkpoint" / "added.txt").write_text("not there when it was pinned")
    assert run_stage(monkeypatch, "teach") == 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "\n" not in line
    assert not layout.TEACHER.exists()


def test_the_speed_is_that_of_the_training_rows(finished: Workspace) -> None:
    told = json.loads((layout.TEACHER / "teacher.json").read_text())
    train = read_split(layout.SPLIT, "train")
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), train.text, 32)
    seconds = np.sum([epoch["seconds"] for epoch in told["history"]])
    assert told["tokens_per_second"] == pytest.approx(len(tokens.ids) * len(told["history"]) / seconds)
