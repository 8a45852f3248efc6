"""The bilstm family: one LSTM layer in both directions over token vectors from the teacher, the largest of each state.

Reads words in their order (Tang et al., arXiv 1903.12136). Cost: vocabulary × dimensions +
8 × hidden × (dimensions + hidden + 2) weights; 16 × hidden × (dimensions + hidden) FLOPs a token, one after another.
"""

from pathlib import Path

import torch
from torch import nn

from stillroom.student_params import BilstmParams
from stillroom.students.family import Cost, itself, padded_batches, token_learner
from stillroom.students.material import Material
from stillroom.students.table import start_table

SPECIAL_TOKENS = False
graph, learner, batches = itself, token_learner, padded_batches
_LEAST = -1.0
"""No state of an LSTM is less."""


class BilstmStudent(nn.Module):
    """Padded ids and mask [texts, tokens], padding last, to logits [texts, classes].

    Each direction begins at its own end of a text: the second reads the text's tokens turned round within its length,
    and what comes after them reaches no state of theirs.
    """

    def __init__(self, vocabulary: int, dimensions: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, dimensions)
        self.onward = nn.LSTM(dimensions, hidden, batch_first=True)
        self.back = nn.LSTM(dimensions, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        place = attention_mask.cumsum(dim=1) - 1
        turned = (attention_mask.sum(dim=1, keepdim=True) - 1 - place).clamp(min=0)
        padding = attention_mask.unsqueeze(2) == 0
        onward, _ = self.onward(self.table(input_ids))
        back, _ = self.back(self.table(input_ids.gather(1, turned)))
        pooled = torch.cat([onward, back], dim=2).masked_fill(padding, _LEAST).amax(dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def cost(material: Material, settings: BilstmParams) -> Cost:
    """A row of the table and both directions' gates for each token, and the head for each text."""
    dimensions, hidden, classes = settings.dimensions, settings.hidden, len(material.description.labels)
    gates = 8 * hidden * (dimensions + hidden)
    head = 2 * hidden * classes
    return Cost(
        params=len(material.kept) * dimensions + gates + 16 * hidden + head + classes,
        flops_per_token=2 * gates,
        flops_per_text=2 * head,
        bytes_per_token=dimensions + gates + head,
    )


def build(material: Material, settings: BilstmParams) -> BilstmStudent:
    """A student that starts from the teacher's token embeddings."""
    classes = len(material.description.labels)
    student = BilstmStudent(len(material.kept), settings.dimensions, settings.hidden, classes)
    start_table(student.table.weight, material)
    return student


def describe(student: BilstmStudent, folder: Path) -> dict[str, int]:
    """What `load` needs beside the weights."""
    vocabulary, dimensions = student.table.weight.shape
    hidden, classes = student.onward.hidden_size, student.head.out_features
    return {"vocabulary": vocabulary, "dimensions": dimensions, "hidden": hidden, "classes": classes}


def load(folder: Path, shape: dict[str, int]) -> BilstmStudent:
    """An untrained student of a described shape."""
    return BilstmStudent(**shape)
