"""The sliced family: the teacher's own lower layers over a trimmed vocabulary, with DistilBERT's losses.

Lower layers are the better start (Sanh et al., arXiv 1910.01108). Works for every encoder whose layers stand in one
torch.nn.ModuleList. Cost: vocabulary × width + layers × one layer's weights; FLOPs a token as the teacher's share.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom.errors import InputError
from stillroom.student_params import NarrowParams, PretrainedParams, SlicedParams
from stillroom.students.family import Cost, StudentLearner, padded_batches
from stillroom.students.losses import cosine_loss
from stillroom.students.material import Material
from stillroom.teacher.attention import use_training_attention
from stillroom.teacher.model import EncoderClassifier, LogitsOnly, count_params, layers_of

SPECIAL_TOKENS = True
batches = padded_batches


def cost(material: Material, settings: SlicedParams) -> Cost:
    """The teacher's own layers and what stands around them, over the kept rows of its token table."""
    return cost_of(material, settings.layers)


def lower_layers(encoder: Any, count: int, whose: str) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of an encoder's layers, as `layers_of` has it, if it is so long. whose: what messages call the encoder.

    Raises InputError if it is not.
    """
    owner, name, layers = layers_of(encoder)
    if count > len(layers):
        raise InputError(f"layers is {count}; {whose} has {len(layers)}")
    return owner, name, layers


def cost_of(material: Material, count: int) -> Cost:
    """Of so many lower layers of an encoder."""
    encoder: Any = material.teacher.encoder
    _, _, layers = layers_of(encoder)
    table = encoder.get_input_embeddings().weight
    width, classes = table.shape[1], len(material.description.labels)
    in_layers = sum(count_params(layer) for layer in layers[:count])
    around = count_params(encoder) - sum(count_params(layer) for layer in layers) - table.numel()
    if getattr(encoder, "pooler", None) is not None:
        around -= count_params(encoder.pooler)
    return encoder_cost(len(material.kept) * width + around, in_layers, width, classes)


def encoder_cost(outside: int, in_layers: int, width: int, classes: int) -> Cost:
    """Of an encoder with so many weights outside and inside its layers, and a linear head."""
    return Cost(
        params=outside + in_layers + (width + 1) * classes,
        flops_per_token=2 * in_layers,
        flops_per_text=2 * width * classes,
        bytes_per_token=width + in_layers + width * classes,
    )


def build(material: Material, settings: SlicedParams) -> EncoderClassifier:
    """The first layers of the teacher over the kept rows of its token table, with its head where it has a linear one.

    Raises InputError if the teacher has fewer layers than asked for.
    """
    return cut(material, settings.layers, "the teacher")


def cut(material: Material, count: int, whose: str) -> EncoderClassifier:
    """So many lower layers of an encoder, as `build` has them; whose: what messages call it."""
    encoder: Any = copy.deepcopy(material.teacher.encoder)
    owner, name, layers = lower_layers(encoder, count, whose)
    setattr(owner, name, layers[:count])
    table = encoder.get_input_embeddings().weight.detach()[torch.from_numpy(material.kept)]
    encoder.set_input_embeddings(nn.Embedding(len(table), table.shape[1], padding_idx=material.pad, _weight=table))
    for key, value in vars(encoder.config).items():
        if "layer" in key and isinstance(value, list) and len(value) == len(layers):
            setattr(encoder.config, key, value[:count])
    encoder.config.num_hidden_layers = count
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
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return EncoderClassifier(untrained(config), config.hidden_size, shape["classes"], shape["pooling"])


def untrained(config: Any) -> Any:
    """An encoder of a config, without the pooler."""
    from transformers import AutoModel

    encoder = AutoModel.from_config(config, attn_implementation="eager")
    _drop_pooler(encoder)
    return encoder


def graph(student: EncoderClassifier) -> LogitsOnly:
    """The form that is exported."""
    return LogitsOnly(student)


def learner(student: EncoderClassifier, settings: SlicedParams, total_steps: int, seed: int) -> "SlicedLearner":
    """What trains it."""
    return SlicedLearner(student, settings, total_steps)


class EncoderLearner(StudentLearner):
    """Trains a transformer encoder, whose head learns faster than the layers."""

    def __init__(
        self, student: EncoderClassifier, settings: SlicedParams | NarrowParams | PretrainedParams, total_steps: int
    ) -> None:
        super().__init__(student, settings, total_steps, warmup=0.1)

    def logits_of(self, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = self.student(batch["ids"], batch["mask"])[0]
        return logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.settings.learning_rate
        parts = ((self.student.encoder, rate), (self.student.head, 5 * rate))
        return [{"params": list(part.parameters()), "lr": speed} for part, speed in parts]


class SlicedLearner(EncoderLearner):
    """Adds the cosine of the pooled hidden states."""

    def __init__(self, student: EncoderClassifier, settings: SlicedParams, total_steps: int) -> None:
        super().__init__(student, settings, total_steps)
        self._cosine_weight = settings.cosine_weight

    def loss(self, batch: Any) -> torch.Tensor:
        logits, pooled = self.student(batch["ids"], batch["mask"])
        loss = self.imitation(logits, batch)
        if "embedding" in batch:
            loss = loss + self._cosine_weight * cosine_loss(pooled.float(), batch["embedding"])
        return loss
