"""One way to train: a Lightning trainer that keeps the best weights, stops early and resumes at its last step.

Teacher and students bring a module and batches; this brings the loop. Checkpoints are internal scratch, kept outside
a stage's outs under a key made of all that the training depends on, and removed once the stage has published.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stillroom import compute, events, layout
from stillroom.batching import Ints, Tokens, token_batches
from stillroom.code import code_digest
from stillroom.errors import Diverged
from stillroom.files import atomic_file
from stillroom.params import ComputeParams
from stillroom.supervision import hits

CHECKPOINT_VARIABLE = "STILLROOM_CHECKPOINT_S"
_CHECKPOINT_S = 30.0
_SHARE_OF_TIME = 30
_MAX_GRADIENT_NORM = 1.0


class ByRow(Protocol):
    """What a data set has for every row: values[rows] are those of some. A tensor is one."""

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor: ...


Plan = Callable[[int], list[Ints]]
Collate = Callable[[Ints], Any]


def training_key(*parts: Any) -> str:
    """Fingerprint of a training: its settings and inputs (as JSON values) and the source that runs it."""
    text = json.dumps([code_digest(), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Batches:
    """Batches of an epoch in a seeded order that a checkpoint can name, so that training resumes in its middle.

    plan(epoch) gives the rows of every batch; collate turns rows into tensors.
    """

    def __init__(self, plan: Plan, collate: Collate) -> None:
        self.plan = plan
        self._collate = collate
        self._epoch = 0
        self._position = 0
        self._current = plan(0)

    def __len__(self) -> int:
        self._turn_page()
        return len(self._current)

    def __iter__(self) -> Iterator[Any]:
        self._turn_page()
        while self._position < len(self._current):
            rows = self._current[self._position]
            self._position += 1
            yield self._collate(rows)

    def _turn_page(self) -> None:
        if self._position >= len(self._current):
            self._epoch, self._position = self._epoch + 1, 0
            self._current = self.plan(self._epoch)

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on where a checkpoint stood."""
        self._epoch, self._position = state_dict["epoch"], state_dict["position"]
        self._current = self.plan(self._epoch)


def text_batches(tokens: Tokens, budget: int, pad: int, seed: int | None, columns: Mapping[str, ByRow]) -> Batches:
    """Batches of padded texts within a token budget: {"ids", "mask", every column's rows}.

    seed: orders differ by epoch and are random; None: always by length, for validation.
    """

    def plan(epoch: int) -> list[Ints]:
        generator = None if seed is None else np.random.default_rng((seed, epoch))
        return token_batches(tokens.lengths, budget, generator)

    def collate(rows: Ints) -> dict[str, torch.Tensor]:
        ids, mask = tokens.padded(rows, pad)
        chosen = torch.from_numpy(rows)
        batch = {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}
        return batch | {name: column[chosen] for name, column in columns.items()}

    return Batches(plan, collate)


def count_steps(batches: Batches, epochs: int) -> int:
    """Optimiser steps of so many epochs."""
    return sum(len(batches.plan(epoch)) for epoch in range(epochs))


class BatchModule(pl.LightningDataModule):  # type: ignore[misc]
    """Training and validation batches for the trainer."""

    def __init__(self, train: Batches, validation: Batches) -> None:
        super().__init__()
        self._train = train
        self._validation = validation

    def train_dataloader(self) -> Batches:
        return self._train

    def val_dataloader(self) -> Batches:
        return self._validation


