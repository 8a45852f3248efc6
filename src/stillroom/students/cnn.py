"""The cnn family: filters of several widths over token vectors from the teacher, the largest of each, a linear head.

Sees phrases of a few tokens wherever they stand (Kim, arXiv 1408.5882). A filter is one product with the vectors of a
token and of those after it, laid side by side, which int8 kernels know, as they do not all know convolutions.
Cost: vocabulary × dimensions + dimensions × filters × sum of widths weights; twice the latter FLOPs a token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from stillroom.student_params import CnnParams
from stillroom.students.family import Cost, itself, padded_batches, token_learner
from stillroom.students.material import Material
from stillroom.students.table import start_table

SPECIAL_TOKENS = False
graph, learner, batches = itself, token_learner, padded_batches


class CnnStudent(nn.Module):
    """Padded ids and mask [texts, tokens] to logits [texts, classes].

    A filter starts at every token of a text and reads zeros beyond its end, so that a text shorter than a filter has
    an answer too; of one without a token every filter finds 0.
    """

    def __init__(self, vocabulary: int, dimensions: int, filters: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.table = nn.Embedding(vocabulary, dimensions)
        self.filters = nn.ModuleList(nn.Linear(width * dimensions, filters) for width in self.widths)
        self.head = nn.Linear(filters * len(self.widths), classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        real = attention_mask.unsqueeze(2).to(self.table.weight.dtype)
        tokens = input_ids.shape[1]
        widest = max(self.widths)
        padded = F.pad(self.table(input_ids) * real, (0, 0, 0, widest - 1))
        windows = torch.cat([padded[:, start : start + tokens] for start in range(widest)], dim=2)
        found = torch.cat([filters(windows[:, :, : filters.in_features]) for filters in self.filters], dim=2)
        # at least 0, as masked cells give
        pooled = (F.relu(found) * real).amax(dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def cost(material: Material, settings: CnnParams) -> Cost:
    """A row of the table and every filter for each token, and the head for each text."""
    classes = len(material.description.labels)
    filters = settings.dimensions * settings.filters * sum(settings.widths)
    found = settings.filters * len(settings.widths)
    head = found * classes
    return Cost(
        params=len(material.kept) * settings.dimensions + filters + found + head + classes,
        flops_per_token=2 * filters,
        flops_per_text=2 * head,
        bytes_per_token=settings.dimensions + filters + head,
    )


def build(material: Material, settings: CnnParams) -> CnnStudent:
    """A student that starts from the teacher's token embeddings."""
    classes = len(material.description.labels)
    student = CnnStudent(len(material.kept), settings.dimensions, settings.filters, settings.widths, classes)
    start_table(student.table.weight, material)
    return student


def describe(student: CnnStudent, folder: Path) -> dict[str, Any]:
    """What `load` needs beside the weights."""
    vocabulary, dimensions = student.table.weight.shape
    return {
        "vocabulary": vocabulary,
        "dimensions": dimensions,
        "filters": student.head.in_features // len(student.widths),
        "widths": list(student.widths),
        "classes": student.head.out_features,
    }


def load(folder: Path, shape: dict[str, Any]) -> CnnStudent:
    """An untrained student of a described shape."""
    return CnnStudent(**shape)
