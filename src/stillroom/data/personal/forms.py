"""Forms: e-mail addresses, card numbers, IBANs and IP addresses in plainly spelt text, as (start, end) of each.

What has check digits is found by them; the forms alone would take most order numbers for cards.
"""

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]

BEFORE = r"(?<![^\W_])(?<!\d[.\-/])"
AFTER = r"(?![^\W_])(?![.\-/]\d)"
"""No letter or digit beside it, and no point, hyphen or slash that joins it to another number."""

_EMAIL = re.compile(
    r"(?<!\w)(?<!\w[.+%-])\w[\w.+%'-]{0,63}+@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}"
    r"(?:[Xx][Nn]--[\w-]{0,57}[^\W_]|[^\W\d_]{2,24})(?![^\W_])"
)
"""A domain ends in letters, or in the ASCII form of others (RFC 3492); what follows may be a dash or a sentence."""
_IBAN = re.compile(rf"{BEFORE}(?=[A-Z]{{2}}\d\d(?:[ -]?[0-9A-Z]){{11,30}})", re.IGNORECASE | re.ASCII)
_IBAN_LENGTHS = range(15, 35)
_CARDS = tuple(
    re.compile(rf"{BEFORE}(?=({form}){AFTER})", re.ASCII)
    for form in (
        r"\d{14,19}",
        r"\d{4}(?:[ -]\d{4}){3}",
        r"\d{4}(?:[ -]\d{4}){3}[ -]\d{3}",
        r"\d{4}[ -]\d{6}[ -]\d{4,5}",
    )
)
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|35(?:2[89]|[3-8]\d))(?:\d{12}|\d{15})"  # Discover, UnionPay, JCB
    r"|(?:50\d\d|5[6-8]\d\d|6304|67\d\d)(?:\d{12}|\d{15})"  # Maestro
)
"""First digits and lengths of card numbers that are issued (ISO/IEC 7812)."""
_IPV4 = re.compile(r"(?<![\w.:/-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-])(?!\.\w)", re.ASCII)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])", re.I | re.A
)


def emails(text: str) -> Iterator[Span]:
    """Addresses name@domain.tld, in any script."""
    if "@" in text:
        yield from (found.span() for found in _EMAIL.finditer(text))


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: an issuer's first digits and length, and the check digit of Luhn (ISO/IEC 7812)."""
    from stdnum import luhn

    for form in _CARDS:
        for found in form.finditer(text):
            digits = re.sub(r"\D", "", found[1])
            if _ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
                yield found.span(1)


def ibans(text: str) -> Iterator[Span]:
    """IBANs (ISO 13616): the country's length and structure, and check digits modulo 97."""
    from stdnum import iban

    for found in _IBAN.finditer(text):
        for end in _ends(text, found.start()):
            if iban.is_valid(text[found.start() : end]):
                yield found.start(), end
                break


def ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses that a machine on a network may have; not loopback, multicast or unspecified ones."""
    for form in (_IPV4, _IPV6):
        for found in form.finditer(text):
            try:
                address = ipaddress.ip_address(found[0])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_reserved):
                yield found.span()


def _ends(text: str, start: int) -> Iterator[int]:
    """Where an IBAN that starts here may end: after 15 to 34 letters and digits, one space or hyphen between two."""
    characters, at = 0, start
    while characters < _IBAN_LENGTHS[-1] and at < len(text):
        if not (text[at].isalnum() and text[at].isascii()):
            if text[at] not in " -" or not text[at - 1].isalnum():
                return
        else:
            characters += 1
            if characters in _IBAN_LENGTHS and not text[at + 1 : at + 2].isalnum():
                yield at + 1
        at += 1
