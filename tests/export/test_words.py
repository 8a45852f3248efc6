"""Reading by words gives the library's own ids, for any text and any tokeniser; only the time differs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

from stillroom.export import words
from stillroom.export.words import Reader
from tests.toys import toy_rows, train_tokeniser

TEXTS = toy_rows(60, seed=3).text
LENGTH = 12
KINDS = ("plain", "cased", "specials", "added", "accented", "BPE", "Unigram", "WordLevel")
pieces = st.sampled_from(
    ["my", "Parcel", "n7", "can't", "[PAD]", "[pad]", "[", "Ω", "é", "\t", "\x00", "😀", "--", "a.b", "x" * 120, "zq9"]
)


@cache
def tokeniser_of(kind: str) -> Any:
    """A truncating tokeniser: BERT's without special tokens around a text, as packages of static students have it,
    variants of it, and other kinds."""
    tokeniser = train_tokeniser(kind if kind in KINDS[5:] else "WordPiece", TEXTS)
    if kind in ("plain", "cased", "added", "accented"):
        told = json.loads(tokeniser.to_str()) | {"post_processor": None}
        tokeniser = Tokenizer.from_str(json.dumps(told))
    if kind == "cased":
        tokeniser.normalizer = normalizers.BertNormalizer(lowercase=False)
    if kind == "added":
        tokeniser.add_tokens([AddedToken("My parcel", normalized=True)])
    if kind == "accented":
        tokeniser.add_tokens([AddedToken("École normale", normalized=True, special=False)])
    tokeniser.no_padding()
    tokeniser.enable_truncation(LENGTH)
    return tokeniser


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(texts=st.lists(st.text(max_size=40) | st.lists(pieces, max_size=20).map(" ".join), max_size=6))
@example(texts=["[PAD]my parcel[CLS]", "MY PARCEL, my parcel!", "", "   ", "my " * 400, "~", "\x7f"])
@example(texts=["ecole normale", "my Ecole normale parcel", "École normale"])
@example(texts=["x" * 100, "x" * 101, "my " + "y1" * 45 + " " + "y1" * 30, "my " + "y1" * 46])
@example(texts=[chr(code) + "my" + chr(code) for code in range(256)])
def test_ids_are_those_of_the_library(kind: str, texts: list[str]) -> None:
    tokeniser = tokeniser_of(kind)
    reader = Reader(tokeniser, LENGTH)
    expected = [tokeniser.encode(text).ids for text in texts]
    assert [reader.one(text) for text in texts] == expected
    assert reader.many(texts) == expected


def test_only_what_is_sure_is_read_by_words() -> None:
    def by_words(kind: str, text: str) -> bool:
        return Reader(tokeniser_of(kind), LENGTH)._sure_of(text)

    assert by_words("plain", "My parcel, please!")
    assert by_words("cased", "My parcel, please!")
    for text in ("", "été", "a\tb", "a [PAD]", "x" * 97):
        assert not by_words("plain", text)
    assert not by_words("added", "My parcel"), "a token begins with m"
    assert by_words("accented", "My parcl")
    assert not by_words("accented", "My parcel"), "a token begins with what becomes an e"
    for kind in ("specials", "BPE", "Unigram", "WordLevel"):
        assert not by_words(kind, "My parcel, please!")


def test_words_that_were_met_before_cost_less_than_the_library() -> None:
    tokeniser = tokeniser_of("plain")
    reader = Reader(tokeniser, LENGTH)

    def taken(read: Any) -> int:
        began = time.perf_counter_ns()
        for text in TEXTS:
            read(text)
        return time.perf_counter_ns() - began

    pairs = [(taken(reader.one), taken(lambda text: tokeniser.encode_batch_fast([text])[0].ids)) for _ in range(20)]
    assert min(own for own, _ in pairs) < 0.8 * min(library for _, library in pairs)


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "WORDS_KEPT", 10)
    tokeniser = tokeniser_of("plain")
    reader = Reader(tokeniser, LENGTH)
    for number in range(200):
        assert reader.one(f"my n{number}") == tokeniser.encode(f"my n{number}").ids
    assert reader._ids_of.cache_info().currsize == 10


def test_no_word_is_kept_that_is_longer_than_any_that_wordpiece_knows() -> None:
    length = 64
    tokeniser = tokeniser_of("plain")
    reader = Reader(tokeniser, length)
    for text in ("my " + "a" * 101, "b" * 400, "my " + "c" * 100, "my " * 100):
        reader.one(text)
        reader.many([text, text])
    assert reader._ids_of.cache_info().currsize == 2
    assert reader._ids_of.cache_info().misses == 2
    for text in ("my " + "c" * 100, "my"):
        reader.one(text)
    assert reader._ids_of.cache_info().misses == 2, "what is kept are my and the word of 100 characters"


def test_threads_share_a_reader() -> None:
    tokeniser = tokeniser_of("plain")
    reader = Reader(tokeniser, LENGTH)
    expected = [tokeniser.encode(text).ids for text in TEXTS]
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: [reader.one(text) for text in TEXTS], range(8)):
            assert found == expected
