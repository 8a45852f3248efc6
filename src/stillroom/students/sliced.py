"""The sliced family: the teacher's own lower layers over a trimmed vocabulary, with DistilBERT's losses.

Lower layers are the better start (Sanh et al., arXiv 1910.01108). Works for every encoder whose layers stand in one
torch.nn.ModuleList. Cost: vocabulary × width + layers × one layer's weights; FLOPs a token as the teacher's share.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom.batching import Tokens
from stillroom.errors import InputError
from stillroom.params import SlicedParams
from stillroom.students.losses import cosine_loss, distillation_loss
from stillroom.students.material import Material
from stillroom.teacher.attention import use_training_attention
from stillroom.teacher.model import EncoderClassifier, LogitsOnly, layers_of
from stillroom.training import Batches, ByRow, Learner, text_batches

SPECIAL_TOKENS = True
THREADS = 0
"""CPU threads the exported graph runs best with: all of them."""


def build(material: Material, settings: SlicedParams) -> EncoderClassifier:
    """The first layers of the teacher over the kept rows of its token table, with its head where it has a linear one.

    Raises InputError if the teacher has fewer layers than asked for.
    """
    encoder: Any = copy.deepcopy(material.teacher.encoder)
    owner, name, layers = layers_of(encoder)
    if settings.layers > len(layers):
        raise InputError(f"students: layers is {settings.layers}; the teacher has {len(layers)}")
    setattr(owner, name, layers[: settings.layers])
    table = encoder.get_input_embeddings().weight.detach()[torch.from_numpy(material.kept)]
    encoder.set_input_embeddings(nn.Embedding(len(table), table.shape[1], padding_idx=material.pad, _weight=table))
    for key, value in vars(encoder.config).items():
        if "layer" in key and isinstance(value, list) and len(value) == len(layers):
            setattr(encoder.config, key, value[: settings.layers])
    encoder.config.num_hidden_layers = settings.layers
    encoder.config.vocab_size = len(material.kept)
    encoder.config.pad_token_id = material.pad
    _drop_pooler(encoder)
    use_training_attention(encoder)
    description = material.description
    student = EncoderClassifier(encoder, encoder.config.hidden_size, len(description.labels), description.pooling)
    if isinstance(material.teacher, EncoderClassifier):
        student.head.load_state_dict(material.teacher.head.state_dict())
    return student


def _drop_pooler(encoder: nn.Module) -> None:
    """BERT's pooler feeds no loss here; unused weights must not count."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]


def describe(student: EncoderClassifier, folder: Path) -> dict[str, Any]:
    """What `load` needs beside the weights: the encoder's config goes into the folder."""
    student.encoder.config.save_pretrained(folder)
    return {"classes": student.head.out_features, "pooling": student.pooling}


def load(folder: Path, shape: dict[str, Any]) -> EncoderClassifier:
    """An untrained student of a described shape."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    encoder = AutoModel.from_config(config, attn_implementation="eager")
    _drop_pooler(encoder)
    return EncoderClassifier(encoder, config.hidden_size, shape["classes"], shape["pooling"])


def graph(student: EncoderClassifier) -> LogitsOnly:
    """The form that is exported."""
    return LogitsOnly(student)


def learner(student: EncoderClassifier, settings: SlicedParams, total_steps: int, seed: int) -> "SlicedLearner":
    """What trains it."""
    return SlicedLearner(student, settings, total_steps)


def batches(
    tokens: Tokens, settings: SlicedParams, pad: int, seed: int | None, columns: Mapping[str, ByRow]
) -> Batches:
    """Padded batches within the token budget, random for training, by length for validation (seed None)."""
    return text_batches(tokens, settings.batch_tokens, pad, seed, columns)


class SlicedLearner(Learner):
    """Soft targets with temperature, hard labels, cosine of the pooled hidden states."""

    def __init__(self, student: EncoderClassifier, settings: SlicedParams, total_steps: int) -> None:
        super().__init__(total_steps, 0.1, settings.weight_decay)
        self.student = student
        self._settings = settings

    def loss(self, batch: Any) -> torch.Tensor:
        logits, pooled = self.student(batch["ids"], batch["mask"])
        settings = self._settings
        teacher = batch.get("logits")
        loss = distillation_loss(logits.float(), batch["label"], teacher, settings.temperature, settings.hard_weight)
        if teacher is not None and settings.cosine_weight > 0:
            loss = loss + settings.cosine_weight * cosine_loss(pooled.float(), batch["embedding"])
        return loss

    def predict_logits(self, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = self.student(batch["ids"], batch["mask"])[0]
        return logits

    def labels_of(self, batch: Any) -> torch.Tensor:
        labels: torch.Tensor = batch["label"]
        return labels

    def parameter_groups(self) -> list[dict[str, Any]]:
        head = list(self.student.head.parameters())
        rate = self._settings.learning_rate
        return [
            {"params": list(self.student.encoder.parameters()), "lr": rate},
            {"params": head, "lr": 5 * rate},
        ]
