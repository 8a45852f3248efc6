from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.duplicates import reappearing
from stillroom.data.folding import folded
from stillroom.data.growth import Floats, Grown, Mask, grow
from stillroom.params import GrowthParams, Method

WORDS = st.sampled_from(["card", "app", "lost", "Card", "new", "?", "naïve", "数"])
TEXT = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
TEXTS = st.lists(TEXT, max_size=12)
METHODS = st.lists(st.sampled_from(["drop", "mask", "mix", "replace"]), min_size=1, unique=True).map(tuple)
LONG = [f"word{number} of the sentence that tells thing {number} in many words" for number in range(40)]
MASK = "[MASK]"


class Shouting:
    """Proposes the covered word itself, louder by its draw."""

    def replaced(self, words: Sequence[str], covered: Mask, draws: Floats) -> list[list[str]]:
        assert covered.shape == draws.shape == (len(covered), len(words))
        return [
            [
                f"{word.upper()}{int(9 * draw)}" if hidden else word
                for word, hidden, draw in zip(words, *row, strict=True)
            ]
            for row in zip(covered, draws, strict=True)
        ]


def grown(texts: Sequence[str], held_out: Sequence[str] = (), seed: int = 0, **settings: object) -> Grown:
    asked = GrowthParams.model_validate({"factor": 3, "word_drop": 0.3, **settings})
    return grow(texts, held_out, asked, 0.9, seed, mask=MASK, proposals=Shouting())


def is_part(text: str, whole: str) -> bool:
    """Whether the words of a text stand in another in the same order."""
    words = iter(whole.split())
    return all(word in words for word in text.split())


@given(TEXTS, st.lists(TEXT, max_size=4), TEXTS, METHODS, st.integers(0, 3))
def test_texts_to_label_are_new_and_far_from_held_out_ones_and_all_counted(
    texts: list[str], held_out: list[str], unlabelled: list[str], methods: tuple[str, ...], seed: int
) -> None:
    settings = GrowthParams.model_validate({"factor": 3, "word_drop": 0.3, "methods": methods})
    made = grow(texts, held_out, settings, 0.9, seed, unlabelled, MASK, Shouting())
    own = {folded(text) for text in unlabelled}
    assert len(set(made.texts)) == len(made.texts) == sum(made.kept.values())
    assert len([text for text in made.texts if text not in own]) <= settings.factor * len(texts)
    for text in made.texts:
        assert text.strip()
        assert text not in {folded(one) for one in [*texts, *held_out]}
    assert not reappearing(made.texts, held_out, 0.9).any()
    free = grow(texts, [], settings, 0.9, seed, unlabelled, MASK, Shouting())
    assert {kind: made.kept[kind] + made.refused[kind] for kind in made.kept} == free.kept
    assert set(made.texts) <= set(free.texts)
    assert set(made.kept) == {*methods, *(["unlabelled"] if unlabelled else [])}


