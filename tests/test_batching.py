import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.batching import Tokens, encode, load_tokeniser, shortened, token_batches, tokenise
from tests.toys import toy_rows, toy_tokeniser, train_tokeniser

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
lengths_of_texts = arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 90))


def tokens_of(lengths: Any) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


@cache
def tokeniser_of(kind: str) -> Any:
    return train_tokeniser(kind, toy_rows(60, seed=3).text)


@given(lengths=lengths_of_texts, budget=st.integers(1, 300), seed=st.none() | st.integers(0, 2**32))
def test_batches_hold_every_row_once_within_the_budget(lengths: Any, budget: int, seed: int | None) -> None:
    batches = token_batches(lengths, budget, None if seed is None else np.random.default_rng(seed))
    rows = np.concatenate(batches) if batches else np.zeros(0, np.int64)
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        cells = len(batch) * max(int(lengths[batch].max()), 1)
        assert len(batch) == 1 or cells <= budget


@given(lengths=lengths_of_texts, seed=st.integers(0, 2**32))
def test_the_same_generator_gives_the_same_batches(lengths: Any, seed: int) -> None:
    one, other = (
        [batch.tolist() for batch in token_batches(lengths, 100, np.random.default_rng(seed))] for _ in range(2)
    )
    assert one == other


def test_epochs_differ_and_batches_keep_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 128, size=2000)
    epochs = [token_batches(lengths, 2048, np.random.default_rng((0, epoch))) for epoch in (0, 1)]
    assert [batch.tolist() for batch in epochs[0]] != [batch.tolist() for batch in epochs[1]]
    for batches in (*epochs, token_batches(lengths, 2048)):
        cells = sum(len(batch) * lengths[batch].max() for batch in batches)
        assert lengths.sum() / cells > 0.85
    firsts = [lengths[batch].mean() for batch in epochs[0]]
    assert not np.array_equal(firsts, sorted(firsts)), "training meets short and long batches in random order"


def test_without_a_generator_batches_go_by_length() -> None:
    lengths = np.array([5, 1, 9, 1, 5])
    assert [batch.tolist() for batch in token_batches(lengths, 10)] == [[1, 3], [0, 4], [2]]


@given(lengths=lengths_of_texts, pad=st.integers(0, 9), chosen=st.data())
def test_padded_equals_naive_padding(lengths: Any, pad: int, chosen: st.DataObject) -> None:
    tokens = tokens_of(lengths)
    rows = np.array(chosen.draw(st.lists(st.integers(0, max(len(lengths) - 1, 0)), max_size=8)), np.int64)
    if not len(lengths):
        rows = rows[:0]
    ids, mask = tokens.padded(rows, pad)
    width = max([1, *lengths[rows].tolist()])
    assert ids.shape == mask.shape == (len(rows), width)
    for place, row in enumerate(rows):
        own = tokens.one(int(row)).tolist()
        assert ids[place].tolist() == own + [pad] * (width - len(own))
        assert mask[place].tolist() == [1] * len(own) + [0] * (width - len(own))


@pytest.mark.parametrize("kind", KINDS)
def test_tokenising_many_equals_one_by_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.batching._CHUNK_TEXTS", 7)
    tokeniser = tokeniser_of(kind)
    tokeniser.enable_truncation(12)
    texts = [*toy_rows(25, seed=4).text, "", "   "]
    tokens = tokenise(tokeniser, texts, 12)
    assert len(tokens) == len(texts)
    assert [tokens.one(row).tolist() for row in range(len(texts))] == [tokeniser.encode(t).ids for t in texts]
    assert tokens.lengths.max() == 12
    assert len(tokenise(tokeniser, [], 12)) == 0


# words a tokeniser knows, does not know, strips (zero width, control) or spreads over many tokens; odd gaps
words = st.sampled_from(
    [
        "parcel",
        "my",
        "zzz",
        "été",
        "日本語",
        "a",
        "​",
        "\x1c",
        "\x7f",
        "‍",
        "́",
        "🙂",
        "x" * 30,
        "can't",
        "[SEP]",
    ]
)
gaps = st.sampled_from(
    [" ", "  ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\u00a0", "\u2003", "\u3000", "\u200b", ""]
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400)
@given(parts=st.lists(st.tuples(words, gaps), min_size=1, max_size=80), repeats=st.integers(1, 4))
@example(parts=[("​", " ")] * 60 + [("parcel", " "), ("my", " ")], repeats=1)
@example(parts=[("my", "\x1c")] * 60, repeats=1)
@example(parts=[("a", "\x0b")] * 60 + [("parcel", " ")], repeats=2)
@example(parts=[("🙂", " ")] * 60 + [("my", "")], repeats=1)
@example(parts=[("a", "  ")] * 70, repeats=1)
def test_a_long_text_gives_the_tokens_of_the_whole_text(kind: str, parts: list[tuple[str, str]], repeats: int) -> None:
    tokeniser = tokeniser_of(kind)
    tokeniser.enable_truncation(8)
    text = "".join(word + gap for word, gap in parts) * repeats
    expected = tokeniser.encode(text).ids
    assert encode(tokeniser, [text], 8)[0].ids == expected
    assert tokenise(tokeniser, ["my parcel", text], 8).one(1).tolist() == expected


def test_a_long_text_is_cut_and_a_short_one_is_not() -> None:
    assert shortened("a b " * 20, 8) == "a b " * 20
    assert len(shortened("a b " * 1000, 8).split()) == 8
    assert shortened("x" * 1000, 8) == "x" * 1000


MEBI = 1 << 20


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * (10 * MEBI),
        lambda: " " * (10 * MEBI),
        lambda: "\n" * (5 * MEBI) + "x" * (5 * MEBI),
        lambda: "x" * (5 * MEBI) + " " * (5 * MEBI) + "x",
        lambda: ("x" * 200_000 + " ") * 50,
        lambda: "x " * 127 + "x" * (10 * MEBI),
    ],
    ids=["one word", "spaces", "newlines first", "two words", "long words", "long last word"],
)
def test_finding_the_first_words_of_10_mib_is_linear(make: Callable[[], str]) -> None:
    text = make()
    began = time.process_time()
    shortened(text, 128)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["parcel delayed " * (10 * MEBI // 15), "x" * MEBI], ids=["words", "one word"])
def test_a_text_of_many_mib_is_tokenised(text: str) -> None:
    tokeniser = tokeniser_of("WordPiece")
    tokeniser.enable_truncation(128)
    ids = tokenise(tokeniser, [text], 128).ids
    assert len(ids) == 128 if " " in text else ids.tolist() == tokeniser.encode("☃").ids


def test_a_tokeniser_truncates_and_never_pads(tmp_path: Any) -> None:
    tokeniser = toy_tokeniser(toy_rows(20, seed=1).text)
    tokeniser.enable_padding(length=50)
    tokeniser.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokeniser(tmp_path / "tokenizer.json", 6)
    assert len(loaded.encode("my").ids) == 3
    assert len(loaded.encode("my parcel " * 9).ids) == 6
