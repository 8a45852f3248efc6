"""Scan: every text once; what is found is counted by kind and, if asked, replaced. A value leaves this module only
inside its text."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stillroom.data.manifest import PersonalData, PersonalDataReport
from stillroom.data.personal.forms import Span, cards, emails, ibans, ip_addresses
from stillroom.data.personal.spelling import plain
from stillroom.errors import InputError
from stillroom.events import progress
from stillroom.personal_data_params import KINDS, Kind, PersonalDataParams

_ANY = re.compile(r"[0-9@]|::")
"""What every kind has one of."""
_TOLD_EVERY = 1000


class Scanner:
    """Finds personal data; raises InputError if the libraries lack, or know no such country.

    Of two findings that overlap the longer counts, and of two alike the first in the order of KINDS. What lies inside
    of a longer finding of a kind that is not asked for is none: the digits inside of an IBAN are no card.
    """

    def __init__(self, asked: PersonalDataParams) -> None:
        phone_regions = _supported()
        if unknown := [region for region in asked.regions if region not in phone_regions]:
            raise InputError(
                f"params.yaml: data.personal_data_scan.regions: {unknown[0]!r} is no country; use codes of ISO 3166, "
                "as DE or GB"
            )
        from stillroom.data.personal.national import COUNTRIES, NationalNumbers
        from stillroom.data.personal.phones import Phones

        national = NationalNumbers(asked.regions)
        if "national_id" in asked.kinds and not national.countries:
            raise InputError(
                f"params.yaml: data.personal_data_scan.kinds: national_id is known of none of "
                f"{', '.join(asked.regions)}; leave it out, or name one of {', '.join(COUNTRIES)}"
            )
        self.asked = asked
        self.countries = tuple(national.countries) if "national_id" in asked.kinds else ()
        self._files: dict[str, PersonalData] = {}
        self._finders: dict[Kind, Callable[[str], Iterable[Span]]] = {
            "email": emails,
            "iban": ibans,
            "card": cards,
            "national_id": national,
            "ip_address": ip_addresses,
        }
        if "phone" in asked.kinds:
            self._finders["phone"] = Phones(asked.regions)

    def over(self, file: str, texts: Sequence[str]) -> list[str]:
        """The texts of a file as they may go on, redacted if that is asked; what they hold is added to the report."""
        kept = []
        rows: Counter[Kind] = Counter()
        hits: Counter[Kind] = Counter()
        with_any = 0
        with progress(f"scan {file} for personal data", len(texts), "rows") as advance:
            for number, text in enumerate(texts, start=1):
                clean, found = self.redacted(text)
                if found:
                    with_any += 1
                    rows.update(found.keys())
                    hits.update(found)
                kept.append(clean if self.asked.redact else text)
                if number % _TOLD_EVERY == 0:
                    advance(_TOLD_EVERY)
        kinds: dict[str, dict[str, int]] = {
            kind: {"texts": rows[kind], "hits": hits[kind]} for kind in KINDS if kind in self.asked.kinds
        }
        self._files[file] = PersonalData(texts=len(texts), texts_with_any=with_any, kinds=kinds)
        return kept

    def report(self) -> PersonalDataReport:
        """What was found in all files so far."""
        return PersonalDataReport(
            regions=self.asked.regions,
            national_numbers=self.countries,
            redacted=self.asked.redact,
            files=self._files,
        )

    def redacted(self, text: str) -> tuple[str, Counter[Kind]]:
        """The text with a placeholder for each hit, and the hits by kind.

        Looked at until nothing is left to find, since what stood beside a hit may be one by itself; so redacting twice
        is redacting once.
        """
        hits: Counter[Kind] = Counter()
        while spans := self._spans(text):
            pieces, kept = [], 0
            for start, end, kind in spans:
                pieces += [text[kept:start], f"[{kind.upper()}]"]
                kept = end
                hits[kind] += 1
            text = "".join([*pieces, text[kept:]])
        return text, hits

    def _spans(self, text: str) -> list[tuple[int, int, Kind]]:
        """What is asked for and found, in the order of the text, nothing twice."""
        spelt, places = plain(text)
        if not _ANY.search(spelt):
            return []
        candidates = [
            (start - end, kind not in self.asked.kinds, order, start, end)
            for order, kind in enumerate(KINDS)
            if kind in self._finders
            for start, end in self._finders[kind](spelt)
        ]
        taken: list[tuple[int, int, Kind]] = []
        covered = bytearray(len(spelt))
        inside = [-1] * len(spelt)  # of which finding that is not asked for, by its start
        for _, unasked, order, start, end in sorted(candidates):
            if any(covered[start:end]) or inside[start] == inside[end - 1] >= 0:
                continue
            if not unasked:
                taken.append((start, end, KINDS[order]))
                covered[start:end] = b"\1" * (end - start)
            elif max(inside[start:end]) < 0:
                inside[start:end] = [start] * (end - start)
        return [
            (start, end, kind) if places is None else (places[start], places[end - 1] + 1, kind)
            for start, end, kind in sorted(taken)
        ]


def open_scanner(asked: PersonalDataParams | None) -> Scanner | None:
    """The scanner that params ask for, if any."""
    return None if asked is None else Scanner(asked)


def _supported() -> Any:
    """Countries whose phone numbers are known; raises InputError if a library of the extra lacks."""
    try:
        import stdnum  # noqa: F401
        from phonenumbers import SUPPORTED_REGIONS
    except ImportError as error:
        raise InputError(
            f"params.yaml: data.personal_data_scan needs {error.name}, which is not installed; "
            "install the extra stillroom[privacy]"
        ) from error
    return SUPPORTED_REGIONS