@given(TEXTS, METHODS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(texts: list[str], methods: tuple[str, ...], random: object) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(grown(texts, methods=methods).texts) == set(grown(shuffled, methods=methods).texts)


@pytest.mark.parametrize("methods", [("drop",), ("mask",), ("mix",), ("replace",), ("drop", "mask", "mix", "replace")])
def test_what_grows_from_a_text_depends_on_that_text_alone(methods: tuple[str, ...]) -> None:
    few, many = (set(grown(texts, methods=methods).texts) for texts in (LONG[:10], LONG[::-1]))
    assert few <= many
    assert len(many) > len(few) > 20


@pytest.mark.parametrize("methods", [("drop",), ("mask",), ("mix",), ("replace",)])
def test_another_seed_grows_other_texts(methods: tuple[str, ...]) -> None:
    one, other = (set(grown(LONG, seed=seed, methods=methods).texts) for seed in (0, 1))
    assert len(one & other) < len(one) / 2


@given(TEXT)
def test_dropped_words_leave_a_part(text: str) -> None:
    assert all(is_part(one, text) for one in grown([text], methods=("drop",)).texts)


@given(TEXT)
def test_masked_words_keep_their_place(text: str) -> None:
    for one in grown([text], methods=("mask",)).texts:
        pairs = list(zip(one.split(), text.split(), strict=True))
        assert {new for new, old in pairs if new != old} == {MASK}
        assert any(new == old for new, old in pairs)


@given(TEXT)
def test_replaced_words_are_the_proposed_ones(text: str) -> None:
    for one in grown([text], methods=("replace",)).texts:
        pairs = list(zip(one.split(), text.split(), strict=True))
        assert {new[:-1] == old.upper() for new, old in pairs if new != old} == {True}
        assert any(new == old for new, old in pairs)


@pytest.mark.parametrize("method", ["mask", "replace"])
def test_a_method_without_what_it_needs_of_the_teacher_makes_nothing_else_instead(method: Method) -> None:
    with pytest.raises(ValueError, match="mask needs a mask token, replace needs proposals"):
        grow(LONG, [], GrowthParams(factor=1, methods=(method,)), 0.9, 0)


@given(TEXT)
def test_a_mix_is_one_run_of_words(text: str) -> None:
    words = text.split()
    runs = {tuple(words[at : at + n]) for n in range(1, len(words)) for at in range(len(words) - n + 1)}
    assert {tuple(one.split()) for one in grown([text], methods=("mix",)).texts} <= runs


def test_runs_of_every_length_are_drawn_alike_often() -> None:
    texts = [" ".join(f"word{number}-{place}" for place in range(21)) for number in range(200)]
    made = Counter(len(one.split()) for one in grown(texts, factor=20, methods=("mix",)).texts)
    assert sorted(made) == list(range(1, 21))
    # of 4,000 runs some 200 have each length; equal ones, likelier among the long, are kept once
    assert min(made.values()) > 130
    assert max(made.values()) < 270


def test_the_share_of_lost_words_is_as_asked() -> None:
    words = [f"word{number}" for number in range(500)]
    made = grown([" ".join(words)], factor=40, word_drop=0.25, methods=("drop", "mask"))
    assert made.kept == {"drop": 20, "mask": 20}
    for some in (made.texts[:20], made.texts[20:]):
        left = sum(word != MASK for text in some for word in text.split())
        assert left / (len(some) * len(words)) == pytest.approx(0.75, abs=0.02)


def test_the_factor_is_shared_out_and_a_method_more_leaves_the_others_texts() -> None:
    both = grown(LONG, factor=5, methods=("drop", "mix"))
    dropped = grown(LONG, factor=3)
    assert both.kept["drop"] == len(dropped.texts)
    assert set(dropped.texts) < set(both.texts)
    assert 0 < both.kept["mix"] <= 2 * len(LONG)


def test_a_text_near_a_held_out_one_is_refused_and_counted() -> None:
    free = grown(LONG)
    near = [free.texts[0].upper() + "!", free.texts[5]]
    made = grown(LONG, near)
    assert free.refused == {"drop": 0}
    assert made.refused == {"drop": 2}
    assert set(free.texts) - set(made.texts) == {free.texts[0], free.texts[5]}


def test_unlabelled_texts_join_folded_without_what_is_known_or_held_out() -> None:
    own = ["a  text\nof mine", "a text of mine", LONG[0], LONG[1] + " ", LONG[2].upper() + "!", "another one"]
    made = grow(LONG[:2], LONG[2:], GrowthParams(), 0.9, 0, own)
    assert made == Grown(["a text of mine", "another one"], {"unlabelled": 2, "drop": 0}, {"unlabelled": 1, "drop": 0})


@pytest.mark.parametrize(("own", "refused"), [(LONG[:20], 0), (LONG[20:], 20)])
def test_nothing_joins_from_the_training_file_or_from_held_out_rows(own: list[str], refused: int) -> None:
    made = grow(LONG[:20], LONG[20:], GrowthParams(), 0.9, 0, own)
    assert made.texts == []
    assert made.refused["unlabelled"] == refused


def test_a_factor_of_0_grows_nothing() -> None:
    assert grow(LONG, LONG, GrowthParams(), 0.9, 0).texts == []
