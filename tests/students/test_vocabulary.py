import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from stillroom.batching import Tokens, tokenise
from stillroom.errors import InputError
from stillroom.students.vocabulary import Vocabulary, trim, trimming
from tests.toys import toy_rows, train_tokeniser

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
FALLS_BACK = ("WordPiece", "BPE", "Unigram")
TEXTS = toy_rows(150, seed=5).text
USED = TEXTS[:100]
MAX_LENGTH = 256
WORDS = sorted({word for text in TEXTS for word in text.split()})


@cache
def original(kind: str) -> tuple[Any, Tokens]:
    """A tokeniser trained on all texts, and the tokens of those that a student is trained on."""
    tokeniser = train_tokeniser(kind, TEXTS)
    tokeniser.enable_truncation(MAX_LENGTH)
    return tokeniser, tokenise(tokeniser, USED, MAX_LENGTH)


def padding(tokeniser: Any) -> int:
    found = tokeniser.token_to_id("<pad>")
    return tokeniser.token_to_id("[PAD]") if found is None else found


def trimmed(kind: str, limit: int, special_tokens: bool, unseen: bool = False) -> tuple[Any, Vocabulary]:
    tokeniser, tokens = original(kind)
    vocabulary = trim(tokeniser, tokens, limit, padding(tokeniser), special_tokens, unseen)
    return Tokenizer.from_str(vocabulary.tokeniser_json), vocabulary


every_cut = pytest.mark.parametrize("kind", KINDS)


@every_cut
@given(limit=st.integers(64, 500), special_tokens=st.booleans(), unseen=st.booleans())
def test_kept_ids_stand_for_the_same_pieces_within_the_limit(
    kind: str, limit: int, special_tokens: bool, unseen: bool
) -> None:
    small, vocabulary = trimmed(kind, limit, special_tokens, unseen)
    kept = vocabulary.kept
    assert len(set(kept.tolist())) == len(kept) == small.get_vocab_size() <= limit
    names = [original(kind)[0].id_to_token(int(index)) for index in kept]
    assert [small.id_to_token(new) for new in range(len(kept))] == names
    assert names[vocabulary.pad] in ("[PAD]", "<pad>")


@every_cut
@given(limit=st.integers(64, 500), special_tokens=st.booleans(), unseen=st.booleans())
def test_texts_whose_pieces_are_all_kept_are_encoded_alike(
    kind: str, limit: int, special_tokens: bool, unseen: bool
) -> None:
    tokeniser, _ = original(kind)
    small, vocabulary = trimmed(kind, limit, special_tokens, unseen)
    kept = set(vocabulary.kept.tolist())
    compared = 0
    for text in [*USED, *WORDS]:
        expected = tokeniser.encode(text, add_special_tokens=special_tokens).ids
        if kept.issuperset(expected):
            compared += 1
            assert vocabulary.kept[small.encode(text).ids].tolist() == expected
    assert compared > (10 if limit > 120 else 0)


@every_cut
def test_with_room_for_all_that_is_used_nothing_changes(kind: str) -> None:
    tokeniser, tokens = original(kind)
    small, vocabulary = trimmed(kind, 500, True)
    again = tokenise(small, USED, MAX_LENGTH)
    np.testing.assert_array_equal(vocabulary.kept[again.ids], tokens.ids)
    assert len(vocabulary.kept) < tokeniser.get_vocab_size()


@every_cut
def test_pieces_that_no_training_row_has_take_the_room_that_is_left_in_their_order(kind: str) -> None:
    tokeniser, tokens = original(kind)
    small, vocabulary = trimmed(kind, 500, True, unseen=True)
    assert [small.encode(text).tokens for text in TEXTS] == [tokeniser.encode(text).tokens for text in TEXTS]
    seen = trimmed(kind, 500, True)[1].kept.tolist()
    unseen = vocabulary.kept[len(seen) :].tolist()
    assert vocabulary.kept[: len(seen)].tolist() == seen
    assert len(unseen) > 10
    assert not set(unseen).intersection(tokens.ids.tolist())
    assert unseen == sorted(unseen)
    fewer = trimmed(kind, len(seen) + 7, True, unseen=True)[1].kept.tolist()
    assert len(seen) < len(fewer) <= len(seen) + 7
    assert fewer == vocabulary.kept[: len(fewer)].tolist()


