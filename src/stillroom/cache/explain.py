"""How the key of an example came about, and where its answer stands."""

import hashlib
from dataclasses import dataclass

import numpy as np

from stillroom.cache.capture import keys_and_sample
from stillroom.cache.identity import Example, Keys, canonical
from stillroom.cache.manifest import FOLDER
from stillroom.cache.reader import Reader
from stillroom.cache.root import at_hand
from stillroom.cache.texts import Texts
from stillroom.errors import InputError
from stillroom.problem import probabilities
from stillroom.storage import open_storage

_TOP = 3


@dataclass(frozen=True)
class Origin:
    """canonical: the bytes that stand for an example, as text; sha256: of them; its first 32 digits are the key."""

    canonical: str
    sha256: str


@dataclass(frozen=True)
class Top:
    """A class of an answer: its label, its logit, and its probability at temperature 1."""

    label: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Standing:
    """Where an answer stands: the teacher's folder, the shard's file and the row in it; None if it does not."""

    folder: str
    shard: str | None = None
    position: int | None = None
    top: tuple[Top, ...] = ()


def origin(example: Example) -> Origin:
    """How the key of an example comes about."""
    content = canonical(example)
    return Origin(content.decode("utf-8", "backslashreplace"), hashlib.sha256(content).hexdigest())


def text_of(texts: Texts, row: int) -> Example:
    """The text of a row, counted from 0. Raises InputError if there is no such row."""
    if not 0 <= row < len(texts):
        raise InputError(f"the transfer set has no row {row}; its {len(texts)} rows are 0 to {len(texts) - 1}")
    _, [example] = keys_and_sample(texts, np.array([row], dtype=np.int64))
    return example


def standing(address: str, key: Keys) -> Standing:
    """Where the answer of a key [1, 16] stands in a teacher's folder, if there is such a folder, and what it says."""
    if not open_storage(address).names(FOLDER):
        return Standing(address)
    with at_hand(address) as folder:
        reader = Reader.open(folder)
        at = reader.find(key)
        if at[0] < 0:
            return Standing(address)
        number = int(np.searchsorted(reader.starts, at[0], side="right")) - 1
        fields = reader.manifest.fingerprint
        answer = reader.read("logits", at)
        logits, shares = answer[0], probabilities(answer, fields.get("problem_type", "single_label"))[0]
        labels = fields.get("labels", [])
        top = tuple(
            Top(str(labels[place]) if place < len(labels) else str(place), float(logits[place]), float(shares[place]))
            for place in np.argsort(-logits)[:_TOP].tolist()
        )
        shard = reader.shards[number].path.name
        return Standing(address, shard, int(at[0] - reader.starts[number]), top)
