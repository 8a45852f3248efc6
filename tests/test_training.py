from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from stillroom import layout, training
from stillroom.batching import Tokens
from stillroom.errors import Diverged
from stillroom.params import ComputeParams
from stillroom.training import Batches, Learner, Scratch, count_steps, fit, text_batches, training_key

MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")
ROWS, CLASSES = 24, 3


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.delenv(training.CHECKPOINT_VARIABLE, raising=False)
    torch.set_num_threads(1)


class Toy(Learner):
    """Learns a linear map with dropout; `told` scripts the validation accuracy of each epoch."""

    averaging = 0.0

    def __init__(self, total_steps: int = 20, told: list[float] | None = None, rate: float = 0.01) -> None:
        super().__init__(total_steps, 0.2, 0.0, self.averaging)
        self.map = nn.Linear(4, CLASSES)
        self.told = told
        self.rate = rate
        self.steps = 0
        self.breaks_at: int | None = None
        self.weights_of_epochs: list[torch.Tensor] = []
        self.weights_of_steps: list[torch.Tensor] = []

    def loss(self, batch: Any) -> torch.Tensor:
        if self.steps == self.breaks_at:
            raise RuntimeError("the power is gone")
        self.steps += 1
        dropped = nn.functional.dropout(batch["x"], 0.5)
        return nn.functional.cross_entropy(self.map(dropped), batch["label"])

    def predict_logits(self, batch: Any) -> torch.Tensor:
        if self.told is None:
            logits: torch.Tensor = self.map(batch["x"])
            return logits
        right = torch.arange(len(batch["label"])) < self.told[self.current_epoch] * len(batch["label"])
        return nn.functional.one_hot((batch["label"] + ~right) % CLASSES, CLASSES).float()

    def labels_of(self, batch: Any) -> torch.Tensor:
        labels: torch.Tensor = batch["label"]
        return labels

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.map.parameters()), "lr": self.rate}]

    def on_train_batch_end(self, *args: Any) -> None:
        self.weights_of_steps.append(self.map.weight.detach().clone())

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.weights_of_epochs.append(self.map.weight.detach().clone())


class Averaged(Toy):
    """Keeps a moving average of its weights."""

    averaging = 0.8


def toy_batches(seed: int | None, rows_per_batch: int = 5) -> Batches:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=generator)
    label = torch.arange(ROWS) % CLASSES

    def plan(epoch: int) -> list[Any]:
        order = np.arange(ROWS) if seed is None else np.random.default_rng((seed, epoch)).permutation(ROWS)
        return [order[at : at + rows_per_batch] for at in range(0, ROWS, rows_per_batch)]

    return Batches(plan, lambda rows: {"x": x[rows], "label": label[rows]})


def train(
    told: list[float] | None = None,
    *,
    key: str = "key",
    epochs: int = 4,
    patience: int | None = None,
    breaks_at: int | None = None,
    kind: type[Toy] = Toy,
    rate: float = 0.01,
) -> Toy:
    torch.manual_seed(3)
    batches = toy_batches(1)
    learner = kind(count_steps(batches, epochs), told, rate)
    learner.breaks_at = breaks_at
    fit(
        learner,
        batches,
        toy_batches(None, ROWS),
        epochs=epochs,
        patience=patience,
        scratch=Scratch(key),
        machine=MACHINE,
        task="toy",
    )
    return learner


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


def plan_of(sizes: list[int]) -> Callable[[int], list[Any]]:
    """A plan whose epochs have these numbers of batches, over and over; rows tell epoch and place."""
    return lambda epoch: [np.array([epoch, place]) for place in range(sizes[epoch % len(sizes)])]


def drawn(batches: Batches, epochs: int) -> list[list[int]]:
    return [rows.tolist() for _ in range(epochs) for rows in batches]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3), stop=st.integers(0, 14))
def test_batches_go_on_from_wherever_a_checkpoint_stood(sizes: list[int], stop: int) -> None:
    whole = drawn(Batches(plan_of(sizes), lambda rows: rows), 4)
    assert whole == [[epoch, place] for epoch in range(4) for place in range(sizes[epoch % len(sizes)])]
    before = Batches(plan_of(sizes), lambda rows: rows)
    seen: list[list[int]] = []
    state = before.state_dict()
    while len(seen) < stop < len(whole):
        for rows in before:
            seen.append(rows.tolist())
            state = before.state_dict()
            if len(seen) == stop:
                break
    after = Batches(plan_of(sizes), lambda rows: rows)
    after.load_state_dict(state)
    rest = drawn(after, 4)
    assert (seen + rest)[: len(whole)] == whole


