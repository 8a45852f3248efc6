import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.duplicates import near_groups, reappearing, shingles

TEXTS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join), max_size=25)
THRESHOLDS = st.sampled_from([0.2, 0.5, 0.75, 0.9, 1.0])


def similar(one: str, other: str, threshold: float) -> bool:
    first, second = set(shingles(one)), set(shingles(other))
    return len(first & second) >= threshold * len(first | second) - 1e-9


@given(TEXTS, THRESHOLDS)
def test_groups_are_the_components_of_all_similar_pairs(texts: list[str], threshold: float) -> None:
    group = list(range(len(texts)))
    for one in range(len(texts)):
        for other in range(one):
            if similar(texts[one], texts[other], threshold):
                group = [group[other] if number == group[one] else number for number in group]
    found = near_groups(texts, threshold).tolist()
    assert {tuple(np.flatnonzero(np.array(found) == number)) for number in found} == {
        tuple(np.flatnonzero(np.array(group) == number)) for number in group
    }
    assert list(dict.fromkeys(found)) == list(range(len(set(found)))), "numbered by first appearance"


@given(TEXTS, TEXTS, THRESHOLDS)
def test_reappearing_misses_nothing_and_invents_nothing(texts: list[str], others: list[str], threshold: float) -> None:
    expected = [any(similar(text, other, threshold) for other in others) for text in texts]
    assert reappearing(texts, others, threshold).tolist() == expected


def test_case_and_punctuation_make_near_duplicates() -> None:
    assert near_groups(["Where is my card?", "where is my CARD", "where is my key"], 0.9).tolist() == [
        0,
        0,
        1,
    ]


def test_texts_without_words_are_told_apart() -> None:
    assert near_groups(["👍", "👎", " 👍 ", "..."], 0.9).tolist() == [0, 1, 0, 2]


def test_near_duplicates_of_near_duplicates_share_a_group() -> None:
    words = [f"w{number}" for number in range(40)]
    chain = [" ".join(words), " ".join(["x", *words[1:]]), " ".join(["x", *words[1:-1], "y"])]
    assert not similar(chain[0], chain[2], 0.92)
    assert near_groups(chain, 0.92).tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [3000])
def test_a_template_filled_thousands_of_times_stays_quick(count: int) -> None:
    frame = [f"w{number}" for number in range(70)]
    texts = [" ".join([*frame[:30], f"number{number}", *frame[30:]]) for number in range(count)]
    assert set(near_groups(texts, 0.9).tolist()) == {0}
    assert reappearing(texts[:1000], texts[1000:], 0.9).all()
