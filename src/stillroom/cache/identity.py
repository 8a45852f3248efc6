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
from stillroom.teacher.model import TOKENISER, WEIGHTS, read_description

KEY_BYTES = 16
CAPTURE_VERSION = 2
"""Raised whenever capture computes or stores something else for the same teacher."""

Example = str | tuple[str, str]
"""What the teacher is given: a text, or a pair of texts."""
Keys = npt.NDArray[np.uint8]
Fingerprint = dict[str, Any]

_WORDS = {
    "capture_version": "the version of the code that captures",
    "weights": "the teacher's weights: it was trained again or replaced",
    "config": "the configuration of the teacher's encoder",
    "tokeniser": "the tokeniser: the same text gives other tokens",
    "labels": "the labels or their order: a logit means another class",
    "max_length": "the number of tokens read of a text",
    "pooling": "how hidden states become one vector",
    "pad": "the padding token",
    "precision": "the precision of the forward pass",
    "signals": "the signals that are kept, or how they are stored",
}


def canonical(example: Example) -> bytes:
    """The bytes that stand for an example: the text, or the texts of a pair, exactly as the teacher is given them."""
    texts = [example] if isinstance(example, str) else list(example)
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def entry_keys(examples: Sequence[Example]) -> Keys:
    """Keys of examples, uint8 [n, 16]: the first 128 bits of sha256 over the canonical content."""
    digests = b"".join(hashlib.sha256(canonical(example)).digest()[:KEY_BYTES] for example in examples)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, KEY_BYTES)


def parse_key(text: str) -> Keys:
    """A key as people write it, 32 hexadecimal digits, as uint8 [1, 16]."""
    try:
        digits = bytes.fromhex(text)
    except ValueError:
        digits = b""
    if len(digits) != KEY_BYTES:
        raise InputError(f"{text!r} is no key of an entry; write its {2 * KEY_BYTES} hexadecimal digits")
    return np.frombuffer(digits, dtype=np.uint8).reshape(1, KEY_BYTES)


def fingerprint(teacher: Path, precision: str, signals: Mapping[str, str]) -> Fingerprint:
    """All that shapes a teacher's answer, field by field. Batch size, order, seed and workers play no part.

    signals: by name, the codec that stores it (`codecs.recorded`).
    """
    description = read_description(teacher)
    several = {} if description.problem_type == "single_label" else {"problem_type": description.problem_type}
    return several | {
        "capture_version": CAPTURE_VERSION,
        "weights": {WEIGHTS: sha256_file(teacher / WEIGHTS)},
        "config": sha256_file(teacher / "config.json"),
        "tokeniser": sha256_file(teacher / TOKENISER),
        "labels": list(description.labels),
        "max_length": description.max_length,
        "pooling": description.pooling,
        "pad": description.pad,
        "precision": precision,
        "signals": dict(signals),
    }


def fingerprint_digest(fields: Mapping[str, Any]) -> str:
    """sha256 over a fingerprint, whose first 32 digits name the folder of a teacher's answers."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def folder_name(fields: Mapping[str, Any]) -> str:
    """Name of the folder of a teacher's answers below the root of a store."""
    return fingerprint_digest(fields)[:32]


class StaleCache(InputError):
    """The cache holds the answers of another teacher, or of the same one asked in another way."""


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """In words, every field in which two fingerprints differ, with both values."""
    return [
        f"{name} differs – {_WORDS.get(name, 'a field that this version does not know')} "
        f"({_short(found.get(name))} there, {_short(expected.get(name))} here)"
        for name in sorted({*found, *expected}, key=lambda name: (name not in expected, name))
        if found.get(name) != expected.get(name)
    ]


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], where: Path) -> None:
    """Raise StaleCache that tells every field in which two fingerprints differ."""
    if told := differences(found, expected):
        raise StaleCache(
            f"{where}: holds the answers of another teacher: {'; '.join(told)}; run the stage capture again"
        )


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in sorted(value.items())) or "none"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if len(text) == 64 and text.isalnum():
        return text[:12]
    return text if len(text) <= 60 else text[:57] + "…"
