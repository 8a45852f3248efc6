"""National numbers of persons (identity, social insurance, tax): how each country writes them, checked by stdnum.

A country is here if python-stdnum checks such a number: by check digits or, where the number has none, by a form that
little else has. Numbers that firms have as well are left out.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from stillroom.data.personal.forms import AFTER, BEFORE, Span

_NUMBERS: dict[str, tuple[tuple[str, str], ...]] = {
    "AT": (("at.vnr", r"\d{4} ?\d{6}"),),
    "AU": (("au.tfn", r"\d{3} \d{3} \d{3}|\d{9}"),),
    "BE": (("be.nn", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d|\d{11}"), ("be.bis", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d|\d{11}")),
    "BG": (("bg.egn", r"\d{10}"),),
    "BR": (("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d|\d{11}"),),
    "CA": (("ca.sin", r"\d{3}([ -])\d{3}\1\d{3}|\d{9}"),),
    "CH": (("ch.ssn", r"756\.\d{4}\.\d{4}\.\d\d|756\d{10}"),),
    "CN": (("cn.ric", r"\d{17}[\dX]"),),
    "CZ": (("cz.rc", r"\d{6}/\d{3,4}|\d{10}"),),
    "DE": (("de.idnr", r"\d\d \d{3} \d{3} \d{3}|\d{11}"),),
    "DK": (("dk.cpr", r"\d{6}-\d{4}"),),
    "EE": (("ee.ik", r"\d{11}"),),
    "ES": (("es.dni", r"\d{8}-?[A-Z]"), ("es.nie", r"[XYZ]-?\d{7}-?[A-Z]")),
    "FI": (("fi.hetu", r"\d{6}[+A-FU-Y-]\d{3}[0-9A-Y]"),),
    "FR": (("fr.nir", r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),),
    "GB": (("gb.nhs", r"\d{3}([ -])\d{3}\1\d{4}|\d{10}"),),
    "GR": (("gr.amka", r"\d{11}"),),
    "HR": (("hr.oib", r"\d{11}"),),
    "IE": (("ie.pps", r"\d{7}[A-W][A-ITW]?"),),
    "IL": (("il.idnr", r"\d{8}-?\d"),),
    "IN": (("in_.aadhaar", r"\d{4}([ -]?)\d{4}\1\d{4}"), ("in_.pan", r"[A-Z]{3}P[A-Z]\d{4}[A-Z]")),
    "IS": (("is_.kennitala", r"\d{6}-?\d{4}"),),
    "IT": (("it.codicefiscale", r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]"),),
    "JP": (("jp.in_", r"\d{4}([ -]?)\d{4}\1\d{4}"),),
    "KR": (("kr.rrn", r"\d{6}-?\d{7}"),),
    "LT": (("lt.asmens", r"\d{11}"),),
    "LV": (("lv.pvn", r"[0-3]\d{5}-?\d{5}"),),
    "MX": (("mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d"),),
    "NL": (("nl.bsn", r"\d{4}\.\d\d\.\d{3}|\d{9}"),),
    "NO": (("no.fodselsnummer", r"\d{6} ?\d{5}"),),
    "PL": (("pl.pesel", r"\d{11}"),),
    "PT": (("pt.cc", r"\d{8} ?\d ?[0-9A-Z]{2}\d"), ("pt.nif", r"[123]\d{2}( ?)\d{3}\1\d{3}")),
    "RO": (("ro.cnp", r"\d{13}"),),
    "SE": (("se.personnummer", r"(?:\d\d)?\d{6}[-+]?\d{4}"),),
    "SI": (("si.emso", r"\d{13}"),),
    "SK": (("sk.rc", r"\d{6}/\d{3,4}|\d{10}"),),
    "TR": (("tr.tckimlik", r"\d{11}"),),
    "UA": (("ua.rntrc", r"\d{10}"),),
    "US": (("us.ssn", r"\d{3}-\d\d-\d{4}"), ("us.itin", r"9\d\d-\d\d-\d{4}")),
    "ZA": (("za.idnr", r"\d{13}"),),
}
"""By country: the modules of stdnum, and the forms in which the number is written."""
COUNTRIES = tuple(_NUMBERS)


class NationalNumbers:
    """Finds the numbers of some countries; regions without any that is known are left out."""

    def __init__(self, regions: Sequence[str]) -> None:
        self.countries = [region for region in regions if region in _NUMBERS]
        self._forms = [
            (re.compile(rf"{BEFORE}(?:{form}){AFTER}", re.ASCII | re.IGNORECASE), _valid(module))
            for country in self.countries
            for module, form in _NUMBERS[country]
        ]

    def __call__(self, text: str) -> Iterator[Span]:
        """Where they stand in a plainly spelt text."""
        for form, valid in self._forms:
            for found in form.finditer(text):
                if valid(found[0]):
                    yield found.span()


@functools.cache
def _valid(module: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid
    return check
