"""National numbers: every country's is found as it is written there, and not with another digit."""

import string

import pytest

from stillroom.data.personal.national import COUNTRIES, NationalNumbers

WRITTEN = {
    "AT": ["1237 010180"],
    "AU": ["123 456 782"],
    "BE": ["85.07.30-033.28", "85073003328"],
    "BG": ["7523169263"],
    "BR": ["390.533.447-05"],
    "CA": ["123-456-782"],
    "CH": ["756.9217.0769.85"],
    "CN": ["360426199101010071"],
    "CZ": ["710319/2745"],
    "DE": ["36 574 261 809", "36574261809"],
    "DK": ["211062-5629"],
    "EE": ["36805280109"],
    "ES": ["54362315K", "X-2482300W"],
    "FI": ["131052-308T"],
    "FR": ["2 95 10 99 126 111 93", "295109912611193"],
    "GB": ["943 476 5870"],
    "GR": ["01013099997"],
    "HR": ["33392005961"],
    "IE": ["6433435F"],
    "IL": ["039337423"],
    "IN": ["2341 2341 2346", "ACUPA7085R"],
    "IS": ["120174-3399"],
    "IT": ["RCCMNL83S18D969H"],
    "JP": ["6214 9832 0257"],
    "KR": ["971013-9019902"],
    "LT": ["33309240064"],
    "LV": ["161175-19997"],
    "MX": ["BOXW310820HNERXN09"],
    "NL": ["111222333", "1112.22.333"],
    "NO": ["151086 95088"],
    "PL": ["44051401359"],
    "PT": ["00000000 0 ZZ4", "123 456 789"],
    "RO": ["1630615123457"],
    "SE": ["880320-0016", "19880320-0016"],
    "SI": ["0101006500006"],
    "SK": ["710319/2745"],
    "TR": ["17291716060"],
    "UA": ["1759013776"],
    "US": ["536-90-4399", "912-90-3456"],
    "ZA": ["7503305044089"],
}
BY_FORM = ("DK", "US", "ACUPA7085R")
"""Without check digits."""
CASES = [(country, number) for country, numbers in WRITTEN.items() for number in numbers]


def shown(text: str, *countries: str) -> set[str]:
    return {text[start:end] for start, end in NationalNumbers(countries)(text)}


def test_every_country_has_an_example() -> None:
    assert tuple(WRITTEN) == COUNTRIES


@pytest.mark.parametrize(("country", "number"), CASES)
def test_a_number_is_found_as_it_is_written(country: str, number: str) -> None:
    assert shown(f"mine is {number}, thanks", country) == {number}
    assert shown(f"A{number}") == shown(f"{number}7", country) == set()


@pytest.mark.parametrize(("country", "number"), [case for case in CASES if not set(case) & set(BY_FORM)])
def test_a_number_with_another_digit_is_none(country: str, number: str) -> None:
    others = [
        number[:at] + digit + number[at + 1 :]
        for at in range(len(number))
        if number[at].isdigit()
        for digit in string.digits
        if digit != number[at]
    ]
    taken = sum(bool(shown(other, country)) for other in others)
    assert taken <= len(others) / 5, "what the check digits of some countries let through"


@pytest.mark.parametrize("text", ["order 536904399", "000-12-3456", "666-12-3456", "536-00-4399", "211362-5629"])
def test_what_has_no_check_digits_must_have_the_form(text: str) -> None:
    assert shown(text, "US", "DK") == set()


def test_a_country_whose_numbers_are_not_known_is_left_out() -> None:
    assert NationalNumbers(["HU", "DE", "XX"]).countries == ["DE"]
