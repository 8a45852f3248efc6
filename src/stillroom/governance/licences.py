"""What a licence's name says of it: its SPDX form, its likely spelling, its kinds, whether two names mean the same.

The identifiers are those that packaging keeps of the SPDX list (packaging.licenses); words of one's own are left alone.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

_NEAR = 0.8
_OPERATORS = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")
_PROPRIETARY = ("unlicensed",)
"""What npm calls it; SPDX's Unlicense is the contrary."""
_FAMILIES = ("agpl", "bsd", "cc", "gpl", "lgpl")
"""Names on the Hugging Face hub that leave the version open."""


def canonical(text: str) -> str:
    """The SPDX expression as SPDX spells it, or the words in lower case."""
    return _spdx(text) or " ".join(text.lower().split())


def misspelt(text: str) -> str | None:
    """The nearest SPDX identifier to the first part of an expression that is none but looks like one."""
    if _spdx(text) or text.strip().lower() in _PROPRIETARY:
        return None
    known = _identifiers()
    for part in _OPERATORS.split(text):
        name = "-".join(part.lower().split()).removesuffix("+")
        if not name or _spdx(part.strip()):
            continue
        versions = [one for one in known if re.fullmatch(rf"{re.escape(name)}(-\d[\d.]*(-only)?|-3-clause)", one)]
        swapped = [one for one in known if part.isupper() and sorted(one) == sorted(name)]
        near = versions[-1:] or swapped or difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near:
            return known[near[0]]
    return None


def kinds(names: Sequence[str], patterns: Mapping[str, Iterable[str]]) -> set[str]:
    """Kinds of licences under all of these names; of a choice (A OR B) only those that every alternative has."""
    found: set[str] = set()
    for name in map(canonical, names):
        choices = [name] if "(" in name else re.split(r"\s+OR\s+", name)
        found |= set.intersection(*(_kinds(choice, patterns) for choice in choices))
    return found


def agree(declared: str, card: Sequence[str]) -> bool:
    """Whether a card that names these licences means the one that is declared."""
    ours = canonical(declared)
    if set(_OPERATORS.split(ours)) == set(map(canonical, card)):
        return True
    return any(ours == theirs or _is_of_family(ours, theirs) for theirs in map(canonical, card))


def _spdx(text: str) -> str | None:
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return None


def _identifiers() -> dict[str, str]:
    """Identifiers that SPDX has not withdrawn, by their names in lower case, in order."""
    from packaging.licenses._spdx import EXCEPTIONS, LICENSES

    entries = sorted((*LICENSES.items(), *EXCEPTIONS.items()))
    return {name: str(entry["id"]) for name, entry in entries if not entry["deprecated"]}


def _kinds(name: str, patterns: Mapping[str, Iterable[str]]) -> set[str]:
    return {kind for kind, some in patterns.items() if any(re.search(one, name, re.IGNORECASE) for one in some)}


def _is_of_family(ours: str, theirs: str) -> bool:
    """GPL-3.0 on a card is GPL-3.0-only or GPL-3.0-or-later; bsd is any BSD licence."""
    if theirs in _FAMILIES:
        return ours.lower().startswith(f"{theirs}-")
    return ours in (f"{theirs}-only", f"{theirs}-or-later")
