"""Runs whose declarations break no rule, and the one change that makes each word of each fact true."""

from collections.abc import Mapping
from typing import Any

from stillroom.governance.card import Card
from stillroom.params import Params, validate

CLEAN = {
    "policy": "stop",
    "teacher_terms": "allowed",
    "personal_data": "none",
    "lawful_basis": "consent",
    "dpia": "DPIA-7",
    "intended_use": "sorting letters",
    "ai_act": "minimal",
    "owner": "the letters team",
    "review_by": "2027-03-31",
}
LICENCES = {
    "undeclared": None,
    "misspelt": "Apache-2",
    "non_commercial": "CC-BY-NC-4.0",
    "no_derivatives": "CC-BY-ND-4.0",
    "copyleft": "GPL-3.0-only",
}
CARDS = {"differs": Card(("cc-by-4.0",)), "unreadable": Card(fault="ValueError: no mapping")}
REVIEWS = {"missing": None, "ahead": "2027-03-31", "passed": "2026-01-31"}
SCANS = {"found": {"email": 12}, "clean": {"email": 0}}
PARTS = ("teacher", "data", "students.small.checkpoint")


def declare(governance: Mapping[str, Any] | None = None, licences: Mapping[str, str | None] | None = None) -> Params:
    """A run in order but for these keys of the section and these licences, by their parts."""
    told = dict.fromkeys(PARTS, "MIT") | dict(licences or {})
    raw = {
        "data": {"source": "rows.csv", "licence": told["data"]},
        "teacher": {"source": "big", "licence": told["teacher"]},
        "students": {
            "plain": {"family": "static"},
            "small": {
                "family": "pretrained",
                "checkpoint": {"source": "little", "sha256": "0" * 64, "licence": told["students.small.checkpoint"]},
            },
        },
        "governance": CLEAN | dict(governance or {}),
    }
    return validate(raw, "test")


def governance_of(fact: str, word: str) -> dict[str, Any]:
    """The keys of the section that make a fact of the run hold."""
    if fact == "review":
        return {"review_by": REVIEWS[word]}
    if word in ("given", "missing"):
        return {fact: CLEAN[fact] if word == "given" else None}
    return {fact: word}
