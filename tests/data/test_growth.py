import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.duplicates import reappearing
from stillroom.data.folding import folded
from stillroom.data.growth import grow
from stillroom.params import GrowthParams

WORDS = st.sampled_from(["card", "app", "lost", "Card", "new", "?", "naïve", "数"])
TEXT = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
SETTINGS = GrowthParams(factor=3, word_drop=0.3)
LONG = [f"word{number} of the sentence that tells thing {number} in many words" for number in range(40)]


def is_part(text: str, whole: str) -> bool:
    """Whether the words of a text stand in another in the same order."""
    words = iter(whole.split())
    return all(word in words for word in text.split())


@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=4), st.integers(0, 3))
def test_grown_texts_are_new_parts_of_training_texts_and_far_from_held_out_ones(
    texts: list[str], held_out: list[str], seed: int
) -> None:
    grown, refused = grow(texts, held_out, SETTINGS, 0.9, seed)
    assert len(set(grown)) == len(grown) <= SETTINGS.factor * len(texts)
    assert refused >= 0
    for text in grown:
        assert text.strip()
        assert text not in {folded(one) for one in [*texts, *held_out]}
        assert any(is_part(text, folded(whole)) for whole in texts)
    assert not reappearing(grown, held_out, 0.9).any()


def test_what_grows_from_a_text_depends_on_that_text_alone() -> None:
    few, _ = grow(LONG[:10], [], SETTINGS, 0.9, 0)
    many, _ = grow(LONG[::-1], [], SETTINGS, 0.9, 0)
    assert set(few) <= set(many)
    assert len(many) > len(few) > 20


def test_another_seed_grows_other_texts() -> None:
    one, other = (set(grow(LONG, [], SETTINGS, 0.9, seed)[0]) for seed in (0, 1))
    assert len(one & other) < len(one) / 2


def test_the_share_of_lost_words_is_as_asked() -> None:
    words = [f"word{number}" for number in range(500)]
    grown, _ = grow([" ".join(words)], [], GrowthParams(factor=20, word_drop=0.25), 0.9, 0)
    kept = sum(len(text.split()) for text in grown) / (len(grown) * len(words))
    assert kept == pytest.approx(0.75, abs=0.02)


def test_a_text_near_a_held_out_one_is_refused_and_counted() -> None:
    free, none_refused = grow(LONG, [], SETTINGS, 0.9, 0)
    held_out = [free[0].upper() + "!", free[5]]
    grown, refused = grow(LONG, held_out, SETTINGS, 0.9, 0)
    assert none_refused == 0
    assert refused == 2
    assert set(free) - set(grown) == {free[0], free[5]}


def test_a_factor_of_0_grows_nothing() -> None:
    assert grow(LONG, LONG, GrowthParams(), 0.9, 0) == ([], 0)
