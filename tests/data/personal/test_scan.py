"""The scan: overlaps, redaction, counts, and what it needs."""

import random
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban

from stillroom.data.personal.scan import Scanner, open_scanner
from stillroom.errors import InputError
from stillroom.personal_data_params import KINDS, PersonalDataParams
from tests.data.personal.conftest import Find

VALUES = {
    "email": ["max.mustermann@example.org", "o'brien+shop@mail.example.co.uk"],
    "iban": ["DE89 3704 0044 0532 0130 00", "gb82west12345698765432"],
    "card": ["4111 1111 1111 1111", "378282246310005"],
    "national_id": ["36 574 261 809", "536-90-4399"],
    "ip_address": ["192.168.0.17", "2001:db8::8a2e:370:7334"],
    "phone": ["0170 1234567", "+49 (0)30 901820", "(212) 555-0123"],
}
PLANTED = [(kind, value) for kind, values in VALUES.items() for value in values]
WORDS = st.sampled_from(
    ["where is my order", "4711", "please, ", "2024-11-05", "\u2013", "caf\u00e9", "tel:", "\n", "[EMAIL]"]
)
PIECES = st.lists(st.one_of(WORDS, st.sampled_from(PLANTED)), max_size=8)


def joined(pieces: list[str | tuple[str, str]], between: str = " / ") -> str:
    return between.join(piece if isinstance(piece, str) else piece[1] for piece in pieces)


@pytest.mark.parametrize(("kind", "value"), PLANTED)
def test_each_kind_is_found_and_replaced_and_nothing_else_is(kind: str, value: str, scanner: Scanner) -> None:
    text, hits = scanner.redacted(f"Hello, {value}, where is order 4711?")
    assert text == f"Hello, [{kind.upper()}], where is order 4711?"
    assert hits == {kind: 1}


@given(pieces=PIECES)
def test_no_value_is_left_and_redacting_twice_is_redacting_once(
    pieces: list[str | tuple[str, str]], scanner: Scanner
) -> None:
    text, hits = scanner.redacted(joined(pieces))
    for piece in pieces:
        if not isinstance(piece, str):
            assert piece[1] not in text
            assert hits[piece[0]] > 0  # type: ignore[index]
    assert scanner.redacted(text) == (text, Counter())


@given(pieces=PIECES, between=st.sampled_from(["", " ", "-", ".", "\u00a0", "\u200b"]))
def test_whatever_stands_side_by_side_redacting_twice_is_redacting_once(
    pieces: list[str | tuple[str, str]], between: str, scanner: Scanner
) -> None:
    text, _ = scanner.redacted(joined(pieces, between))
    assert scanner.redacted(text) == (text, Counter())


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("DE89 3704 0044 0532 0130 00", {"iban": 1}),
        ("GB33BUKB20201555555555", {"iban": 1}),
        ("01701234567@example.org", {"email": 1}),
        ("4111111111111111@example.org", {"email": 1}),
        ("max@192.168.0.17", {"ip_address": 1}),
        ("card 4111 1111 1111 1111, call 0170 1234567", {"card": 1, "phone": 1}),
    ],
)
def test_of_two_that_overlap_the_longer_counts(text: str, hits: dict[str, int], find: Find) -> None:
    assert find(text) == hits


def test_a_card_within_an_iban_is_none_even_where_ibans_are_not_asked_for() -> None:
    cards_only = Scanner(PersonalDataParams(kinds=("card",), redact=True))
    digits = iban.calc_check_digits("DExx411111111111111100")
    assert cards_only.redacted(f"DE{digits} 4111 1111 1111 1111 00") == (f"DE{digits} 4111 1111 1111 1111 00", {})
    assert cards_only.redacted("DE00 4111 1111 1111 1111 00")[1] == {"card": 1}


