import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stillroom import layout
from stillroom.batching import Tokens, tokenise
from stillroom.params import ComputeParams
from stillroom.students.distil import train
from stillroom.students.material import Material
from stillroom.students.spelling import Respelled, spellings
from stillroom.students.vocabulary import trim
from stillroom.training import Scratch
from tests.students.rows import TRAIN, VALIDATION
from tests.toys import toy_rows, train_tokeniser

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
TEXTS = toy_rows(150, seed=5).text
LIMIT = 256


def trimmed(kind: str) -> Any:
    tokeniser = train_tokeniser(kind, TEXTS)
    pad = next(tokeniser.token_to_id(name) for name in ("[PAD]", "<pad>") if tokeniser.token_to_id(name) is not None)
    tokens = tokenise(tokeniser, TEXTS, LIMIT)
    return Tokenizer.from_str(trim(tokeniser, tokens, 500, pad, False).tokeniser_json)


@pytest.fixture(scope="module", params=KINDS)
def cut(request: pytest.FixtureRequest) -> tuple[Any, Tokens, Tokens]:
    """A trimmed tokeniser, the table of its spellings, the texts in its pieces."""
    tokeniser = trimmed(request.param)
    return tokeniser, spellings(tokeniser.to_str()), tokenise(tokeniser, TEXTS, LIMIT)


def letters(tokeniser: Any, ids: Any) -> str:
    return "".join(tokeniser.id_to_token(int(index)).removeprefix("##") for index in ids)


def test_smaller_pieces_spell_a_piece_or_it_stays_what_it_is(cut: tuple[Any, Tokens, Tokens]) -> None:
    tokeniser, table, _ = cut
    pieces = tokeniser.get_vocab_size()
    assert len(table) == 2 * pieces
    special = {token["id"] for token in json.loads(tokeniser.to_str())["added_tokens"]}
    spelled = 0
    for index in range(pieces):
        assert table.one(index).tolist() == [index]
        found = table.one(pieces + index).tolist()
        assert letters(tokeniser, found) == letters(tokeniser, [index])
        if found != [index]:
            spelled += 1
            assert index not in found
            assert index not in special
    assert (spelled == 0) == (type(tokeniser.model).__name__ == "WordLevel")


def test_a_word_piece_is_spelled_as_the_tokeniser_cuts_a_word_that_lost_it() -> None:
    tokeniser = trimmed("WordPiece")
    spec = json.loads(tokeniser.to_str())
    table, pieces = spellings(tokeniser.to_str()), tokeniser.get_vocab_size()
    compared = 0
    for piece, index in tokeniser.get_vocab().items():
        if len(piece) < 2 or not piece.isalpha():
            continue
        vocabulary = {name: number for name, number in spec["model"]["vocab"].items() if name != piece}
        without = Tokenizer.from_str(json.dumps(spec | {"model": spec["model"] | {"vocab": vocabulary}}))
        assert table.one(pieces + index).tolist() == without.encode(piece).ids
        compared += 1
    assert compared > 20


@given(share=st.floats(0, 1), seed=st.integers(0, 99), rows=st.lists(st.integers(0, len(TEXTS) - 1), max_size=9))
def test_texts_keep_their_letters_their_order_and_their_limit(
    cut: tuple[Any, Tokens, Tokens], share: float, seed: int, rows: list[int]
) -> None:
    tokeniser, table, tokens = cut
    limit = int(tokens.lengths.max()) + 2
    texts = Respelled(tokens.ids, tokens.offsets, table, share, limit, seed)
    chosen = np.array(rows, dtype=np.int64)
    found, plain = texts.take(chosen), tokens.take(chosen)
    for place in range(len(rows)):
        assert letters(tokeniser, found.one(place)) == letters(tokeniser, plain.one(place))
    assert (found.lengths <= limit).all()
    assert (found.lengths >= plain.lengths).all()
    np.testing.assert_array_equal(texts.take(chosen).ids, found.ids)
    ids, mask = texts.padded(chosen, pad=0)
    np.testing.assert_array_equal(mask.sum(axis=1), found.lengths)
    np.testing.assert_array_equal(ids[mask.astype(bool)], found.ids)


def test_as_many_pieces_are_spelled_as_asked_and_others_each_time() -> None:
    tokeniser = trimmed("WordPiece")
    table, tokens = spellings(tokeniser.to_str()), tokenise(tokeniser, TEXTS, LIMIT)
    can = table.lengths[len(table) // 2 :][tokens.ids] > 1

    def share(asked: float, rows: Any, seed: int = 0) -> float:
        texts = Respelled(tokens.ids, tokens.offsets, table, asked, 10_000, seed)
        more = texts.take(rows).lengths.sum() - tokens.lengths.sum()
        return float(more / (table.lengths[len(table) // 2 :][tokens.ids] - 1).sum())

    every = np.arange(len(tokens))
    assert can.sum() > 500
    assert share(0.0, every) == 0
    assert share(1.0, every) == 1
    assert share(0.2, every) == pytest.approx(0.2, abs=0.05)
    assert len({share(0.2, every), share(0.2, every[::-1]), share(0.2, every, seed=1)}) == 3


def test_a_student_learns_to_read_words_that_its_vocabulary_lacks(
    settings_of: Callable[..., Any],
    material_of: Callable[..., Material],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))

    def read(dropout: float) -> float:
        """Loss on validation texts, every word of them spelled."""
        shape = {"epochs": 20, "dimensions": 16, "hidden": 32, "batch_rows": 16, "learning_rate": 0.01}
        settings = settings_of("static", **shape, piece_dropout=dropout)
        material = material_of(settings, False, settings.signals)
        machine = ComputeParams(threads=1, precision="fp32", device="cpu")
        student, _ = train(material, settings, TRAIN, VALIDATION, "student", 0, machine, Scratch(str(dropout)))
        table, tokens = spellings(material.tokeniser_json), material.validation_tokens
        texts = Respelled(tokens.ids, tokens.offsets, table, 1.0, 10_000, 0).take(np.arange(len(tokens)))
        logits = student.eval()(torch.from_numpy(texts.ids.astype(np.int64)), torch.from_numpy(texts.offsets))
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(VALIDATION.label)).item()

    assert read(0.3) < 0.8 * read(0.0)
