"""From texts to padded batches with little padding: one way for training, capture and the runtime.

Needs numpy and tokenizers only, because the runtime of a shipped package uses it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stillroom.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_CHUNK_TEXTS = 1024
_LONG_CHARS_PER_TOKEN = 10

Text = TypeVar("Text")


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts in one flat array.

    ids: int32 [total]; offsets: int64 [n + 1], text i owns ids[offsets[i]:offsets[i + 1]].
    """

    ids: npt.NDArray[np.int32]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Number of tokens of each text, [n]."""
        return np.diff(self.offsets)

    def one(self, row: int) -> npt.NDArray[np.int32]:
        """The ids of one text."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def first(self, count: int) -> "Tokens":
        """The first texts."""
        return Tokens(self.ids[: self.offsets[count]], self.offsets[: count + 1])

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> "Tokens":
        """Some texts, in the order given."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Tokens(self.ids[np.repeat(self.offsets[rows], lengths) + within], offsets)

    def padded(self, rows: npt.NDArray[np.integer[Any]], pad: int) -> tuple[Ints, Ints]:
        """Ids and attention mask of some texts, each int64 [len(rows), longest of them, at least 1]."""
        lengths = self.lengths[rows]
        width = max(int(lengths.max(initial=0)), 1)
        column = np.arange(width)
        mask = column[None, :] < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        ids[mask] = self.ids[(self.offsets[rows, None] + column[None, :])[mask]]
        return ids, mask.astype(np.int64)


def load_tokeniser(path: Path, max_length: int) -> Any:
    """Load a tokenizer.json that truncates to max_length tokens, special tokens included, and never pads.

    Raises InputError if the file is missing or holds no tokeniser.
    """
    from tokenizers import Tokenizer

    try:
        tokeniser = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokeniser ({' '.join(str(error).split())[:200]})") from error
    tokeniser.no_padding()
    tokeniser.enable_truncation(max_length)
    return tokeniser


def tokenise(tokeniser: Any, texts: Sequence[str | tuple[str, str]], max_length: int) -> Tokens:
    """Tokenise texts, or pairs of texts, in order."""
    return gather(texts, lambda chunk: [encoding.ids for encoding in encode(tokeniser, chunk, max_length)])


def gather(texts: Sequence[Text], read: Callable[[Sequence[Text]], Sequence[Sequence[int]]]) -> Tokens:
    """Tokens of texts whose ids are read a chunk at a time, so that few are held as lists."""
    parts: list[npt.NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        found = read(texts[start : start + _CHUNK_TEXTS])
        parts.append(np.fromiter(chain.from_iterable(found), dtype=np.int32))
        lengths.extend(map(len, found))
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Tokens(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), offsets)


def encode(tokeniser: Any, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Any]:
    """Encodings of texts with the ids that whole texts give, though of a long one the first words are read.

    A tokeniser may drop words or join them (control characters, accents alone); a text whose first words fill
    less than max_length is read whole. Pairs are always read whole.
    """
    starts = [shortened(text, max_length) if isinstance(text, str) else text for text in texts]
    encodings: list[Any] = tokeniser.encode_batch_fast(starts)
    for row, start in enumerate(starts):
        if len(start) < len(texts[row]) and len(encodings[row].ids) < max_length:
            encodings[row] = tokeniser.encode_batch_fast([texts[row]])[0]
    return encodings


def shortened(text: str, max_length: int) -> str:
    """The first max_length words of a long text: if each gives a token or more, truncation sees the same ids.

    Keeps the time of one prediction bounded by max_length, whatever the length of the text.
    """
    if len(text) <= _LONG_CHARS_PER_TOKEN * max_length:
        return text
    match = _first_words(max_length).match(text)
    return match.group() if match else text


@lru_cache(maxsize=8)
def _first_words(count: int) -> re.Pattern[str]:
    # words end at white space that no tokeniser takes for a letter; possessive, so that matching is linear
    word, space = r"[^ \t\r\n]++", r"[ \t\r\n]++"
    return re.compile(rf"(?:{space})?{word}(?:{space}{word}){{{count - 1}}}(?=[ \t\r\n])")


def in_batches(tokens: Tokens, budget: int, answer: Callable[[Ints, Ints], Floats]) -> Floats:
    """Answers [texts, classes] in order, of one text or more; answer: padded ids and mask of some to theirs."""
    batches = token_batches(tokens.lengths, budget)
    found = np.concatenate([answer(*tokens.padded(rows, pad=0)) for rows in batches])
    result = np.empty_like(found)
    result[np.concatenate(batches)] = found
    return result


def token_batches(lengths: Ints, budget: int, generator: np.random.Generator | None = None) -> list[Ints]:
    """Cut rows into batches of similar length whose padded cells stay within a budget of tokens.

    Without a generator the order is by length (inference); with one, rows of near lengths mix and the batches
    come in random order (training). A row longer than the budget stands alone.
    """
    key: npt.NDArray[Any] = lengths
    if generator is not None:
        key = lengths * generator.uniform(0.9, 1.1, size=len(lengths)) + generator.uniform(0, 1, size=len(lengths))
    order = np.argsort(key, kind="stable")
    batches: list[Ints] = []
    start, widest = 0, 0
    for position, row in enumerate(order):
        widest_with = max(widest, int(lengths[row]), 1)
        if position > start and (position - start + 1) * widest_with > budget:
            batches.append(order[start:position])
            start, widest_with = position, max(int(lengths[row]), 1)
        widest = widest_with
    if len(order):
        batches.append(order[start:])
    if generator is not None:
        generator.shuffle(batches)
    return batches
