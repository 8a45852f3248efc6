"""Piece dropout: in training some pieces come as the smaller ones that spell them, as words that come later will.

A trimmed vocabulary has the pieces of its transfer set, and cuts any other word into smaller ones, which few training
texts hold. Subword regularisation trains those: BPE-dropout (Provilkov et al., arXiv 1910.13267) and MaxMatch-dropout
for WordPiece (Hiraoka, arXiv 2209.04126). They drop pieces from the tokeniser; here a table has the spelling of each,
so that a batch is spelled anew by a look-up.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.batching import Ints, Tokens, gather
from stillroom.students.vocabulary import ids_of, parts_of_merges

Spell = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Respelled(Tokens):
    """Training texts of which each piece, whenever some are taken, is spelled by smaller ones with a chance of `share`.

    table: as `spellings` gives it; limit: tokens that a text may have; one that would have more stays as it is.
    Spellings depend on seed and rows, so that a resumed run reads the same.
    """

    table: Tokens
    share: float
    limit: int
    seed: int

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Tokens:
        """Some texts, in the order given, spelled anew."""
        texts = super().take(rows)
        spelled = np.random.default_rng((self.seed, *rows.tolist())).random(len(texts.ids)) < self.share
        found = self._read(texts, spelled)
        fits = found.lengths <= self.limit
        return found if fits.all() else self._read(texts, spelled & np.repeat(fits, texts.lengths))

    def padded(self, rows: npt.NDArray[np.integer[Any]], pad: int) -> tuple[Ints, Ints]:
        """Ids and attention mask of some texts, spelled anew, each int64 [len(rows), longest of them, at least 1]."""
        return self.take(rows).padded(np.arange(len(rows)), pad)

    def _read(self, texts: Tokens, spelled: npt.NDArray[np.bool_]) -> Tokens:
        pieces = self.table.take(texts.ids + spelled * (len(self.table) // 2))
        return Tokens(pieces.ids, pieces.offsets[texts.offsets])


def spellings(tokeniser_json: str) -> Tokens:
    """Of the n pieces of a trimmed tokeniser the ids, each by itself, then the ids of the smaller ones that spell each.

    2 n texts in all. What no smaller pieces spell, and every token that stands for something else than its letters,
    spells itself.
    """
    spec = json.loads(tokeniser_json)
    ids = ids_of(spec["model"])
    spell = _WAYS[spec["model"]["type"]](spec["model"])
    added = {token["content"] for token in spec["added_tokens"]}
    alone = [[index] for index in range(len(ids))]
    found = list(alone)
    for name in ids.keys() - added:
        found[ids[name]] = [ids[part] for part in spell(name)] or alone[ids[name]]
    return gather([*alone, *found], lambda some: some)


def _word_pieces(model: Mapping[str, Any]) -> Spell:
    """As WordPiece cuts a word, the longest piece first, were the piece itself not there."""
    prefix, known = model.get("continuing_subword_prefix", "##"), model["vocab"]

    def spell(piece: str) -> list[str]:
        letters = piece.removeprefix(prefix)
        parts: list[str] = []
        start = 0
        while start < len(letters):
            front = prefix if start or piece != letters else ""
            ends = range(len(letters) if start else len(letters) - 1, start, -1)
            end = next((end for end in ends if front + letters[start:end] in known), None)
            if end is None:
                return []
            parts.append(front + letters[start:end])
            start = end
        return parts

    return spell


def _merged(model: Mapping[str, Any]) -> Spell:
    """The two parts that BPE merges into the piece."""
    parts = parts_of_merges(model)
    return lambda piece: parts.get(piece, ())


def _likeliest(model: Mapping[str, Any]) -> Spell:
    """The two pieces of a Unigram model that are the likeliest to spell it."""
    scores = dict(model["vocab"])

    def spell(piece: str) -> Sequence[str]:
        pairs = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
        known = [(left, right) for left, right in pairs if left in scores and right in scores]
        return max(known, key=lambda pair: scores[pair[0]] + scores[pair[1]], default=())

    return spell


def _whole(model: Mapping[str, Any]) -> Spell:
    """A model of whole words has no smaller pieces."""
    return lambda piece: ()


_WAYS = {"WordPiece": _word_pieces, "BPE": _merged, "Unigram": _likeliest, "WordLevel": _whole}
