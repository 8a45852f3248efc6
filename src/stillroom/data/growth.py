"""Growth: texts without a label, the user's own and made from the training rows, for a student to hear the teacher on.

A teacher is sure of the rows that it was trained on, so its answers for them say little more than the labels; of texts
that lack some words it has to judge anew. Words left out or masked and n-grams sampled are the ways of Tang et al.
(arXiv 1903.12136), here with n-grams of any length, words replaced by a masked-language head that of TinyBERT (Jiao et
al., arXiv 1909.10351). docs/adr/0008-growth.md and docs/adr/0015-longer-runs-and-unseen-pieces.md have the figures.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stillroom.data.duplicates import reappearing
from stillroom.data.folding import folded
from stillroom.data.manifest import UNLABELLED
from stillroom.params import GrowthParams, Method

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_STREAMS: dict[Method, tuple[int, ...]] = {"drop": (), "mask": (1,), "mix": (2,), "replace": (3,)}
"""What a method draws by, beside seed and text: with one method more, the others make the same texts."""


class Proposals(Protocol):
    """What `replace` needs: words, which of them are covered and a draw for each [variants, words] → each variant."""

    def replaced(self, words: Sequence[str], covered: Mask, draws: Floats) -> list[list[str]]: ...


@dataclass(frozen=True)
class Grown:
    """Texts to label, each once and none of them a training text; by kind, how many they are and how many were refused.

    Kinds are `unlabelled`, the user's own, and the methods of growth.
    """

    texts: list[str]
    kept: dict[str, int]
    refused: dict[str, int]


def grow(
    texts: Sequence[str],
    held_out: Sequence[str],
    settings: GrowthParams,
    near: float,
    seed: int,
    unlabelled: Sequence[str] = (),
    mask: str | None = None,
    proposals: Proposals | None = None,
    *,
    factor: int | None = None,
) -> Grown:
    """The user's unlabelled texts, then what grows from the training texts.

    factor: that of the settings, unless it is given. mask: the teacher's mask token, for the method of that name;
    proposals: for the method replace. Refused is what comes near a held-out text (Jaccard similarity `near` of word
    shingles): a student must not be told of those. What grows from a text depends on that text, the settings and the
    seed alone, so that new rows leave the old ones' grown texts, and the teacher's answers for them, as they are.
    """
    if (settings.uses("mask") and mask is None) or (settings.uses("replace") and proposals is None):
        raise ValueError("growth: mask needs a mask token, replace needs proposals")
    if factor is None:
        if settings.factor == "auto":
            raise ValueError("growth: give the factor of a step")
        factor = settings.factor
    known = {folded(text) for text in texts}
    kinds: dict[str, str] = {}
    for text in map(folded, unlabelled):
        if text not in known:
            kinds.setdefault(text, UNLABELLED)
    for text in texts:
        for method, variant in _variants(text, settings, factor, seed, mask, proposals):
            if variant not in known:
                kinds.setdefault(variant, method)
    leaks = reappearing(list(kinds), held_out, near).tolist()
    refused = Counter(kind for kind, leak in zip(kinds.values(), leaks, strict=True) if leak)
    made = Counter(kinds.values())
    named = [*([UNLABELLED] if unlabelled else []), *settings.methods]
    return Grown(
        [text for text, leak in zip(kinds, leaks, strict=True) if not leak],
        {kind: made[kind] - refused[kind] for kind in named},
        {kind: refused[kind] for kind in named},
    )


def _variants(
    text: str, settings: GrowthParams, factor: int, seed: int, mask: str | None, proposals: Proposals | None
) -> Iterator[tuple[Method, str]]:
    words = text.split()
    content = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    for place, method in enumerate(settings.methods):
        entropy = [seed, int.from_bytes(content[:16], "little"), *_STREAMS[method]]
        generator = np.random.default_rng(entropy)
        count = len(range(place, factor, len(settings.methods)))
        made: list[list[str]]
        if method == "replace":
            draws = generator.random((count, 2, len(words)))
            draws = draws[(draws[:, 0] >= settings.word_drop).any(axis=1)]
            covered = draws[:, 0] < settings.word_drop
            made = proposals.replaced(words, covered, draws[:, 1]) if proposals and len(draws) else []
        elif method == "mix":
            made = [_run(words, generator) for _ in range(count)]
        else:
            symbol = mask if method == "mask" else None
            made = [_thinned(words, generator, settings.word_drop, symbol) for _ in range(count)]
        for left in filter(None, made):
            yield method, folded(" ".join(left))


def _thinned(words: Sequence[str], generator: np.random.Generator, share: float, mask: str | None) -> list[str]:
    """The words without a share of them, or with a mask in the place of each of those; none if no word stays.

    The mask is the teacher's own token, which its tokeniser knows in a text and a student keeps in its vocabulary: any
    other symbol would be a word to both.
    """
    stays = generator.random(len(words)) >= share
    if not stays.any():
        return []
    if mask is None:
        return [word for word, stay in zip(words, stays, strict=True) if stay]
    return [word if stay else mask for word, stay in zip(words, stays, strict=True)]


def _run(words: Sequence[str], generator: np.random.Generator) -> list[str]:
    """Neighbouring words, any number of them but all alike likely; none of a single word."""
    if len(words) < 2:
        return []
    length = int(generator.integers(1, len(words)))
    start = int(generator.integers(0, len(words) - length, endpoint=True))
    return list(words[start : start + length])
