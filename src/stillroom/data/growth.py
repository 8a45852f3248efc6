"""Growth: texts without a label, made from the training rows, on which a student hears the teacher once more.

A teacher is sure of the rows that it was trained on, so its answers for them say little more than the labels; of texts
that lack some words it has to judge anew. Words are left out as in Tang et al. (arXiv 1903.12136), whose masks stand
for them. docs/adr/0008-growth.md has the figures.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from stillroom.data.duplicates import reappearing
from stillroom.data.folding import folded
from stillroom.params import GrowthParams


def grow(
    texts: Sequence[str], held_out: Sequence[str], settings: GrowthParams, near: float, seed: int
) -> tuple[list[str], int]:
    """Grown texts, each once and none of them a training text, and how many were refused.

    Refused is what comes near a held-out text (Jaccard similarity `near` of word shingles): a student must not
    be told of those. What grows from a text depends on that text, the settings and the seed alone, so that new rows
    leave the old ones' grown texts, and the teacher's answers for them, as they are.
    """
    known = {folded(text) for text in texts}
    variants = (variant for text in texts for variant in _variants(text, settings, seed))
    candidates = list(dict.fromkeys(variant for variant in variants if variant not in known))
    refused = reappearing(candidates, held_out, near)
    return [text for text, leaks in zip(candidates, refused, strict=True) if not leaks], int(refused.sum())


def _variants(text: str, settings: GrowthParams, seed: int) -> Iterator[str]:
    words = text.split()
    content = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    generator = np.random.default_rng([seed, int.from_bytes(content[:16], "little")])
    for _ in range(settings.factor):
        stays = generator.random(len(words)) >= settings.word_drop
        if stays.any():
            yield folded(" ".join(word for word, stay in zip(words, stays, strict=True) if stay))
