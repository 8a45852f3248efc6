"""Phone numbers: what libphonenumber takes for one that can be dialled, but no date and no bare order number."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from stillroom.data.personal.forms import Span

_RUN = re.compile(r"[+(]{0,2}\d[\d ()/.\-]{4,}\d", re.ASCII)
"""Digits with what may stand between those of one number."""
_NEXT = re.compile(r"(?:\d[ /]|/ )(?=\(?0\d|\+|\(?\d{3}\)?[ -]\d{3}-)", re.ASCII)
"""Where, in a run that is no number or more than one, the next may begin."""
_FEWEST, _MOST = 7, 15
"""Digits of a number (ITU-T E.164)."""
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
        """Where they stand in a plainly spelt text; some twice."""
        text = _DATE.sub(lambda date: "," * len(date[0]), text)
        for run in _RUN.finditer(text):
            found = self._within(text, *run.span())
            yield from found
            cuts = [run.start() + next_one.end() for next_one in _NEXT.finditer(run[0])]
            if cuts and (not found or sum(map(str.isdigit, run[0])) > _MOST):
                for first, last in pairwise([run.start(), *cuts, run.end()]):
                    yield from self._within(text, first, last)

    def _within(self, text: str, first: int, last: int) -> list[Span]:
        """The numbers in a run of digits."""
        if not _may_be_meant(text, first, last):
            return []
        first = max(0, first - 1)
        last += text[last : last + 1].isalpha()
        dialled = [(first + start, first + end) for start, end in self._dialled(text[first:last])]
        return [span for span in dialled if _may_be_meant(text, *span)]

    def _dialled(self, piece: str) -> Iterator[Span]:
        """What can be dialled in a run of digits, with what stands beside it: a letter makes it something else."""
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
