import datetime
import itertools
import logging
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import InputError
from stillroom.governance.card import Card
from stillroom.governance.check import Finding, assess, assess_scan, enforce
from stillroom.governance.rules import Rule, load
from stillroom.governance_params import AiAct, PersonalData, Terms
from stillroom.params import validate
from tests.governance.declarations import CARDS, CLEAN, LICENCES, PARTS, SCANS, declare, governance_of

TODAY = datetime.date(2026, 11, 26)
BOOK = load()
RULES = BOOK.rules
CASES = [
    pytest.param(rule, dict(zip(rule.when.facts, words, strict=True)), id="-".join([rule.name, *words]))
    for rule in RULES
    for words in itertools.product(*rule.when.facts.values())
]
ANYTHING = st.fixed_dictionaries(
    {
        "teacher_terms": st.sampled_from(get_args(Terms)),
        "personal_data": st.sampled_from(get_args(PersonalData)),
        "ai_act": st.sampled_from(get_args(AiAct)),
        "dpia": st.sampled_from([None, "DPIA-7"]),
        "owner": st.sampled_from([None, "we"]),
        "lawful_basis": st.sampled_from([None, "consent"]),
    }
)


def found(facts: dict[str, str], part: str) -> list[Finding]:
    """What is found where these facts hold, those about licences of this part."""
    governance: dict[str, Any] = {}
    for fact, word in facts.items():
        governance |= governance_of(fact, word) if fact not in ("licence", "card", "scan") else {}
    licences = {part: LICENCES[facts["licence"]]} if "licence" in facts else {}
    cards = {part: CARDS[facts["card"]]} if "card" in facts else {}
    return assess(declare(governance, licences), cards, TODAY, BOOK, SCANS[facts["scan"]] if "scan" in facts else None)


def named(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


def stops(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.severity == "stop"}


def test_what_is_in_order_breaks_no_rule() -> None:
    agreeing = dict.fromkeys(PARTS, Card(("mit",)))
    assert assess(declare(), agreeing, TODAY) == []
    assert assess(declare()) == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("rule", "facts"), CASES)
def test_a_rule_applies_where_its_facts_hold_and_not_where_one_lacks(
    rule: Rule, facts: dict[str, str], part: str
) -> None:
    told = [finding for finding in found(facts, part) if finding.rule == rule.name]
    assert [finding.severity for finding in told] == [rule.severity]
    assert "{" not in told[0].told
    assert told[0].told.startswith(f"{part}.licence" if rule.when.of_licence else "governance.")
    for lacking in facts.keys() - {fact for fact, word in facts.items() if CLEAN.get(fact) == word}:
        others = {fact: word for fact, word in facts.items() if fact != lacking}
        assert rule.name not in named(found(others, part))


@settings(deadline=None)
@given(ANYTHING)
def test_a_laxer_policy_never_stops_more_and_off_leaves_what_always_stops(told: dict[str, str | None]) -> None:
    found_by = {policy: assess(declare(told | {"policy": policy}), rules=BOOK) for policy in ("off", "warn", "stop")}
    always = {rule.name for rule in RULES if rule.always}
    assert stops(found_by["off"]) == stops(found_by["warn"]) == stops(found_by["stop"]) & always
    assert named(found_by["off"]) <= always
    assert named(found_by["warn"]) == named(found_by["stop"])


@pytest.mark.parametrize("policy", ["off", "warn", "stop"])
def test_personal_data_without_an_assessment_stop_under_any_policy(policy: str) -> None:
    bare = declare({"policy": policy, "personal_data": "personal", "dpia": None})
    with pytest.raises(InputError, match=r"personal-data-without-dpia: .* declare its reference in governance\.dpia"):
        enforce(assess(bare))
    enforce(assess(declare({"policy": policy, "personal_data": "personal"})))


def test_a_run_that_declares_nothing_is_warned_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    bare = {"data": {"source": "a.csv"}, "teacher": {"source": "b"}, "students": {"s": {"family": "static"}}}
    with caplog.at_level(logging.WARNING, "stillroom"):
        enforce(assess(validate(bare, "test"), {}, TODAY))
    told = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert told == ["licence-undeclared", "licence-undeclared", "teacher-terms-unknown", "personal-data-unknown"]


def test_all_that_stops_is_told_in_one_line_with_its_number_and_warnings_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = declare({"teacher_terms": "forbidden"}, {"teacher": "GPL-3.0-only", "data": None})
    with caplog.at_level(logging.WARNING, "stillroom"), pytest.raises(InputError) as caught:
        enforce(assess(run))
    line = str(caught.value)
    assert line.startswith("governance: 2 rules stop this run before it starts: licence-undeclared: data.licence")
    assert "; teacher-terms-forbid: governance.teacher_terms is forbidden" in line
    assert "\n" not in line
    assert caught.value.exit_code == 2
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["copyleft"]
    with pytest.raises(InputError, match=r"^governance: a rule stops .*: licence-undeclared: data\.licence"):
        enforce(assess(declare(licences={"data": None})))


def test_what_is_not_declared_is_judged_by_the_card() -> None:
    findings = assess(declare(licences={"teacher": None}), {"teacher": Card(("cc-by-nc-4.0",))}, TODAY)
    assert named(findings) == {"licence-undeclared", "non-commercial"}
    assert "teacher.licence is not declared (its own card says cc-by-nc-4.0)" in findings[0].told


def test_blanks_declare_no_licence() -> None:
    assert named(assess(declare(licences={"data": "  "}))) == {"licence-undeclared"}


def test_a_slip_is_told_with_the_nearest_identifier() -> None:
    (finding,) = assess(declare(licences={"teacher": "MTI"}))
    assert finding.told == "teacher.licence is MTI, which is no SPDX identifier; did you mean MIT?"


def test_the_review_is_due_after_its_day_and_needs_a_day_to_be_judged() -> None:
    run = declare({"review_by": TODAY.isoformat()})
    assert assess(run, {}, TODAY) == []
    assert named(assess(run, {}, TODAY + datetime.timedelta(days=1))) == {"review-passed"}
    assert assess(run) == []


@pytest.mark.parametrize(("policy", "severity"), [("off", []), ("warn", ["warn"]), ("stop", ["stop"])])
def test_personal_data_that_a_scan_finds_contradict_a_declaration_of_none(policy: str, severity: list[str]) -> None:
    run = declare({"policy": policy})
    found_there = assess_scan(run.governance, {"email": 12, "phone": 3})
    assert [finding.severity for finding in found_there] == severity
    assert all("found email 12, phone 3;" in finding.told for finding in found_there)
    assert found_there == assess(run, {}, TODAY, scan={"email": 12, "phone": 3})
    assert assess_scan(run.governance, {}) == assess(run) == []
    assert assess_scan(declare({"policy": policy, "personal_data": "pseudonymised"}).governance, {"email": 12}) == []


def test_what_asks_no_scan_is_not_asked_again_after_one() -> None:
    assert (
        assess_scan(declare({"teacher_terms": "forbidden", "personal_data": "unknown"}).governance, {"email": 1}) == []
    )


def test_a_search_with_an_encoder_of_its_own_is_asked_too() -> None:
    raw = declare().model_dump(mode="json", exclude_unset=True)
    raw["students"] = {"found": {"family": "auto", "checkpoint": {"source": "little", "sha256": "0" * 64}}}
    (finding,) = assess(validate(raw, "test"))
    assert finding.told.startswith("students.found.checkpoint.licence is not declared")
