"""Plain spelling: the same digits, spaces and hyphens in whatever script, and the places that they came from."""

from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.personal.spelling import plain


def test_digits_spaces_hyphens_and_wide_letters_are_spelt_plainly() -> None:
    assert plain("\u0664\u0661\u00a0\uff11\u2011\u0967\u2212\uff20\uff45") == ("41 1-1-@e", None)


def test_what_cannot_be_seen_is_left_out_and_places_are_kept() -> None:
    spelt, places = plain("a\u200bb\u00adc\ufeff")
    assert spelt == "abc"
    assert places == [0, 2, 4]


@given(st.text())
def test_every_character_comes_from_its_place(text: str) -> None:
    spelt, places = plain(text)
    at = range(len(text)) if places is None else places
    assert len(spelt) == len(at)
    assert "".join(plain(text[place])[0] for place in at) == spelt
