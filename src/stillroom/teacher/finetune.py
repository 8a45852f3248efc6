"""Fine-tune an encoder into a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.batching import Tokens
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.params import ComputeParams, TeacherParams
from stillroom.supervision import label_loss, mean_over_rows
from stillroom.teacher.model import EncoderClassifier, layers_of, load_encoder
from stillroom.training import Batches, Learner, Scratch, count_steps, fit, text_batches


class FineTune(Learner):
    """Learns the labels; the head learns faster than the encoder, the token table not at all by default."""

    def __init__(self, model: EncoderClassifier, settings: TeacherParams, total_steps: int) -> None:
        super().__init__(total_steps, settings.warmup_fraction, settings.weight_decay)
        self.model = model
        self._settings = settings
        freeze(model.encoder, settings)

    def loss(self, batch: Any) -> torch.Tensor:
        logits, _ = self.model(batch["ids"], batch["mask"])
        return mean_over_rows(label_loss(logits.float(), batch["label"]))

    def predict_logits(self, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = self.model(batch["ids"], batch["mask"])[0]
        return logits

    def labels_of(self, batch: Any) -> torch.Tensor:
        labels: torch.Tensor = batch["label"]
        return labels

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = [weight for weight in self.model.encoder.parameters() if weight.requires_grad]
        return [
            {"params": encoder, "lr": self._settings.learning_rate},
            {"params": list(self.model.head.parameters()), "lr": self._settings.head_learning_rate},
        ]


def freeze(encoder: Any, settings: TeacherParams) -> None:
    """Take from training what the settings leave as it is. Raises InputError for more layers than the encoder has."""
    table = encoder.get_input_embeddings()
    if settings.freeze_layers:
        _, _, layers = layers_of(encoder)
        if settings.freeze_layers >= len(layers):
            raise InputError(
                f"params.yaml: teacher.freeze_layers is {settings.freeze_layers}; the teacher has {len(layers)} "
                "layers, and one at least must learn"
            )
        under = next(module for module in encoder.modules() if table in module.children())
        for part in (under if under is not encoder else table, *layers[: settings.freeze_layers]):
            part.requires_grad_(False)
    elif not settings.train_embeddings:
        table.weight.requires_grad_(False)


def fine_tune(
    checkpoint: Path,
    settings: TeacherParams,
    labels: Sequence[str],
    train: tuple[Tokens, Rows],
    validation: tuple[Tokens, Rows],
    pad: int,
    seed: int,
    machine: ComputeParams,
    scratch: Scratch,
) -> tuple[EncoderClassifier, list[dict[str, float]]]:
    """Return the teacher with its best weights by validation accuracy, and what each epoch gave."""
    torch.manual_seed(seed)
    encoder = load_encoder(checkpoint, settings.dropout)
    width = encoder.config.hidden_size
    model = EncoderClassifier(encoder, width, len(labels), settings.pooling, settings.dropout)
    batches = _batches(train, settings.batch_tokens, pad, seed)
    learner = FineTune(model, settings, count_steps(batches, settings.epochs))
    fit(
        learner,
        batches,
        _batches(validation, 4 * settings.batch_tokens, pad, None),
        epochs=settings.epochs,
        patience=settings.patience,
        scratch=scratch,
        machine=machine,
        task="teach",
    )
    return model, learner.history


def _batches(source: tuple[Tokens, Rows], budget: int, pad: int, seed: int | None) -> Batches:
    tokens, rows = source
    return text_batches(tokens, budget, pad, seed, {"label": torch.from_numpy(rows.label.astype(np.int64))})