def test_the_length_is_that_of_the_epoch_that_comes() -> None:
    batches = Batches(plan_of([2, 5]), lambda rows: rows)
    assert len(batches) == 2
    drawn(batches, 1)
    assert len(batches) == 5


def test_text_batches_keep_columns_beside_their_rows() -> None:
    lengths = np.array([3, 9, 1, 4, 2, 9])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(np.repeat(np.arange(6), lengths).astype(np.int32), offsets)
    batches = text_batches(tokens, 12, 99, 5, {"label": torch.arange(6), "logits": torch.arange(6.0)[:, None]})
    orders = []
    for _ in range(2):
        seen: list[int] = []
        for batch in batches:
            seen += batch["label"].tolist()
            assert torch.equal(batch["logits"][:, 0], batch["label"].float())
            for ids, mask, row in zip(batch["ids"], batch["mask"], batch["label"], strict=True):
                assert mask.sum() == lengths[row]
                assert ids[mask.bool()].eq(row).all()
                assert ids[~mask.bool()].eq(99).all()
        assert sorted(seen) == list(range(6))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_text_batches_for_validation_are_the_same_in_every_epoch() -> None:
    tokens = Tokens(np.zeros(20, np.int32), np.arange(0, 21, 2))
    batches = text_batches(tokens, 8, 0, None, {"label": torch.arange(10)})
    one, other = ([batch["label"].tolist() for batch in batches] for _ in range(2))
    assert one == other


def test_steps_are_counted_as_they_are_taken() -> None:
    learner = train(epochs=3)
    assert learner.steps == learner.total_steps == 15


@given(total=st.integers(1, 500), share=st.floats(0, 0.99))
def test_the_rate_rises_to_one_and_falls_to_nothing(total: int, share: float) -> None:
    learner = Learner(total, share, 0.0)
    rates = [learner._rate(step) for step in range(total + 1)]
    top = learner.warmup_steps - 1
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[min(top, total)] == pytest.approx(min(1.0, (total + 1) / learner.warmup_steps), abs=1e-9)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == 0 or total < learner.warmup_steps


@pytest.mark.parametrize("kind", [Toy, Averaged])
@pytest.mark.parametrize("breaks_at", [1, 4, 5, 6, 12, 19])
def test_a_run_that_breaks_and_goes_on_equals_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch, breaks_at: int, kind: type[Toy]
) -> None:
    whole = train(key="whole", kind=kind)
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(key="broken", breaks_at=breaks_at, kind=kind)
    resumed = train(key="broken", kind=kind)
    assert 0 < resumed.steps <= whole.steps - (breaks_at - 1), "it goes on, rather than beginning anew"
    assert torch.equal(resumed.map.weight, whole.map.weight)
    assert torch.equal(resumed.map.bias, whole.map.bias)
    assert without_seconds(resumed.history) == without_seconds(whole.history)


def test_a_run_that_breaks_again_and_again_ends_as_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(key="whole")
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    breaks = 0
    while True:
        try:
            resumed = train(key="broken", breaks_at=3)
            break
        except RuntimeError:
            breaks += 1
    assert breaks > 4
    assert torch.equal(resumed.map.weight, whole.map.weight)
    assert without_seconds(resumed.history) == without_seconds(whole.history)


def test_seconds_of_an_epoch_add_up_over_a_break_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(Toy):
        def loss(self, batch: Any) -> torch.Tensor:
            now[0] += 10.0
            return super().loss(batch)

    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    for steps in (7, 1):  # two steps of the second epoch's five before the first break, one before the other
        with pytest.raises(RuntimeError, match="the power is gone"):
            train(breaks_at=steps, kind=Slow)
        now[0] += 1000.0
    resumed = train(kind=Slow)
    assert resumed.steps == 12
    told = [epoch["seconds"] for epoch in resumed.history]
    assert told == [50.0] * 4, "neither the steps that were cut short nor the time between the runs"


def test_without_time_for_a_checkpoint_a_broken_run_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "3600")
    with pytest.raises(RuntimeError):
        train(breaks_at=12)
    assert not (Scratch("key").folder / "last.ckpt").exists()
    assert train().steps == 20