def test_pieces_that_no_text_can_have_take_no_room() -> None:
    spec = json.loads(original("WordPiece")[0].to_str())
    dead = ["[unused0]", "[unused1]", "##a-b", "Capital"]
    spec["model"]["vocab"] |= {name: 1000 + number for number, name in enumerate([*dead, "alive"])}
    tokeniser = Tokenizer.from_str(json.dumps(spec))
    tokens = tokenise(tokeniser, USED, MAX_LENGTH)
    small = Tokenizer.from_str(trim(tokeniser, tokens, 5000, 0, True, unseen=True).tokeniser_json)
    assert [small.token_to_id(name) for name in dead] == [None] * len(dead)
    assert small.token_to_id("alive") is not None


def least_limit(kind: str) -> int:
    """Room for the forced tokens and every letter in every form."""
    tokeniser, tokens = original(kind)
    pieces = {tokeniser.id_to_token(int(index)) for index in tokens.ids}
    letters = {letter for piece in pieces for letter in piece}
    return 5 + (2 if kind == "WordPiece" else 1) * len(letters)


@pytest.mark.parametrize("kind", FALLS_BACK)
@pytest.mark.parametrize("special_tokens", [True, False])
def test_a_known_word_never_becomes_nothing_or_unknown(kind: str, special_tokens: bool) -> None:
    limit = max(64, least_limit(kind))
    small, _ = trimmed(kind, limit, special_tokens)
    unknown = {small.token_to_id(name) for name in ("[UNK]", "<unk>")}
    for word in sorted({word for text in USED for word in text.split()}):
        ids = small.encode(word, add_special_tokens=False).ids
        assert ids, word
        assert not unknown.intersection(ids), word
        pieces = [small.id_to_token(index).removeprefix("##") for index in ids]
        assert "".join(pieces).removeprefix("▁") == word


@pytest.mark.parametrize("kind", FALLS_BACK)
def test_a_smaller_vocabulary_keeps_the_more_frequent_pieces(kind: str) -> None:
    tokeniser, tokens = original(kind)
    counts = np.bincount(tokens.ids, minlength=tokeniser.get_vocab_size())
    small, vocabulary = trimmed(kind, 180, False)
    kept = set(vocabulary.kept.tolist())
    top = [int(index) for index in np.argsort(-counts)[:12]]
    assert kept.issuperset(top)
    smaller, _ = trimmed(kind, max(64, least_limit(kind)), False)
    assert len(tokenise(smaller, USED, MAX_LENGTH).ids) > len(tokenise(small, USED, MAX_LENGTH).ids)


@every_cut
def test_special_tokens_stand_around_a_text_as_before(kind: str) -> None:
    tokeniser, _ = original(kind)
    small, _ = trimmed(kind, 400, True)
    expected = tokeniser.encode("my parcel").tokens
    assert small.encode("my parcel").tokens == expected
    assert expected[0] in ("[CLS]", "<s>")
    for name in ("[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<mask>"):
        before = tokeniser.token_to_id(name)
        assert (small.token_to_id(name) is None) == (before is None)
        if before is not None:
            assert small.encode(name, add_special_tokens=False).ids == [small.token_to_id(name)]


@every_cut
def test_a_bag_of_words_has_no_tokens_around_it_and_its_padding_first(kind: str) -> None:
    small, vocabulary = trimmed(kind, 400, False)
    assert vocabulary.pad == 0
    assert small.encode("").ids == []
    assert not {"[CLS]", "[SEP]", "<s>", "</s>"}.intersection(small.encode("my parcel").tokens)


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordLevel"])
def test_encoders_that_count_positions_from_the_padding_keep_its_id(kind: str) -> None:
    tokeniser, _ = original(kind)
    assert padding(tokeniser) == 1
    small, vocabulary = trimmed(kind, 400, True)
    assert vocabulary.pad == 1
    assert [small.token_to_id(name) for name in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "WordLevel"])
def test_what_was_never_seen_is_unknown_and_not_an_error(kind: str) -> None:
    for special_tokens in (True, False):
        small, _ = trimmed(kind, 400, special_tokens)
        unknown = {small.token_to_id(name) for name in ("[UNK]", "<unk>")} - {None}
        assert unknown.intersection(small.encode("☃").ids)


def test_the_trimmed_tokeniser_neither_pads_nor_truncates_by_itself() -> None:
    tokeniser, tokens = original("WordPiece")
    tokeniser.enable_padding(length=50)
    try:
        vocabulary = trim(tokeniser, tokens, 400, 0, True)
    finally:
        tokeniser.no_padding()
    small = Tokenizer.from_str(vocabulary.tokeniser_json)
    assert (small.padding, small.truncation) == (None, None)


