"""The static family: a table of token vectors from the teacher, learned token weights, their sum, a small head.

No attention, so its cost is one table look-up per token. Table: principal components of the teacher's own token
embeddings, as in Model2Vec (https://github.com/MinishLab/model2vec), then trained on the teacher's answers. A second
table can tell pairs of neighbouring tokens apart: hashed, as in fastText (Joulin et al., arXiv 1607.01759), from zero.
Cost: (vocabulary + buckets) × dimensions + dimensions × hidden + hidden × classes weights; 2 × dimensions FLOPs a
token, twice that with pairs.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.batching import Ints, Tokens
from stillroom.student_params import StaticParams
from stillroom.students.family import Cost, StudentLearner, kept_at_random
from stillroom.students.material import Material
from stillroom.students.table import start_table
from stillroom.training import Batches, ByRow

_WEIGHT_OF_ONE = math.log(math.e - 1)
"""What softplus turns into 1."""
SPECIAL_TOKENS = False
_PRIME = (1 << 31) - 1
_FACTORS = (1_103_515_245, 1_566_083_941)


def bucket(first: torch.Tensor, second: torch.Tensor, buckets: int) -> torch.Tensor:
    """Which of so many buckets a pair of tokens falls in, int64, by arithmetic that a graph does as well.

    Linear modulo a prime, so that any two pairs meet as seldom as by chance (Carter and Wegman 1979).
    """
    return (first * _FACTORS[0] + second * _FACTORS[1]) % _PRIME % buckets


def without(ids: torch.Tensor, offsets: torch.Tensor, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat ids and offsets of the texts with those alone that stay (bool, of the ids' shape)."""
    before = torch.cat([torch.zeros(1, dtype=torch.long, device=ids.device), stays.cumsum(0)])
    return ids[stays], before[offsets]


class StaticStudent(nn.Module):
    """Flat token ids and the offset of each text to logits [texts, classes].

    pairs: buckets for hashed pairs of neighbouring tokens, whose vectors are added to the sum; 0 for none.
    """

    def __init__(self, vocabulary: int, dimensions: int, hidden: int, classes: int, pairs: int = 0) -> None:
        super().__init__()
        # id 0 is the padding: a text may spell its token, and the exported graph cannot tell it from padding
        self.table = nn.EmbeddingBag(vocabulary, dimensions, mode="sum", include_last_offset=True, padding_idx=0)
        self.token_weight = nn.Parameter(torch.full((vocabulary,), _WEIGHT_OF_ONE))
        self.body = nn.Sequential(
            nn.LayerNorm(dimensions),  # of a sum it gives what it gives of the mean
            nn.Linear(dimensions, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
        self.pairs: nn.EmbeddingBag | None = None
        if pairs:
            start = torch.zeros(pairs, dimensions)
            self.pairs = nn.EmbeddingBag(pairs, dimensions, mode="sum", include_last_offset=True, _weight=start)

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        weights = torch.nn.functional.softplus(self.token_weight[ids])
        total = self.table(ids, offsets, per_sample_weights=weights)
        if self.pairs is not None:
            total = total + self.pairs(*self._pairs_of(ids, offsets, self.pairs.num_embeddings))
        logits: torch.Tensor = self.body(total)
        return logits

    @staticmethod
    def _pairs_of(ids: torch.Tensor, offsets: torch.Tensor, buckets: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Every token with the one after it, but the last of a text."""
        has_next = torch.ones_like(ids, dtype=torch.bool)
        ends = offsets[1:]
        has_next[ends[ends > offsets[:-1]] - 1] = False
        return without(bucket(ids, ids.roll(-1), buckets), offsets, has_next)


class StaticGraph(nn.Module):
    """The same student for export: padded ids and mask [texts, tokens] to logits, weights folded into the table."""

    def __init__(self, student: StaticStudent) -> None:
        super().__init__()
        weights = torch.nn.functional.softplus(student.token_weight.detach()).unsqueeze(1)
        table = student.table.weight.detach() * weights
        table[0] = 0.0  # the padding token adds nothing to a sum
        self.table = nn.Embedding(len(table), table.shape[1], _weight=table)
        self.body = student.body
        self.pairs: nn.Embedding | None = None
        if student.pairs is not None:
            # one row more, of zeros, for cells that begin no pair
            pairs = nn.functional.pad(student.pairs.weight.detach(), (0, 0, 0, 1))
            self.pairs = nn.Embedding(len(pairs), pairs.shape[1], _weight=pairs)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        total = self.table(input_ids).sum(dim=1)
        if self.pairs is not None:
            following, begins = (nn.functional.pad(part, (0, 1))[:, 1:] for part in (input_ids, attention_mask))
            none = self.pairs.num_embeddings - 1
            hashed = bucket(input_ids, following, none)
            total = total + self.pairs(torch.where(begins > 0, hashed, none)).sum(dim=1)
        logits: torch.Tensor = self.body(total)
        return logits


def cost(material: Material, settings: StaticParams) -> Cost:
    """A row of each table for each token, and the small head for each text."""
    dimensions, hidden, classes = settings.dimensions, settings.hidden, len(material.description.labels)
    head = dimensions * hidden + hidden * classes
    tokens = len(material.kept) * (dimensions + 1)
    rows = 2 if settings.ngram_buckets else 1
    return Cost(
        params=tokens + settings.ngram_buckets * dimensions + 2 * dimensions + head + hidden + classes,
        flops_per_token=2 * rows * dimensions,
        flops_per_text=2 * head,
        bytes_per_token=rows * dimensions + head,
    )


def build(material: Material, settings: StaticParams) -> StaticStudent:
    """A student that starts from the teacher's token embeddings."""
    classes = len(material.description.labels)
    student = StaticStudent(len(material.kept), settings.dimensions, settings.hidden, classes, settings.ngram_buckets)
    start_table(student.table.weight, material)
    return student


def describe(student: StaticStudent, folder: Path) -> dict[str, int]:
    """What `load` needs beside the weights."""
    vocabulary, dimensions = student.table.weight.shape
    hidden, classes = (layer.out_features for layer in student.body if isinstance(layer, nn.Linear))
    shape = {"vocabulary": vocabulary, "dimensions": dimensions, "hidden": hidden, "classes": classes}
    return shape if student.pairs is None else shape | {"pairs": student.pairs.num_embeddings}


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


class StaticLearner(StudentLearner):
    """Trains a static student, with words dropped at random (seeded by the step, so that a resumed run is the same)."""

    def __init__(self, student: StaticStudent, settings: StaticParams, total_steps: int, seed: int) -> None:
        super().__init__(student, settings, total_steps)
        self._word_dropout = settings.word_dropout
        self._seed = seed

    def logits_of(self, batch: Any) -> torch.Tensor:
        ids, offsets = batch["ids"], batch["offsets"]
        if self.training and self._word_dropout:
            stays = kept_at_random(ids, self._word_dropout, self._seed, self.global_step)
            ids, offsets = without(ids, offsets, stays)
        logits: torch.Tensor = self.student(ids, offsets)
        return logits


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
