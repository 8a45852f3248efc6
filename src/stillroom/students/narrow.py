"""The narrow family: fewer and narrower layers of the teacher's kind, projected from its own.

Beside the teacher's answers they imitate the states of one of its layers and the relations between tokens there
(TinyBERT, arXiv 1909.10351; MiniLMv2, arXiv 2012.15828). Cost: vocabulary × width + layers × one layer's weights, which
are about the teacher's times the square of the widths' ratio; FLOPs a token twice the weights in layers.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from stillroom.student_params import NarrowParams
from stillroom.students import sliced
from stillroom.students.family import Cost
from stillroom.students.losses import relation_loss, state_loss
from stillroom.students.material import Material
from stillroom.students.projection import narrow_config, principal_basis, project
from stillroom.teacher.attention import use_training_attention
from stillroom.teacher.model import EncoderClassifier, count_params, layers_of

SPECIAL_TOKENS = sliced.SPECIAL_TOKENS
describe, load, graph, batches = sliced.describe, sliced.load, sliced.graph, sliced.batches
_SAMPLE = 64
"""Texts by whose states the basis is chosen; they have thousands of tokens × layers, a state has hundreds of places."""


def cost(material: Material, settings: NarrowParams) -> Cost:
    """Counted on an encoder of that shape without weights."""
    config = _config(material, settings)
    with torch.device("meta"):
        encoder: Any = sliced.untrained(config)
    _, _, layers = layers_of(encoder)
    in_layers = count_params(layers)
    outside = count_params(encoder) - in_layers
    return sliced.encoder_cost(outside, in_layers, settings.width, len(material.description.labels))


def build(material: Material, settings: NarrowParams) -> EncoderClassifier:
    """An encoder of the teacher's kind with evenly spaced layers of it, projected, and its head where that is linear.

    Raises InputError for sizes that the teacher does not allow, and for a teacher that cannot be made narrow.
    """
    teacher: Any = material.teacher.encoder
    encoder = sliced.untrained(_config(material, settings))
    _, _, layers = layers_of(teacher)
    source = layer_choice(len(layers), settings.layers)
    basis, share = principal_basis(_states(material), settings.width)
    project(teacher, encoder, source, torch.from_numpy(material.kept), basis, share)
    use_training_attention(encoder)
    description = material.description
    student = EncoderClassifier(encoder, settings.width, len(description.labels), description.pooling)
    if isinstance(material.teacher, EncoderClassifier):
        with torch.no_grad():
            student.head.weight.copy_(material.teacher.head.weight @ basis)
            student.head.bias.copy_(material.teacher.head.bias)
    student.register_buffer("basis", basis, persistent=False)
    return student


def layer_choice(there: int, wanted: int) -> list[int]:
    """Evenly spaced layers of the teacher, counted from 0, the last among them."""
    return [(number + 1) * there // wanted - 1 for number in range(wanted)]


def _config(material: Material, settings: NarrowParams) -> Any:
    teacher: Any = material.teacher.encoder
    return narrow_config(teacher, settings.width, settings.layers, len(material.kept), material.pad)


def _states(material: Material) -> torch.Tensor:
    """States of the teacher after embeddings and every layer, for texts here and there, [tokens × layers, width]."""
    count = len(material.tokens)
    rows = np.linspace(0, count, min(_SAMPLE, count), endpoint=False, dtype=np.int64)
    ids, mask = (torch.from_numpy(part) for part in material.tokens.padded(rows, material.pad))
    encoder: Any = material.teacher.encoder
    with torch.no_grad():
        hidden = encoder(
            input_ids=torch.from_numpy(material.kept)[ids], attention_mask=mask, output_hidden_states=True
        ).hidden_states
    return torch.cat([states[mask.bool()] for states in hidden])


class NarrowLearner(sliced.EncoderLearner):
    """Adds the difference from the teacher's states, after a learned map to their width, and that of the relations.

    The map starts as the way back out of the basis. It is the learner's: neither counted nor published.
    """

    def __init__(self, student: EncoderClassifier, settings: NarrowParams, total_steps: int) -> None:
        super().__init__(student, settings, total_steps)
        basis: Any = student.basis
        self.widen = nn.Linear(basis.shape[1], basis.shape[0], bias=False)
        with torch.no_grad():
            self.widen.weight.copy_(basis)
        heads = student.encoder.config.num_attention_heads
        self._parts = math.gcd(heads, heads * basis.shape[0] // basis.shape[1])
        self._signal = f"hidden.{settings.hidden_layer}"
        self._weights = settings.hidden_weight, settings.relation_weight

    def loss(self, batch: Any) -> torch.Tensor:
        states = self.student.states(batch["ids"], batch["mask"])
        loss = self.imitation(self.student.judge(states, batch["mask"])[0], batch)
        if self._signal not in batch:
            return loss
        theirs = batch[self._signal]
        # the column is as long as the longest text whose states are known, the batch as its longest text
        theirs = F.pad(theirs, (0, 0, 0, states.shape[1] - theirs.shape[1]), value=math.nan)
        known = ~theirs[..., 0].isnan()
        by_state = state_loss(self.widen(states).float(), theirs, known)
        by_relation = relation_loss(states, theirs, known, self._parts)
        return loss + self._weights[0] * by_state + self._weights[1] * by_relation

    def parameter_groups(self) -> list[dict[str, Any]]:
        own = {"params": list(self.widen.parameters()), "lr": self.settings.learning_rate}
        return [*super().parameter_groups(), own]


def learner(student: EncoderClassifier, settings: NarrowParams, total_steps: int, seed: int) -> NarrowLearner:
    """What trains it."""
    return NarrowLearner(student, settings, total_steps)