def test_checkpoints_of_another_key_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    with pytest.raises(RuntimeError):
        train(key="one", breaks_at=4)
    kept = (Scratch("one").folder / "last.ckpt").read_bytes()
    assert train(key="other").steps == 20
    assert (Scratch("one").folder / "last.ckpt").read_bytes() == kept


def test_saving_takes_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch as pl

    saved = 0
    now = [0.0]
    real = pl.Trainer.save_checkpoint

    def slow_save(self: Any, *args: Any, **options: Any) -> None:
        nonlocal saved
        saved += 1
        now[0] += 2.0
        real(self, *args, **options)

    class Slow(Toy):
        def loss(self, batch: Any) -> torch.Tensor:
            now[0] += 10.0
            return super().loss(batch)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", slow_save)
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "5")
    train(kind=Slow)
    assert 2 <= saved <= 1 + 200 // 60


def test_the_weights_of_the_best_epoch_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = train([0.25, 0.75, 0.5, 0.75])
    assert [epoch["validation_accuracy"] for epoch in learner.history] == [0.25, 0.75, 0.5, 0.75]
    best = learner.weights_of_epochs[3]
    assert torch.equal(learner.map.weight, best), "of two equal epochs the later"
    assert not torch.equal(learner.weights_of_epochs[1], best)
    assert not learner.training


def averages(weights: list[torch.Tensor], decay: float) -> list[torch.Tensor]:
    """The moving average after each step: a plain mean until that weighs a step less than 1 − decay."""
    found = [weights[0]]
    for number, weight in enumerate(weights[1:], 2):
        share = max(1 - decay, 1 / number)
        found.append((1 - share) * found[-1] + share * weight)
    return found


def test_the_average_is_judged_and_kept_while_training_goes_on_with_the_weights_themselves() -> None:
    told = [0.25, 0.5, 1.0, 1.0]
    plain, learner = train(told, key="plain"), train(told, kind=Averaged)
    for weight, expected in zip(learner.weights_of_steps, plain.weights_of_steps, strict=True):
        assert torch.equal(weight, expected), "averaging leaves the steps as they are"
    expected = averages(learner.weights_of_steps, 0.8)
    assert not torch.allclose(expected[-1], learner.weights_of_steps[-1], atol=1e-4)
    for epoch, judged in enumerate(learner.weights_of_epochs):
        torch.testing.assert_close(judged, expected[5 * epoch + 4])
    torch.testing.assert_close(learner.map.weight, expected[-1])
    torch.testing.assert_close(expected[3], torch.stack(learner.weights_of_steps[:4]).mean(dim=0))


def test_without_averaging_the_last_weights_are_judged_and_kept() -> None:
    learner = train([0.25, 0.5, 1.0, 1.0])
    assert torch.equal(learner.map.weight, learner.weights_of_steps[-1])
    for epoch, judged in enumerate(learner.weights_of_epochs):
        assert torch.equal(judged, learner.weights_of_steps[5 * epoch + 4])
    assert learner._average == []


def test_an_average_of_the_best_epoch_is_what_is_left() -> None:
    learner = train([0.25, 1.0, 0.25, 0.25], kind=Averaged)
    torch.testing.assert_close(learner.map.weight, averages(learner.weights_of_steps, 0.8)[9])


def test_of_epochs_within_one_standard_error_of_the_best_the_last_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    keep, learner = training._KeepBest(path), Toy()
    learner.validation_rows = 100
    error = (0.8 * 0.2 / 100) ** 0.5
    kept = []
    for epoch, accuracy in enumerate([0.5, 0.8, 0.8 - 0.9 * error, 0.8 - 1.1 * error, 0.8 - 0.95 * error]):
        nn.init.constant_(learner.map.weight, epoch)
        keep.on_validation_end(SimpleNamespace(callback_metrics={"validation_accuracy": accuracy}), learner)
        kept.append(int(load_file(path)["map.weight"][0, 0]))
    assert kept == [0, 1, 2, 2, 4]


def test_training_stops_when_patience_is_out() -> None:
    learner = train([0.25, 0.75, 0.5, 0.5, 0.5, 1.0], epochs=6, patience=2)
    assert [epoch["epoch"] for epoch in learner.history] == [1, 2, 3, 4]
    assert learner.steps == 20
    assert torch.equal(learner.map.weight, learner.weights_of_epochs[1])


