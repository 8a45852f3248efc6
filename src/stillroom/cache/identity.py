"""What an entry and a cache are called: the content of the example, and all that shapes the teacher's answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.errors import InputError
from stillroom.files import sha256_file
from stillroom.teacher.model import DESCRIPTION, TOKENISER, WEIGHTS, read_description

KEY_BYTES = 16
CAPTURE_VERSION = 1
"""Raised whenever capture computes or stores something else for the same teacher."""

Keys = npt.NDArray[np.uint8]
Fingerprint = dict[str, Any]


def canonical(example: str | Sequence[str]) -> bytes:
    """The bytes that stand for an example: the text, or the texts of a pair, exactly as the teacher is given them."""
    texts = [example] if isinstance(example, str) else list(example)
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def entry_keys(examples: Sequence[str | Sequence[str]]) -> Keys:
    """Keys of examples, uint8 [n, 16]: the first 128 bits of sha256 over the canonical content."""
    digests = b"".join(hashlib.sha256(canonical(example)).digest()[:KEY_BYTES] for example in examples)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, KEY_BYTES)


def fingerprint(teacher: Path, precision: str, signals: Sequence[str]) -> Fingerprint:
    """All that shapes a teacher's answer, field by field. Batch size, order, seed and workers play no part."""
    description = read_description(teacher)
    return {
        "capture_version": CAPTURE_VERSION,
        "weights": sha256_file(teacher / WEIGHTS),
        "config": sha256_file(teacher / "config.json"),
        "tokeniser": sha256_file(teacher / TOKENISER),
        "labels": list(description.labels),
        "max_length": description.max_length,
        "pooling": description.pooling,
        "pad": description.pad,
        "precision": precision,
        "signals": list(signals),
    }


def fingerprint_digest(fields: Mapping[str, Any]) -> str:
    """Name of the folder that holds a teacher's answers."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class StaleCache(InputError):
    """The cache holds the answers of another teacher, or of the same one asked in another way."""


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], where: Path) -> None:
    """Raise StaleCache naming the first field in which two fingerprints differ, with both values."""
    for name in expected:
        if found.get(name) != expected[name]:
            raise StaleCache(
                f"{where}: the cache was captured with another {name} "
                f"({_short(found.get(name))}, the teacher now has {_short(expected[name])}); "
                f"run the stage capture again ({DESCRIPTION} describes the teacher)"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"
