"""The words that a checkpoint's own masked-language head proposes in the place of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stillroom.errors import InputError
from stillroom.teacher.model import load_masked
from stillroom.teacher.tokeniser import mask_token, pad_id, read_tokeniser

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_TOKENS = 128
_LIKELIEST = 10
_LOGITS = 1 << 26
"""Tokens read of a text, words drawn from for each place, and logits held at a time."""


class MaskedHead:
    """A checkpoint before any fine-tuning, which fills covered words with single-token words that fit the others."""

    def __init__(self, checkpoint: Path, where: torch.device, shown: str) -> None:
        """Raises InputError for a checkpoint without a masked-language head or a mask token."""
        self._model = load_masked(checkpoint, shown).to(where)
        config = self._model.config
        positions = getattr(config, "max_position_embeddings", None) or _TOKENS
        self._tokeniser = read_tokeniser(checkpoint, min(_TOKENS, positions - 2))
        self._mask = mask_token(checkpoint, shown)
        self._pad = pad_id(checkpoint)
        self._where = where
        self._ids, self._words = _whole_words(self._tokeniser, config.vocab_size)
        if len(self._ids) <= _LIKELIEST:
            raise InputError(
                f"{shown}: its vocabulary has no {_LIKELIEST} whole words; take replace out of growth.methods"
            )

    def replaced(self, words: Sequence[str], covered: Mask, draws: Floats) -> list[list[str]]:
        """The words, once for each row of `covered` [variants, words], with each covered one drawn anew by `draws`.

        A word is drawn from the likeliest, never the one that stood there, by their probabilities. All variants are
        computed together and no other text with them, so that they depend on nothing else. A covered word beyond the
        tokens that are read stays. A text that holds the mask token itself has no variants.
        """
        if any(self._mask in word for word in words):
            return []
        rows = [
            " ".join(self._mask if hidden else word for word, hidden in zip(words, row, strict=True)) for row in covered
        ]
        encoded = self._tokeniser.encode_batch(rows)
        size = max(1, _LOGITS // (max(map(len, encoded)) * self._model.config.vocab_size))
        made: list[list[str]] = []
        for start in range(0, len(rows), size):
            scores = self._scores([encoding.ids for encoding in encoded[start : start + size]])
            for row, found in enumerate(scores, start):
                made.append(list(words))
                places = np.flatnonzero(covered[row]).tolist()
                for place, (values, numbers) in zip(places, found, strict=False):
                    made[row][place] = self._drawn(words[place], values, numbers, draws[row, place])
        return made

    def _scores(self, rows: Sequence[Sequence[int]]) -> list[list[tuple[Floats, npt.NDArray[np.int64]]]]:
        """For each mask of each row the scores and numbers of the words that fit best, best first."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows], device=self._where)
        lengths = torch.tensor([len(row) for row in rows], device=self._where)
        attention = (torch.arange(width, device=self._where) < lengths[:, None]).long()
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=attention).logits
        masks = ids == self._tokeniser.token_to_id(self._mask)
        best = logits[masks][:, self._ids.to(self._where)].float().topk(_LIKELIEST + 1)
        values, numbers = best.values.double().cpu().numpy(), best.indices.cpu().numpy()
        pairs = iter(zip(values, numbers, strict=True))
        return [[next(pairs) for _ in range(count)] for count in masks.sum(dim=1).tolist()]

    def _drawn(self, word: str, values: Floats, numbers: npt.NDArray[np.int64], draw: float) -> str:
        others = [at for at, number in enumerate(numbers) if not _same(self._words[number], word)][:_LIKELIEST]
        weights = np.exp(values[others] - values[others[0]])
        chosen = int(np.searchsorted(np.cumsum(weights), draw * weights.sum(), side="right"))
        return self._words[int(numbers[others[min(chosen, len(others) - 1)]])]


def _same(one: str, other: str) -> bool:
    return one.casefold() == "".join(filter(str.isalnum, other)).casefold()


def _whole_words(tokeniser: Any, known: int) -> tuple[torch.Tensor, list[str]]:
    """Ids and spellings of the tokens that are a whole word: read behind another word, it is that one token."""
    ids = range(min(known, tokeniser.get_vocab_size()))
    spelt = [tokeniser.decode([number]).strip() for number in ids]
    before = tokeniser.encode("a", add_special_tokens=False).ids
    read = tokeniser.encode_batch([f"a {word}" for word in spelt], add_special_tokens=False)
    whole = [
        number
        for number, word, encoding in zip(ids, spelt, read, strict=True)
        if word.isalnum() and encoding.ids == [*before, number]
    ]
    return torch.tensor(whole), [spelt[number] for number in whole]