def test_training_goes_on_to_its_end_where_no_patience_is_given() -> None:
    told = [0.75, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert [epoch["validation_accuracy"] for epoch in train(told, epochs=6).history] == told


def test_the_best_weights_survive_a_break_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [0.25, 0.75, 0.5, 0.5]
    whole = train(told, key="whole")
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    with pytest.raises(RuntimeError):
        train(told, key="broken", breaks_at=17)
    resumed = train(told, key="broken")
    assert torch.equal(resumed.map.weight, whole.map.weight)
    assert [epoch["validation_accuracy"] for epoch in resumed.history] == told


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_told_with_its_step(bad: float) -> None:
    class Diverging(Toy):
        def loss(self, batch: Any) -> torch.Tensor:
            return super().loss(batch) * (bad if self.steps == 6 else 1.0)

    with pytest.raises(Diverged, match=rf"the loss is {bad} at step 6 of 20; lower the learning rate") as caught:
        train(kind=Diverging)
    assert caught.value.exit_code == 65


def test_weights_that_were_good_are_kept_where_a_training_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steep(Toy):
        def loss(self, batch: Any) -> torch.Tensor:
            root_of_zero = (0 * self.map.weight).sum().sqrt()  # finite, and its gradient is no number
            return super().loss(batch) + (root_of_zero if self.steps == 8 else 0)

    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    with pytest.raises(Diverged, match="the gradient's norm is nan at step 8 of 20; lower the learning rate; ") as told:
        train(kind=Steep)
    folder = Scratch("key").folder
    assert str(told.value).endswith(f"the last good weights are in {folder / 'best.safetensors'}")
    to_go_on_from = torch.load(folder / "last.ckpt", weights_only=True)
    assert to_go_on_from["global_step"] == 7
    for kept in (load_file(folder / "best.safetensors"), to_go_on_from["state_dict"]):
        assert all(weight.isfinite().all() for weight in kept.values())


def test_gradients_are_clipped_for_a_fused_optimiser() -> None:
    norms: list[float] = []

    class Steep(Toy):
        def loss(self, batch: Any) -> torch.Tensor:
            return 1000 * super().loss(batch)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            assert optimizer.defaults["fused"]
            before = nn.utils.get_total_norm([weight.grad for weight in self.parameters()])
            super().on_before_optimizer_step(optimizer)
            after = nn.utils.get_total_norm([weight.grad for weight in self.parameters()])
            norms.append(float(after))
            assert before > 1

    train(kind=Steep)
    assert len(norms) == 20
    assert norms == pytest.approx([1.0] * 20, rel=1e-3)


def test_frozen_weights_stay_as_they_are() -> None:
    class Frozen(Toy):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.map.bias.requires_grad_(False)
            self.before = self.map.bias.detach().clone()

        def parameter_groups(self) -> list[dict[str, Any]]:
            return [{"params": [self.map.weight], "lr": self.rate}]

    learner = train(kind=Frozen)
    assert torch.equal(learner.map.bias, learner.before)  # type: ignore[attr-defined]


def test_scratch_is_discarded_whole_and_twice() -> None:
    train()
    scratch = Scratch("key")
    assert (scratch.folder / "best.safetensors").exists()
    assert scratch.folder == layout.state() / "checkpoints" / "key"
    scratch.discard()
    scratch.discard()
    assert not scratch.folder.exists()


def test_a_key_tells_settings_and_inputs_and_not_their_order() -> None:
    one = training_key("teach", {"a": 1, "b": [2, "x"]}, "digest")
    assert one == training_key("teach", {"b": [2, "x"], "a": 1}, "digest")
    others = [
        training_key("distil", {"a": 1, "b": [2, "x"]}, "digest"),
        training_key("teach", {"a": 2, "b": [2, "x"]}, "digest"),
        training_key("teach", {"a": 1, "b": [2, "x"]}, "other"),
    ]
    assert len({one, *others}) == 4


def test_a_key_tells_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    one = training_key("teach")
    monkeypatch.setattr(training, "code_digest", lambda: "another")
    assert training_key("teach") != one


def test_the_progress_of_training_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setenv("STILLROOM_EVENTS", str(tmp_path / "events"))
    train(epochs=2)
    told = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    epochs = [event for event in told if event["kind"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2]
    assert epochs[0].keys() >= {"train_loss", "validation_accuracy", "seconds"}
    last = [event for event in told if event["kind"] == "progress"][-1]
    assert (last["task"], last["done"], last["total"]) == ("toy", 10, 10)
