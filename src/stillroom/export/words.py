"""Text to token ids as the tokenizers library gives them, but from words that were met before, in a fifth of its time.

A WordPiece tokeniser after BERT's rules treats each word for itself: the ids of a text are those of its words in a
row. Only where this is sure, in printable ASCII in which no special token can begin, is a text read this way.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from stillroom.batching import encode

WORDS_KEPT = 8_192
"""2 MB of usual words, some 35 MB of the worst; the least recently used word goes first."""
_CHARS_PER_TOKEN = 8
_WORD_CHARS = 100
_WORDS = re.compile("[A-Za-z0-9]+|[^A-Za-z0-9 ]")
_LONG_WORD = re.compile(f"[A-Za-z0-9]{{{_WORD_CHARS + 1}}}").search


class Reader:
    """Reads texts for one tokeniser, which truncates to max_length. Safe to share between threads.

    Texts of more than 8 characters a token of max_length, and those with a word of more than 100, are left to the
    library, which bounds what is kept.
    """

    def __init__(self, tokeniser: Any, max_length: int) -> None:
        self._tokeniser = tokeniser
        self._max_length = max_length
        self._lower = getattr(tokeniser.normalizer, "lowercase", False)
        self._is_plain = re.compile(_plain(tokeniser, _CHARS_PER_TOKEN * max_length)).fullmatch

        @lru_cache(maxsize=WORDS_KEPT)
        def ids_of(word: str) -> tuple[int, ...]:
            return tuple(tokeniser.encode_batch_fast([word])[0].ids)

        self._ids_of = ids_of

    def one(self, text: str) -> list[int]:
        """The ids of a text."""
        if self._sure_of(text):
            return self._by_words(text)
        ids: list[int] = encode(self._tokeniser, [text], self._max_length)[0].ids
        return ids

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; those that the library must read are given to it together."""
        found = [self._by_words(text) if self._sure_of(text) else None for text in texts]
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        rest = iter(encode(self._tokeniser, left, self._max_length) if left else ())
        return [next(rest).ids if ids is None else ids for ids in found]

    def _sure_of(self, text: str) -> bool:
        return self._is_plain(text) is not None and not (len(text) > _WORD_CHARS and _LONG_WORD(text))

    def _by_words(self, text: str) -> list[int]:
        words = _WORDS.findall(text.lower() if self._lower else text)
        return list(chain.from_iterable(map(self._ids_of, words)))[: self._max_length]


def _plain(tokeniser: Any, max_chars: int) -> str:
    """Pattern of the texts that may be read by words; for a tokeniser of another kind it matches none."""
    from tokenizers import models, normalizers, pre_tokenizers

    if not (
        isinstance(tokeniser.model, models.WordPiece)
        and isinstance(tokeniser.normalizer, normalizers.BertNormalizer)
        and isinstance(tokeniser.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and tokeniser.post_processor is None
    ):
        return r"(?!)"
    added = [token.content for token in tokeniser.get_added_tokens_decoder().values()]
    # some are looked for in the text as it is, others as they are normalised themselves: É may begin where e stands
    first = {form[:1] for content in added for form in (content, tokeniser.normalizer.normalize_str(content))}
    begins = {form for sign in first for form in (sign.lower(), sign.upper())}
    signs = "".join(re.escape(chr(code)) for code in range(32, 127) if chr(code) not in begins)
    return f"[{signs}]{{1,{max_chars}}}"
