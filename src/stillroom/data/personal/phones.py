"""Phone numbers: what libphonenumber takes for one that can be dialled, but no date and no bare order number."""

import re
from collections.abc import Iterator, Sequence

from stillroom.data.personal.forms import Span

_RUN = re.compile(r"[+(]{0,2}\d[\d ()/.\-]{4,}\d", re.ASCII)
"""Digits with what may stand between those of one number."""
_FEWEST = 7
_DATE = re.compile(
    r"(?<![\d./+-])(?:\d{1,2}([./-])\d{1,2}\1(?:19|20)\d\d|(?:19|20)\d\d([./-])\d{1,2}\2\d{1,2})(?!\d)", re.ASCII
)
_CALL = re.compile(
    r"(?<![^\W_])(?<!\[)(?:tel|phone|fon|mobil|cell|call|sms|whatsapp|fax|handy|gsm|m\u00f3vil)[^\W\d_]{0,7}\W{0,3}"
    r"(?:(?:me|us|at|on|is|no|nr|number|nummer|unter|al|au)\W{1,3}){0,2}$",
    re.IGNORECASE,
)
"""What stands before a number that is one to call; no placeholder is such a word."""
_LOOKED_BACK = 40
_DIALLED = re.compile(r"(?<!\d)0\d", re.ASCII)
"""A number that begins with the 0 that is dialled before an area's own."""


class Phones:
    """Finds international numbers of any country, and those of some regions as they are dialled there."""

    def __init__(self, regions: Sequence[str]) -> None:
        from phonenumbers import Leniency, PhoneMetadata

        self._abroad = (None, Leniency.VALID)
        self._with_trunk: list[tuple[str | None, int]] = []
        self._without: list[tuple[str | None, int]] = []
        for region in regions:
            metadata = PhoneMetadata.metadata_for_region(region)
            if metadata is not None and metadata.national_prefix == "0":
                self._with_trunk.append((region, Leniency.VALID))
            else:  # the grouping is what tells a number from others
                self._without.append((region, Leniency.STRICT_GROUPING))

    def __call__(self, text: str) -> Iterator[Span]:
        """Where they stand in a plainly spelt text."""
        text = _DATE.sub(lambda date: "," * len(date[0]), text)
        for run in _RUN.finditer(text):
            if _may_be_meant(text, *run.span()):
                first = max(0, run.start() - 1)
                for start, end in self._dialled(text[first : run.end() + 1]):
                    if _may_be_meant(text, first + start, first + end):
                        yield first + start, first + end

    def _dialled(self, piece: str) -> Iterator[Span]:
        """What can be dialled in a run of digits with the characters on both sides of it, which must be no letters."""
        from phonenumbers import PhoneNumberMatcher

        abroad = [self._abroad] if "+" in piece else []
        trunk = self._with_trunk if _DIALLED.search(piece) else []
        for region, leniency in (*abroad, *trunk, *self._without):
            yield from ((match.start, match.end) for match in PhoneNumberMatcher(piece, region, leniency))


def _may_be_meant(text: str, start: int, end: int) -> bool:
    """Whether these digits may be a phone number: a bare run of them may as well number an order."""
    number = text[start:end]
    if sum(map(str.isdigit, number)) < _FEWEST:
        return False
    bare = number.isdigit() and not number.startswith("0")
    return not bare or _CALL.search(text[max(0, start - _LOOKED_BACK) : start]) is not None
