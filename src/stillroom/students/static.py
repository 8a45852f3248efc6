"""The static family: a table of token vectors from the teacher, learned token weights, their mean, a small head.

No attention, so its cost is one table look-up per token. Table: principal components of the teacher's own token
embeddings, as in Model2Vec (https://github.com/MinishLab/model2vec), then trained on the teacher's answers.
Cost: vocabulary × dimensions + dimensions × hidden + hidden × classes weights; 2 × dimensions FLOPs a token.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stillroom.batching import Ints, Tokens
from stillroom.params import StaticParams
from stillroom.students.losses import distillation_loss
from stillroom.students.material import Material
from stillroom.training import Batches, ByRow, Learner

_WEIGHT_OF_ONE = math.log(math.e - 1)
"""What softplus turns into 1."""
SPECIAL_TOKENS = False
THREADS = 1
"""CPU threads the exported graph runs best with: it has too little to do for more."""


class StaticStudent(nn.Module):
    """Flat token ids and the offset of each text to logits [texts, classes]."""

    def __init__(self, vocabulary: int, dimensions: int, hidden: int, classes: int) -> None:
        super().__init__()
        # id 0 is the padding: a text may spell its token, and the exported graph cannot tell it from padding
        self.table = nn.EmbeddingBag(vocabulary, dimensions, mode="sum", include_last_offset=True, padding_idx=0)
        self.token_weight = nn.Parameter(torch.full((vocabulary,), _WEIGHT_OF_ONE))
        self.body = nn.Sequential(
            nn.LayerNorm(dimensions), nn.Linear(dimensions, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        weights = torch.nn.functional.softplus(self.token_weight[ids])
        counts = (offsets[1:] - offsets[:-1]).clamp(min=1).unsqueeze(1)
        pooled = self.table(ids, offsets, per_sample_weights=weights) / counts
        logits: torch.Tensor = self.body(pooled)
        return logits


class StaticGraph(nn.Module):
    """The same student for export: padded ids and mask [texts, tokens] to logits, weights folded into the table."""

    def __init__(self, student: StaticStudent) -> None:
        super().__init__()
        weights = torch.nn.functional.softplus(student.token_weight.detach()).unsqueeze(1)
        table = student.table.weight.detach() * weights
        table[0] = 0.0  # the padding token adds nothing to a sum
        self.table = nn.Embedding(len(table), table.shape[1], _weight=table)
        self.body = student.body

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        counts = attention_mask.sum(dim=1, keepdim=True).clamp(min=1).to(torch.float32)
        logits: torch.Tensor = self.body(self.table(input_ids).sum(dim=1) / counts)
        return logits


def initial_table(
    embeddings: npt.NDArray[np.float32], kept: npt.NDArray[np.int64], dimensions: int
) -> npt.NDArray[np.float32]:
    """Principal components of the kept tokens' embeddings, float32 [len(kept), dimensions], of mean norm √dimensions.

    A smaller table is lost to the optimiser's steps, which do not depend on scale (docs/adr/0007-static-start.md).
    Padded with zeros where the teacher has fewer dimensions than asked for.
    """
    chosen = embeddings[kept]
    centred = chosen - chosen.mean(axis=0)
    width = min(dimensions, *centred.shape)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    table = np.zeros((len(kept), dimensions), dtype=np.float32)
    table[:, :width] = centred @ components[:width].T
    table *= math.sqrt(dimensions) / max(float(np.linalg.norm(table, axis=1).mean()), 1e-12)
    return table


def build(material: Material, settings: StaticParams) -> StaticStudent:
    """A student that starts from the teacher's token embeddings."""
    student = StaticStudent(len(material.kept), settings.dimensions, settings.hidden, len(material.description.labels))
    embeddings = material.teacher.encoder.get_input_embeddings().weight.detach().float().numpy()
    with torch.no_grad():
        table = initial_table(embeddings, material.kept, settings.dimensions)
        student.table.weight.copy_(torch.from_numpy(table))
    return student


def describe(student: StaticStudent, folder: Path) -> dict[str, int]:
    """What `load` needs beside the weights."""
    vocabulary, dimensions = student.table.weight.shape
    hidden, classes = (layer.out_features for layer in student.body if isinstance(layer, nn.Linear))
    return {"vocabulary": vocabulary, "dimensions": dimensions, "hidden": hidden, "classes": classes}


def load(folder: Path, shape: dict[str, int]) -> StaticStudent:
    """An untrained student of a described shape."""
    return StaticStudent(**shape)


def graph(student: StaticStudent) -> StaticGraph:
    """The form that is exported."""
    return StaticGraph(student)


def learner(student: StaticStudent, settings: StaticParams, total_steps: int, seed: int) -> "StaticLearner":
    """What trains it."""
    return StaticLearner(student, settings, total_steps, seed)


def batches(
    tokens: Tokens, settings: StaticParams, pad: int, seed: int | None, columns: Mapping[str, ByRow]
) -> Batches:
    """Random batches for training, in order for validation (seed None)."""
    return bag_batches(tokens, settings.batch_rows, seed, columns)


class StaticLearner(Learner):
    """Trains a static student, with words dropped at random (seeded by the step, so that a resumed run is the same)."""

    def __init__(self, student: StaticStudent, settings: StaticParams, total_steps: int, seed: int) -> None:
        super().__init__(total_steps, 0.05, settings.weight_decay)
        self.student = student
        self._settings = settings
        self._seed = seed

    def loss(self, batch: Any) -> torch.Tensor:
        ids, offsets = self._without_some_words(batch["ids"], batch["offsets"])
        logits = self.student(ids, offsets)
        settings = self._settings
        return distillation_loss(
            logits, batch["label"], batch.get("logits"), settings.temperature, settings.hard_weight
        )

    def _without_some_words(self, ids: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._settings.word_dropout == 0:
            return ids, offsets
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.global_step)
        stays = torch.rand(len(ids), generator=generator) >= self._settings.word_dropout
        before = torch.cat([torch.zeros(1, dtype=torch.long), stays.cumsum(0)])
        return ids[stays], before[offsets]

    def predict_logits(self, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = self.student(batch["ids"], batch["offsets"])
        return logits

    def labels_of(self, batch: Any) -> torch.Tensor:
        labels: torch.Tensor = batch["label"]
        return labels

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.student.parameters()), "lr": self._settings.learning_rate}]


def bag_batches(tokens: Tokens, rows_per_batch: int, seed: int | None, columns: Mapping[str, ByRow]) -> Batches:
    """Batches without padding: flat ids and offsets, {"ids", "offsets", every column's rows}."""

    def plan(epoch: int) -> list[Ints]:
        order = np.arange(len(tokens))
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(len(tokens))
        return [order[start : start + rows_per_batch] for start in range(0, len(order), rows_per_batch)]

    def collate(rows: Ints) -> dict[str, torch.Tensor]:
        bags = tokens.take(rows)
        chosen = torch.from_numpy(rows)
        batch = {"ids": torch.from_numpy(bags.ids.astype(np.int64)), "offsets": torch.from_numpy(bags.offsets)}
        return batch | {name: column[chosen] for name, column in columns.items()}

    return Batches(plan, collate)