def test_what_is_asked_for_is_found_though_it_could_be_what_is_not() -> None:
    phones = Scanner(PersonalDataParams(kinds=("phone",), regions=("SE",), redact=True))
    assert Scanner(PersonalDataParams(regions=("SE",))).redacted("ring 0701010001")[1] == {"national_id": 1}
    assert phones.redacted("ring 0701010001") == ("ring [PHONE]", {"phone": 1})
    assert phones.redacted("0701010001@example.org") == ("0701010001@example.org", {})


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\u0660\u0661\u0667\u0660 \u0661\u0662\u0663\u0664\u0665\u0666\u0667", "[PHONE]"),
        ("\uff10\uff13\uff10\uff0d\uff11\uff12\uff13\uff14\uff15\uff16\uff17", "[PHONE]"),
        ("4111\u00a01111\u202f1111\u20111111!", "[CARD]!"),
        ("\u00fc max\u200b.m\uff20exa\u00admple.org \u00fc", "\u00fc [EMAIL] \u00fc"),
        ("DE89\u20093704\u20090044\u20090532\u20090130\u200900", "[IBAN]"),
    ],
)
def test_other_scripts_and_spaces_hide_nothing(text: str, clean: str, scanner: Scanner) -> None:
    assert scanner.redacted(text)[0] == clean


@given(text=st.text())
def test_a_text_without_digits_or_an_at_is_kept_as_it_is(text: str, scanner: Scanner) -> None:
    if not any(character.isdecimal() or character in "@\uff20:" for character in text):
        assert scanner.redacted(text) == (text, Counter())


def test_rows_and_hits_are_counted_by_file_whatever_the_order() -> None:
    texts = [*(f"row {value}" for _, value in PLANTED), "nothing", "a@example.org and b@example.org"] * 3
    reports = []
    for seed in range(3):
        scanner = Scanner(PersonalDataParams(regions=("DE", "US")))
        shuffled = random.Random(seed).sample(texts, len(texts))
        assert scanner.over("train", shuffled) == shuffled, "nothing is replaced unless it is asked"
        scanner.over("test", ["nothing"])
        reports.append(scanner.report())
    assert reports[0] == reports[1] == reports[2]
    train, test = (reports[0].files[name] for name in ("train", "test"))
    assert train.texts == len(texts)
    assert train.texts_with_any == len(texts) - 3
    assert train.kinds["email"] == {"texts": 9, "hits": 12}
    assert train.kinds["iban"] == {"texts": 6, "hits": 6}
    assert list(train.kinds) == list(KINDS)
    assert test.texts_with_any == 0
    assert reports[0].hits() == {"email": 12, "iban": 6, "card": 6, "national_id": 6, "ip_address": 6, "phone": 9}


def test_only_what_is_asked_for_is_counted_and_replaced() -> None:
    scanner = Scanner(PersonalDataParams(kinds=("email",), redact=True))
    (text,) = scanner.over("train", ["a@example.org has 4111 1111 1111 1111"])
    assert text == "[EMAIL] has 4111 1111 1111 1111"
    assert scanner.report().files["train"].kinds == {"email": {"texts": 1, "hits": 1}}


def test_countries_are_named_that_libraries_know() -> None:
    with pytest.raises(
        InputError, match=r"data\.personal_data_scan\.regions: 'XX' is no country; use codes of ISO 3166"
    ):
        Scanner(PersonalDataParams(regions=("DE", "XX")))
    with pytest.raises(InputError, match=r"national_id is known of none of HU, LU; leave it out, or name one of AT, "):
        Scanner(PersonalDataParams(regions=("HU", "LU")))
    scanner = Scanner(PersonalDataParams(regions=("HU", "DE")))
    scanner.over("train", ["a"])
    assert scanner.report().national_numbers == ("DE",)


@pytest.mark.parametrize("module", ["stdnum", "phonenumbers"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"needs {module}, .*; install the extra stillroom\[privacy\]") as caught:
        open_scanner(PersonalDataParams(regions=("DE",)))
    assert caught.value.exit_code == 2
    assert open_scanner(None) is None