def test_a_bpe_with_other_signs_for_inner_pieces_is_trimmed_too() -> None:
    for settings in ({"continuing_subword_prefix": "##"}, {"end_of_word_suffix": "</w>"}):
        tokeniser = Tokenizer(models.BPE(unk_token="[UNK]", **settings))
        tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(
            vocab_size=250, special_tokens=["[PAD]", "[UNK]"], show_progress=False, **settings
        )
        tokeniser.train_from_iterator(TEXTS, trainer)
        tokens = tokenise(tokeniser, USED, MAX_LENGTH)
        vocabulary = trim(tokeniser, tokens, 250, 0, False)
        small = Tokenizer.from_str(vocabulary.tokeniser_json)
        assert vocabulary.kept[tokenise(small, USED, MAX_LENGTH).ids].tolist() == tokens.ids.tolist()
        vocabulary = trim(tokeniser, tokens, 120, 0, False)
        assert len(vocabulary.kept) <= 120
        small = Tokenizer.from_str(vocabulary.tokeniser_json)
        for word in {word for text in USED for word in text.split()}:
            assert small.token_to_id("[UNK]") not in small.encode(word).ids


def test_tokens_that_only_the_post_processor_names_are_kept() -> None:
    tokeniser = Tokenizer(models.WordLevel({"[PAD]": 0, "<x>": 1, "[UNK]": 2, "my": 3, "<s>": 4}, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokeniser.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 4)])
    tokens = Tokens(np.array([3, 3, 3], np.int32), np.array([0, 3]))
    for special_tokens in (True, False):
        vocabulary = trim(tokeniser, tokens, 64, 0, special_tokens)
        small = Tokenizer.from_str(vocabulary.tokeniser_json)
        expected = ["<s>", "my"] if special_tokens else ["my"]
        assert small.encode("my").tokens == expected


@pytest.mark.parametrize("kind", FALLS_BACK)
def test_more_letters_than_room_keep_the_frequent_ones_within_the_limit(kind: str) -> None:
    letters = [chr(0x4E00 + number) for number in range(200)]
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(letters[:20], 12)) + " " + "".join(letters[at : at + 4]) for at in range(200)]
    tokeniser = train_tokeniser(kind, texts, vocabulary=1000)
    vocabulary = trim(tokeniser, tokenise(tokeniser, texts, MAX_LENGTH), 64, padding(tokeniser), False)
    assert len(vocabulary.kept) <= 64
    small = Tokenizer.from_str(vocabulary.tokeniser_json)
    unknown = {small.token_to_id(name) for name in ("[UNK]", "<unk>")}
    assert not unknown.intersection(small.encode(letters[0] + letters[1]).ids)


def test_added_words_that_are_used_are_kept_and_others_dropped() -> None:
    tokeniser = train_tokeniser("WordPiece", TEXTS)
    tokeniser.add_tokens(["ORDER-CODE", "NEVER-USED"])
    tokens = tokenise(tokeniser, ["my ORDER-CODE is late"] * 3, MAX_LENGTH)
    small = Tokenizer.from_str(trim(tokeniser, tokens, 100, 0, True).tokeniser_json)
    assert small.token_to_id("ORDER-CODE") in small.encode("the ORDER-CODE").ids
    assert small.token_to_id("NEVER-USED") is None


def test_a_tokeniser_of_another_kind_is_refused() -> None:
    class Alien:
        def to_str(self) -> str:
            return json.dumps({"model": {"type": "Alien"}})

    with pytest.raises(InputError, match=r"type 'Alien' cannot be trimmed; WordPiece, BPE, Unigram, WordLevel can"):
        trim(Alien(), Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64)), 100, 0, True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_trimming_loses_is_nothing_with_room_for_all_and_grows_as_room_goes(kind: str) -> None:
    tokeniser, _ = original(kind)
    shares = [
        trimming(tokeniser, trimmed(kind, limit, False)[0], USED) for limit in (tokeniser.get_vocab_size() + 9, 60, 40)
    ]
    assert shares[0]["changed"] == 0.0
    assert shares[0]["unknown"] == shares[0]["unknown_before"]
    assert 0 < shares[1]["changed"] <= shares[2]["changed"] <= 1
    assert [share["pieces_of"] for share in shares] == [tokeniser.get_vocab_size()] * 3
    assert shares[2]["pieces"] <= 40
    if kind == "WordLevel":
        assert shares[0]["unknown"] < shares[1]["unknown"] <= shares[2]["unknown"]


def test_special_tokens_are_no_loss() -> None:
    tokeniser, _ = original("WordPiece")
    tokeniser = Tokenizer.from_str(tokeniser.to_str())
    tokeniser.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert trimming(tokeniser, trimmed("WordPiece", 10_000, False)[0], USED)["changed"] == 0.0
