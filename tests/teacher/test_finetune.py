import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom import layout, training
from stillroom.batching import Tokens, tokenise
from stillroom.errors import Diverged, InputError
from stillroom.params import ComputeParams, TeacherParams
from stillroom.teacher.finetune import FineTune, fine_tune, freeze
from stillroom.teacher.inference import predict
from stillroom.teacher.model import EncoderClassifier, load_encoder
from stillroom.teacher.tokeniser import read_tokeniser
from stillroom.training import Scratch
from tests.teacher.families import FAMILIES, write_family
from tests.toys import LABELS, toy_rows

ROWS, VALIDATION = toy_rows(90, seed=1), toy_rows(45, seed=2, first_row=90)
MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")
Trained = tuple[EncoderClassifier, list[dict[str, float]]]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tiny_checkpoint: Path) -> tuple[Tokens, Tokens]:
    tokeniser = read_tokeniser(tiny_checkpoint, 24)
    return tokenise(tokeniser, ROWS.text, 24), tokenise(tokeniser, VALIDATION.text, 24)


class Run:
    """Fine-tunings of the tiny checkpoint that differ in settings."""

    def __init__(self, checkpoint: Path, tokens: tuple[Tokens, Tokens]) -> None:
        self.checkpoint = checkpoint
        self.tokens = tokens

    def __call__(self, key: str = "key", seed: int = 0, **changes: Any) -> Trained:
        given = {
            "source": "x",
            "epochs": 3,
            "patience": 3,
            "batch_tokens": 128,
            "learning_rate": 3e-3,
            "head_learning_rate": 1e-2,
            "train_embeddings": True,
        }
        return fine_tune(
            self.checkpoint,
            TeacherParams(**given | changes),
            LABELS,
            (self.tokens[0], ROWS),
            (self.tokens[1], VALIDATION),
            0,
            seed,
            MACHINE,
            Scratch(key),
        )


@pytest.fixture
def run(tiny_checkpoint: Path, tokens: tuple[Tokens, Tokens]) -> Run:
    return Run(tiny_checkpoint, tokens)


def breaking(monkeypatch: pytest.MonkeyPatch, at_step: int) -> None:
    """Make the power fail before an optimiser step, with a checkpoint after every one."""
    real = FineTune.loss

    def loss(self: FineTune, batch: Any) -> torch.Tensor:
        if self.global_step == at_step:
            raise RuntimeError("the power is gone")
        return real(self, batch)

    monkeypatch.setattr(FineTune, "loss", loss)


def assert_same(one: Trained, other: Trained) -> None:
    state = other[0].state_dict()
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, state[name]), name
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def test_separable_classes_are_learned(run: Run) -> None:
    model, history = run()
    accuracy = (predict(model, run.tokens[1], 0, 500).argmax(axis=1) == VALIDATION.label).mean()
    assert accuracy > 0.7
    reached = [epoch["validation_accuracy"] for epoch in history]
    error = (max(reached) * (1 - max(reached)) / len(VALIDATION)) ** 0.5
    assert any(accuracy == pytest.approx(one) for one in reached), "what was kept is an epoch's"
    assert accuracy >= max(reached) - error - 1e-6, "which validation cannot tell from the best"
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_same_seed_gives_the_same_teacher_and_another_does_not(run: Run) -> None:
    one, same, other = run("one", epochs=1), run("same", epochs=1), run("other", seed=1, epochs=1)
    assert_same(one, same)
    assert not torch.equal(one[0].head.weight, other[0].head.weight)


@pytest.mark.parametrize(("at_step", "dropout"), [(3, 0.0), (20, 0.1), (31, 0.0)])
def test_a_run_that_breaks_and_goes_on_equals_one_that_does_not(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_step: int, dropout: float
) -> None:
    whole = run("whole", dropout=dropout)
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    with monkeypatch.context() as patch:
        breaking(patch, at_step)
        with pytest.raises(RuntimeError, match="the power is gone"):
            run("broken", dropout=dropout)
    assert (Scratch("broken").folder / "last.ckpt").exists()
    steps: list[int] = []
    real = FineTune.loss
    monkeypatch.setattr(FineTune, "loss", lambda self, batch: (steps.append(self.global_step), real(self, batch))[1])
    assert_same(run("broken", dropout=dropout), whole)
    assert at_step - 1 <= steps[0] <= at_step, "it goes on at its last step"


@pytest.mark.parametrize("trained", [True, False])
def test_the_token_table_moves_only_when_asked(run: Run, trained: bool) -> None:
    before = load_encoder(run.checkpoint)
    model, _ = run(train_embeddings=trained, epochs=1)
    table = model.encoder.get_input_embeddings().weight
    assert torch.equal(table, before.get_input_embeddings().weight) is not trained
    assert not torch.equal(
        model.encoder.encoder.layer[0].output.dense.weight, before.encoder.layer[0].output.dense.weight
    )


def test_frozen_layers_and_all_under_them_stay(run: Run) -> None:
    before = load_encoder(run.checkpoint)
    model, _ = run(train_embeddings=False, freeze_layers=1, epochs=1)
    stayed = {
        name for name, value in before.state_dict().items() if torch.equal(value, model.encoder.state_dict()[name])
    }
    frozen = {name for name in before.state_dict() if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert frozen <= stayed
    assert not any(name.startswith("encoder.layer.1.") and name.endswith("weight") for name in stayed)


def test_freezing_every_layer_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"teacher.freeze_layers is 2; the teacher has 2 layers"):
        run(train_embeddings=False, freeze_layers=2)


@pytest.mark.parametrize("kind", FAMILIES)
def test_freezing_reaches_the_embeddings_of_every_family(kind: str, tmp_path: Path) -> None:
    encoder = load_encoder(write_family(tmp_path, kind))
    freeze(encoder, TeacherParams(source="x", freeze_layers=1))
    frozen = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    learning = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert all("embeddings" in name or re.search(r"layers?\.0\.", name) for name in frozen)
    assert not any(name.startswith("embeddings.") or re.search(r"layers?\.0\.", name) for name in learning)
    assert any(re.search(r"layers?\.1\.", name) for name in learning)


def test_the_head_learns_at_its_own_rate(tiny_checkpoint: Path) -> None:
    model = EncoderClassifier(load_encoder(tiny_checkpoint), 32, 3, "mean")
    settings = TeacherParams(source="x", learning_rate=1e-4, head_learning_rate=1e-2)
    encoder, head = FineTune(model, settings, 10).parameter_groups()
    assert (encoder["lr"], head["lr"]) == (1e-4, 1e-2)
    trained = {id(weight) for group in (encoder, head) for weight in group["params"]}
    assert trained == {id(weight) for weight in model.parameters() if weight.requires_grad}
    assert id(model.encoder.get_input_embeddings().weight) not in trained


def test_weights_that_are_no_numbers_end_as_diverged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FineTune.loss
    monkeypatch.setattr(FineTune, "loss", lambda self, batch: real(self, batch) * float("nan"))
    with pytest.raises(Diverged, match="the loss is nan at step 1 of"):
        run()


def test_labels_of_any_integer_type_are_taken(run: Run) -> None:
    short = type(ROWS)(ROWS.row, ROWS.text, ROWS.label.astype(np.int16))  # type: ignore[arg-type]
    settings = TeacherParams(source="x", epochs=1, batch_tokens=512)
    given = (run.checkpoint, settings, LABELS, (run.tokens[0], short), (run.tokens[1], VALIDATION))
    _, history = fine_tune(*given, 0, 0, MACHINE, Scratch("short"))
    assert len(history) == 1