class Learner(pl.LightningModule):  # type: ignore[misc]
    """What teacher and students share: optimiser with warm-up and decay, history, validation accuracy.

    averaging: decay of a moving average of the weights, which stands in their place while validation runs and is what
    is kept (Polyak and Juditsky 1992); 0 for none. A subclass gives `loss(batch)` (a scalar), `predict_logits(batch)`
    ([rows, classes]), `labels_of(batch)` (as in stillroom.supervision) and `parameter_groups()`.
    """

    def __init__(self, total_steps: int, warmup_fraction: float, weight_decay: float, averaging: float = 0.0) -> None:
        super().__init__()
        self._averaging = averaging
        self._average: list[torch.Tensor] = []
        self._averaged_steps = 0
        self.total_steps = total_steps
        self.warmup_steps = max(1, round(warmup_fraction * total_steps))
        self.weight_decay = weight_decay
        self.history: list[dict[str, float]] = []
        self.validation_rows = 0
        self._losses: list[float] = []
        self._hits: list[torch.Tensor] = []
        self._epoch_began = time.monotonic()

    def loss(self, batch: Any) -> torch.Tensor:
        raise NotImplementedError

    def predict_logits(self, batch: Any) -> torch.Tensor:
        raise NotImplementedError

    def labels_of(self, batch: Any) -> torch.Tensor:
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        self._epoch_began = time.monotonic()

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        loss = self.loss(batch)
        value = float(loss.detach())
        self._check_finite("loss", value)
        self._losses.append(value)
        return loss

    def _check_finite(self, what: str, value: float) -> None:
        if not np.isfinite(value):
            raise Diverged(
                f"training diverged: the {what} is {value} at step {self.global_step + 1} of {self.total_steps}; "
                "lower the learning rate"
            )

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self._hits.append(hits(self.predict_logits(batch), self.labels_of(batch)))

    def on_validation_epoch_end(self) -> None:
        right = torch.cat(self._hits)
        self.validation_rows, accuracy = len(right), float(right.float().mean())
        self._hits.clear()
        self.log("validation_accuracy", accuracy)
        entry = {
            "epoch": self.current_epoch + 1,
            "train_loss": float(np.mean(self._losses)) if self._losses else 0.0,
            "validation_accuracy": accuracy,
            "seconds": time.monotonic() - self._epoch_began,
        }
        self._losses.clear()
        self.history.append(entry)
        events.emit("epoch", **entry)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        if not self._averaging:
            return
        weights = [parameter.detach() for parameter in self.parameters()]
        if not self._average:
            self._average = [weight.clone() for weight in weights]
        # a checkpoint is read before the weights are on their device
        self._average = [average.to(weight.device) for average, weight in zip(self._average, weights, strict=True)]
        # at first a plain mean of all steps, so that the start does not weigh in for long
        self._averaged_steps += 1
        decay = min(self._averaging, 1 - 1 / self._averaged_steps)
        torch._foreach_lerp_(self._average, weights, 1 - decay)

    def on_validation_start(self) -> None:
        self._swap_average()

    def on_validation_end(self) -> None:
        self._swap_average()  # after the callbacks, which keep what was validated

    def _swap_average(self) -> None:
        # in place, since cuDNN keeps the weights of an LSTM in one block; before the first step there is no average
        for parameter, average in zip(self.parameters(), self._average, strict=False):
            weight = parameter.detach()
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        # by hand, because Lightning refuses to clip for a fused optimiser, though no scaler is at work in bf16
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), _MAX_GRADIENT_NORM)
        # before the weights take it, so that whatever is kept is good
        self._check_finite("gradient's norm", float(norm))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.parameter_groups(), weight_decay=self.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}  # for dropout
        checkpoint["learner"] = {
            "history": self.history,
            "losses": self._losses,
            "seconds": time.monotonic() - self._epoch_began,
            "random": random,
            "average": self._average,
            "averaged_steps": self._averaged_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["learner"]["history"]
        self._losses = checkpoint["learner"]["losses"]
        # in the middle of an epoch Lightning goes on without on_train_epoch_start
        self._epoch_began = time.monotonic() - checkpoint["learner"]["seconds"]
        self._average = checkpoint["learner"]["average"]
        self._averaged_steps = checkpoint["learner"]["averaged_steps"]
        torch.set_rng_state(checkpoint["learner"]["random"]["cpu"].cpu())
        torch.cuda.set_rng_state_all([state.cpu() for state in checkpoint["learner"]["random"]["cuda"]])


class _KeepBest(pl.Callback):  # type: ignore[misc]
    """Writes the weights of the last epoch whose validation accuracy is within one standard error of the best.

    The highest of many noisy figures is chance: a lucky epoch while steps are still large. The learning rate falls to
    zero, so that of epochs that validation cannot tell apart the last has settled most (the one-standard-error rule of
    Breiman et al. 1984, with the schedule in the place of model size).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._best = 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["validation_accuracy"])
        error = math.sqrt(self._best * (1 - self._best) / pl_module.validation_rows)
        if accuracy < self._best - error:
            return
        self._best = max(self._best, accuracy)
        state = {name: value.detach().contiguous() for name, value in pl_module.state_dict().items()}
        with atomic_file(self._path) as temporary:
            save_file(state, temporary)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]


class _ResumePoint(pl.Callback):  # type: ignore[misc]
    """Saves a checkpoint every so often, between two steps, and tells how far the training is.

    A model that takes long to save is saved less often: saving costs at most 1 part in 30 of the time.
    """

    def __init__(self, path: Path, interval_s: float, task: str, total: int) -> None:
        self._path = path
        self._interval_s = interval_s
        self._saved_at = time.monotonic()
        self._progress = events.progress(task, total)
        self._advance: events.Advance | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._advance = self._progress.__enter__()
        self._advance(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._advance is not None
        self._advance(1)
        began = time.monotonic()
        if began - self._saved_at < self._interval_s or trainer.is_last_batch:
            return
        with atomic_file(self._path) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)
        self._saved_at = time.monotonic()
        self._interval_s = max(self._interval_s, _SHARE_OF_TIME * (self._saved_at - began))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._advance is not None:
            self._progress.__exit__(None, None, None)
            self._advance = None


@dataclass(frozen=True)
class Scratch:
    """Where a training keeps what it would resume from."""

    key: str
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", layout.state() / "checkpoints" / self.key)

    def discard(self) -> None:
        """Remove it; call once the stage's outs are in place."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fit(
    learner: Learner,
    train: Batches,
    validation: Batches,
    *,
    epochs: int,
    patience: int | None,
    scratch: Scratch,
    machine: ComputeParams,
    task: str,
) -> None:
    """Train to the end, or until validation accuracy has not risen for `patience` epochs where so many are given.

    Leaves the weights that _KeepBest chose. A checkpoint of the same scratch key is gone on from. Raises Diverged when
    a loss or a gradient is not finite.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    scratch.folder.mkdir(parents=True, exist_ok=True)
    last, best = scratch.folder / "last.ckpt", scratch.folder / "best.safetensors"
    interval_s = float(os.environ.get(CHECKPOINT_VARIABLE, _CHECKPOINT_S))
    mixed = compute.precision(machine) == "bf16"
    stop = pl.callbacks.EarlyStopping("validation_accuracy", mode="max", patience=patience or epochs)
    trainer = pl.Trainer(
        accelerator=compute.device(machine).type,
        devices=1,
        precision="bf16-mixed" if mixed else "32-true",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        callbacks=[_KeepBest(best), stop, _ResumePoint(last, interval_s, task, learner.total_steps)],
    )
    try:
        trainer.fit(
            learner,
            datamodule=BatchModule(train, validation),
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
    except Diverged as error:
        kept = best if best.exists() else last
        raise Diverged(f"{error}" + (f"; the last good weights are in {kept}" if kept.exists() else "")) from error
    learner.load_state_dict(load_file(best))
    learner.eval()
