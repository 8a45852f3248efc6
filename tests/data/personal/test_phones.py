"""Phone numbers: as people write them, and not what numbers orders, days and articles."""

import pytest

from stillroom.data.personal.phones import Phones

FOUND = {
    "DE": ["030 1234567", "(030) 1234567", "0170/1234567", "0170 12 34 567", "+49 (0)30 901820", "0049 30 901820"],
    "FR": ["01 23 45 67 89", "01.23.45.67.89", "+33 1 23 45 67 89"],
    "GB": ["020 7946 0958", "07911 123456", "+44 20 7946 0958"],
    "US": ["(212) 555-0123", "212-555-0123", "+1 212 555 0123"],
    "ES": ["612 345 678", "+34 612 345 678"],
    "PL": ["512 345 678"],
}
NOT_FOUND = [
    "order 1234567890",
    "order 4711-0815-2231",
    "Bestellung 2024-0001234567",
    "05.11.2024",
    "2024-11-05 10:30:22",
    "11/05/2024 12345",
    "ISBN 978-3-16-148410-0",
    "ABC0301234567",
    "12345-67890-12345",
    "it took 3 000 000 steps",
    "2125550123",
    "ordering 2125550123",
    "hotel 2125550123",
    "112",
]


def shown(text: str, *regions: str) -> list[str]:
    return [text[start:end] for start, end in dict.fromkeys(Phones(regions)(text))]


@pytest.mark.parametrize(("region", "number"), [(region, one) for region, some in FOUND.items() for one in some])
def test_a_number_is_found_as_it_is_dialled_in_its_country(region: str, number: str) -> None:
    assert shown(f"please ring {number}, thanks", region) == [number]


@pytest.mark.parametrize("number", ["+49 30 901820", "+34 612 345 678", "+1 212 555 0123"])
def test_a_number_with_plus_is_found_wherever_it_leads(number: str) -> None:
    assert shown(f"ring {number}") == [number]
    assert shown(f"ring {number.replace(' ', '').removeprefix('+')}") == []


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_a_number_is_not_found(text: str) -> None:
    assert shown(text, *FOUND) == []


@pytest.mark.parametrize("word", ["call", "Tel.:", "phone no.", "Telefonnummer", "text me on my cell:", "WhatsApp"])
def test_a_bare_number_is_found_behind_a_word_for_calling(word: str) -> None:
    assert shown(f"{word} 2125550123", "US") == ["2125550123"]


def test_a_day_beside_a_number_does_not_hide_it() -> None:
    assert shown("05.11.2024 030 1234567", "DE") == ["030 1234567"]


@pytest.mark.parametrize(
    "numbers",
    [
        ["030 1234567", "0170 1234567"],
        ["(030) 1234567", "(0170) 1234567", "030 1234568"],
        ["+49 30 901820", "+49 30 901821"],
        ["212-555-0123", "212-555-0124"],
        ["(212) 555-0123", "(212) 555-0124"],
    ],
)
@pytest.mark.parametrize("between", [" ", ", ", " or ", "; ", " / "])
def test_several_numbers_are_several_however_they_are_set_apart(numbers: list[str], between: str) -> None:
    assert shown(f"ring {between.join(numbers)}!", "DE", "US") == numbers


def test_a_long_text_of_digits_ends() -> None:
    assert shown("1 " * 50_000, "DE", "US") == []
