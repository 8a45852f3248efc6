"""Names of licences: every SPDX identifier is known and of the kind that its name says."""

import re

import pytest
from packaging.licenses._spdx import LICENSES

from stillroom.governance.licences import agree, canonical, kinds, misspelt
from stillroom.governance.rules import load

IDENTIFIERS = sorted(str(entry["id"]) for entry in LICENSES.values() if not entry["deprecated"])
PATTERNS = load().licences


def test_no_identifier_is_taken_for_a_slip_in_any_case() -> None:
    assert len(IDENTIFIERS) > 500
    for name in IDENTIFIERS:
        assert misspelt(name) is misspelt(name.lower()) is misspelt(f"MIT OR {name}") is None
        assert canonical(name.upper()) == name


def test_a_letter_too_few_leads_back_to_an_identifier() -> None:
    for name in IDENTIFIERS:
        shortened = name[:-1]
        if len(name) > 8 and canonical(shortened) == shortened.lower():
            assert misspelt(shortened) in IDENTIFIERS, name


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("Apache 2.0", "Apache-2.0"),
        ("Apache-2", "Apache-2.0"),
        ("apache", "Apache-2.0"),
        ("MTI", "MIT"),
        ("GPL", "GPL-3.0-only"),
        ("CC-BY", "CC-BY-4.0"),
        ("CC-BY-NC-4", "CC-BY-NC-4.0"),
        ("BSD", "BSD-3-Clause"),
        ("BSD-2-Claus AND MIT", "BSD-2-Clause"),
        ("GPL-2.0-only WITH Classpath-exeption-2.0", "Classpath-exception-2.0"),
    ],
)
def test_slips_are_told_with_what_was_meant(given: str, near: str) -> None:
    assert misspelt(given) == near


@pytest.mark.parametrize(
    "words",
    [
        "proprietary",
        "UNLICENSED",
        "Reuters-21578, research use",
        "gemma",
        "llama3.1",
        "openrail",
        "LicenseRef-ours",
        "our own terms",
    ],
)
def test_words_of_ones_own_are_left_alone(words: str) -> None:
    assert misspelt(words) is None


def test_every_identifier_is_of_the_kind_that_its_name_says() -> None:
    marks = {"non_commercial": r"-NC-|Noncommercial", "no_derivatives": r"-ND-", "copyleft": r"^[AL]?GPL-|-SA-\d"}
    for name in IDENTIFIERS:
        found = kinds([name], PATTERNS)
        for kind, mark in marks.items():
            if re.search(mark, name):
                assert kind in found, name
    for free in ("MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "CECILL-B", "proprietary"):
        assert kinds([free], PATTERNS) == set()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["for non-commercial use"], {"non_commercial"}),
        (["Reuters-21578, research use"], {"non_commercial"}),
        (["CC BY-SA 4.0"], {"copyleft"}),
        (["cc-by-nc-nd-4.0"], {"non_commercial", "no_derivatives"}),
        (["MIT OR GPL-3.0-only"], set()),
        (["mit or gpl-3.0-only"], set()),
        (["AGPL-3.0-only OR GPL-3.0-only"], {"copyleft"}),
        (["MIT AND GPL-3.0-only"], {"copyleft"}),
        (["(MIT OR GPL-3.0-only) AND CC-BY-NC-4.0"], {"copyleft", "non_commercial"}),
        (["mit", "cc-by-nc-4.0"], {"non_commercial"}),
        ([], set()),
    ],
)
def test_kinds_follow_words_and_expressions(names: list[str], found: set[str]) -> None:
    assert kinds(names, PATTERNS) == found


@pytest.mark.parametrize(
    ("declared", "card", "same"),
    [
        ("Apache-2.0", ("apache-2.0",), True),
        ("GPL-3.0-or-later", ("gpl-3.0",), True),
        ("BSD-3-Clause", ("bsd",), True),
        ("MIT OR Apache-2.0", ("apache-2.0", "mit"), True),
        ("MIT", ("apache-2.0", "mit"), True),
        ("Gemma", ("gemma",), True),
        ("MIT", ("mit-0",), False),
        ("MIT-0", ("mit",), False),
        ("Apache-2.0", ("cc-by-nc-4.0",), False),
        ("GPL-3.0-only", ("gpl-2.0",), False),
        ("MIT OR Apache-2.0", ("mit",), False),
    ],
)
def test_a_card_means_the_same_licence_or_another(declared: str, card: tuple[str, ...], same: bool) -> None:
    assert agree(declared, card) is same
