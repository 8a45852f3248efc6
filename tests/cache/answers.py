"""Answers to put into a cache, and a teacher that counts what it is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stillroom.cache.identity import Keys, entry_keys
from stillroom.cache.shards import Manifest, write_manifest, write_shard

Array = NDArray[Any]
FIELDS = {"weights": "w" * 64, "precision": "fp32", "signals": ["logits", "embedding"]}
WIDTHS = {"logits": 3, "embedding": 5}


def texts(count: int, first: int = 0) -> list[str]:
    return [f"text number {number}" for number in range(first, first + count)]


def answers_of(keys: Keys) -> dict[str, Array]:
    """Signals that are a function of the key, so that a mix-up of rows is seen."""
    numbers = keys.astype(np.float32)
    return {"logits": numbers[:, :3] - 128, "embedding": numbers[:, 3:8] / 16}


def write_folder(folder: Path, count: int, per_shard: int) -> Keys:
    """A folder of answers to `texts(count)` in shards, visible and whole; returns the keys."""
    keys = entry_keys(texts(count))
    shards = [
        write_shard(folder, keys[at : at + per_shard], answers_of(keys[at : at + per_shard]))
        for at in range(0, count, per_shard)
    ]
    write_manifest(folder, Manifest(fingerprint=FIELDS, widths=WIDTHS, shards=tuple(shards)))
    return keys


class CountingTeacher(nn.Module):
    """Answers that depend on a text's tokens alone, to the last bit; remembers how many rows it was asked."""

    def __init__(self, breaks_after: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.rows = 0
        self.calls = 0
        self.breaks_after = breaks_after

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.breaks_after is not None and self.calls >= self.breaks_after:
            raise RuntimeError("the power is gone")
        self.calls += 1
        self.rows += len(ids)
        place = torch.arange(1, ids.shape[1] + 1)
        sums = torch.stack([((ids * mask * place) % prime).sum(dim=1) for prime in (3, 5, 7, 11, 13)], dim=1)
        return sums[:, :3].float() + 1, sums.float() + 2
