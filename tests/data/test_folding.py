import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.folding import folded, words


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(st.text(st.characters(codec="utf-8")))
def test_both_unicode_forms_fold_alike(text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert folded(composed) == folded(decomposed)
    assert words(composed) == words(decomposed)


def test_white_space_goes_and_case_stays() -> None:
    assert folded(" The\tUS \n team\u00a0won ") == "The US team won"


def test_words_drop_case_and_punctuation_and_part_chinese() -> None:
    assert words("It's GREAT, isn't it? 我的卡") == ["it", "s", "great", "isn", "t", "it", "我", "的", "卡"]
