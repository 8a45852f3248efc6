"""E-mail addresses, cards, IBANs and IP addresses: found where they are meant, not where digits only look like it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban, luhn

from stillroom.data.personal.forms import cards, emails, ibans, ip_addresses


def shown(finder, text: str) -> list[str]:  # type: ignore[no-untyped-def]
    return [text[start:end] for start, end in finder(text)]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("write to max.mustermann@example.org.", "max.mustermann@example.org"),
        ("<a+b@x.de>", "a+b@x.de"),
        ("'o'brien@mail.example.co.uk'", "o'brien@mail.example.co.uk"),
        ("mailto:info@x-y.com?subject", "info@x-y.com"),
        ("f\u00fcr j\u00fcrgen@b\u00fccher.example,", "j\u00fcrgen@b\u00fccher.example"),
        ("(A_B%c@SUB.EXAMPLE.ORG)", "A_B%c@SUB.EXAMPLE.ORG"),
        ("anna@example.com- thanks", "anna@example.com"),
        ("_anna@example.com_", "_anna@example.com"),
        ("anna@example.com-Thanks", "anna@example.com"),
        ("anna@example.com.2 of them", "anna@example.com"),
        ("anna@xn--80ak6aa92e.xn--p1ai", "anna@xn--80ak6aa92e.xn--p1ai"),
        ("-anna@example.com", "anna@example.com"),
        ("so\u2026...anna@my-shop.de-hosting.example", "anna@my-shop.de-hosting.example"),
    ],
)
def test_an_address_is_found_without_what_stands_beside_it(text: str, address: str) -> None:
    assert shown(emails, text) == [address]


@pytest.mark.parametrize(
    "text", ["@handle", "a@b", "x@localhost", "5.99 @3", "a@1.2.3", "@media print", "a @ b.de", "a@.de", "a@b.c3"]
)
def test_an_at_alone_is_no_address(text: str) -> None:
    assert shown(emails, text) == []


CARDS = {
    "Visa": "4111111111111111",
    "Mastercard": "5555555555554444",
    "Mastercard, new range": "2221000000000009",
    "American Express": "378282246310005",
    "Diners Club": "30569309025904",
    "Discover": "6011111111111117",
    "JCB": "3530111333300000",
    "Maestro": "6759649826438453",
}


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS.keys())
def test_a_card_is_found_by_its_check_digit(number: str) -> None:
    assert shown(cards, f"it is {number}, thanks") == [number]
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert shown(cards, f"it is {wrong}, thanks") == []


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("4111 1111 1111 1111 12/27", "4111 1111 1111 1111"),
        ("4111-1111-1111-1111", "4111-1111-1111-1111"),
        ("3782 822463 10005", "3782 822463 10005"),
        ("1234 4111 1111 1111 1111", "4111 1111 1111 1111"),
    ],
)
def test_a_card_is_found_in_the_groups_in_which_it_is_written(text: str, card: str) -> None:
    assert shown(cards, text) == [card]


@pytest.mark.parametrize(
    "text",
    ["A4111111111111111", "41111111111111112222", "99-4111111111111111", "4111111111111111-3", "1411111111111111"],
)
def test_a_card_s_digits_within_another_number_are_none(text: str) -> None:
    assert shown(cards, text) == []


def test_few_long_numbers_look_like_cards() -> None:
    """Order numbers of 16 digits: one in ten has Luhn's check digit, few of these an issuer's first digits as well."""
    numbers = [f"{random.Random(seed).randrange(10**15, 10**16)}" for seed in range(5000)]
    passing = sum(map(luhn.is_valid, numbers))
    assert passing > 300
    assert sum(bool(shown(cards, number)) for number in numbers) < passing / 2


IBANS = ["DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606", "NO9386011117947"]


@pytest.mark.parametrize("number", IBANS)
@pytest.mark.parametrize("separator", ["", " ", "-"])
def test_an_iban_is_found_as_long_as_its_country_has_it(number: str, separator: str) -> None:
    written = separator.join(number[at : at + 4] for at in range(0, len(number), 4))
    assert shown(ibans, f"to {written} bis 4711 please") == [written]
    assert shown(ibans, f"to {written.lower()}.") == [written.lower()]


@given(st.sampled_from(IBANS), st.integers(4, 26), st.integers(1, 9))
def test_an_iban_with_another_digit_is_none(number: str, at: int, by: int) -> None:
    at = min(at, len(number) - 1)
    if number[at].isdigit():
        wrong = number[:at] + str((int(number[at]) + by) % 10) + number[at + 1 :]
        assert not iban.is_valid(wrong)
        assert shown(ibans, wrong) == []


def test_an_iban_of_no_country_is_none() -> None:
    digits = next(f"{n:02}" for n in range(2, 99) if shown(ibans, f"DE{n:02}370400440532013000"))
    assert digits == "89"
    assert shown(ibans, "XX89370400440532013000") == []


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "192.168.0.17", "2001:db8::8a2e:370:7334", "fe80::1", "2001:0:0:0:0:0:0:1"]
)
def test_addresses_that_a_machine_may_have_are_found(address: str) -> None:
    assert shown(ip_addresses, f"from {address}, at night") == [address]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "999.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "v1.2.3.4",
        "12:30:45",
        "00:1a:2b:3c:4d:5e",
    ],
)
def test_what_is_no_machine_s_address_is_not_found(text: str) -> None:
    assert shown(ip_addresses, text) == []


@pytest.mark.parametrize("finder", [emails, cards, ibans, ip_addresses])
@pytest.mark.parametrize(
    "piece",
    ["a", "a'", "a.", "a@", "1", "1 ", "1.", "a:", "DE89", "a@a.", "1-", ":", "-a", "--a", "..", "a@xn--", "a@b.c-"],
)
def test_no_text_of_the_largest_size_takes_long(finder, piece: str) -> None:  # type: ignore[no-untyped-def]
    """Steps must grow with the length alone: this would take hours if they grew with its square or worse."""
    list(finder(piece * (100_000 // len(piece)) + "@"))
