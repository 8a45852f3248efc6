"""Answers to put into a cache, and a teacher that counts what it is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stillroom.cache.codecs import Encoded, Signal, asked_for, recorded
from stillroom.cache.identity import Keys, entry_keys, folder_name
from stillroom.cache.live import LiveTeacher
from stillroom.cache.manifest import Kept, Manifest, Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import write_shard
from stillroom.cache.store import Store
from stillroom.storage import Folder

Array = NDArray[Any]
SIGNALS = asked_for(("logits", "embedding"))
FIELDS = {"weights": "w" * 64, "precision": "fp32", "signals": recorded(SIGNALS)}
WIDTHS = {"logits": 3, "embedding": 5}


def texts(count: int, first: int = 0) -> list[str]:
    return [f"text number {number}" for number in range(first, first + count)]


def answers_of(keys: Keys) -> dict[str, Array]:
    """Signals that are a function of the key, so that a mix-up of rows is seen."""
    numbers = keys.astype(np.float32)
    return {"logits": numbers[:, :3] - 128, "embedding": numbers[:, 3:8] / 16}


def encoded(values: dict[str, Array]) -> dict[Signal, Encoded]:
    """Signals as they are stored."""
    return {signal: signal.codec.encode(values[signal.name]) for signal in SIGNALS}


def write_folder(folder: Path, count: int, per_shard: int) -> Keys:
    """A folder of answers to `texts(count)` in shards, visible and whole; returns the keys."""
    keys = entry_keys(texts(count))
    shards = [
        write_shard(folder, folder_name(FIELDS), part, encoded(answers_of(part)))
        for part in (keys[at : at + per_shard] for at in range(0, count, per_shard))
    ]
    kept = {signal.name: Kept(codec=signal.codec.label, width=WIDTHS[signal.name]) for signal in SIGNALS}
    manifest = Manifest(fingerprint=FIELDS, signals=kept, shards=tuple(shards))
    assert Manifests(Folder(folder), Manifest(fingerprint=FIELDS)).change(lambda empty: manifest) == manifest
    return keys


def add(store: Store, *examples: str) -> None:
    """Put the answers of some texts into a store, in one shard."""
    keys = entry_keys(examples)
    store.add(keys, encoded(answers_of(keys)))


def filled(root: Path, *shards: list[str], shared: str | None = None) -> Store:
    """A store to which the shards were added one after the other."""
    store = Store(root, FIELDS, shared)
    store.reader()
    for shard in shards:
        add(store, *shard)
    return store


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def entries(folder: Path) -> list[int]:
    """Of each shard that is listed."""
    return [shard.entries for shard in Manifests(Folder(folder)).latest().shards]


def read(store: Store) -> Reader:
    """A store that is not empty."""
    reader = store.reader()
    assert reader is not None
    return reader


def holds(reader: Reader, count: int, first: int = 0) -> None:
    """The right answers to some texts, and none to others."""
    keys = entry_keys(texts(count, first))
    assert len(reader) == count
    for name, values in answers_of(keys).items():
        np.testing.assert_array_equal(reader.read(name, reader.locate(keys, "texts")), values)


def newest_manifest(folder: Path) -> Path:
    """The file that says what a folder of answers holds."""
    return max((folder / "manifests").iterdir())


def shard_files(folder: Path) -> list[Path]:
    """The files of the shards that are visible, in the order of the manifest."""
    return [folder / shard.name for shard in Manifests(Folder(folder)).latest().shards]


def live(model: nn.Module, teacher: Path, tokeniser: Any, precision: str = "fp32", budget: int = 200) -> LiveTeacher:
    """A toy model that stands for a published teacher."""
    return LiveTeacher(teacher, model, tokeniser, 32, 0, precision, budget)


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
