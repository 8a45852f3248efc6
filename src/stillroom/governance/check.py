"""Do the declarations of a run keep the rules? Asked before anything is written, and told in the report."""

import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.errors import InputError
from stillroom.governance.card import Card
from stillroom.governance.licences import agree, kinds, misspelt
from stillroom.governance.rules import Rule, Rulebook, load
from stillroom.governance_params import GovernanceParams
from stillroom.params import Params
from stillroom.student_params import AutoParams, PretrainedParams

log = logging.getLogger("stillroom")

Facts = Mapping[str, frozenset[str]]
_SILENT = Card()


@dataclass(frozen=True)
class Finding:
    """A rule that the declarations break, what it does under the run's policy, and the sentence with its values."""

    rule: str
    severity: Literal["stop", "warn"]
    told: str


def assess(
    params: Params,
    cards: Mapping[str, Card] | None = None,
    today: datetime.date | None = None,
    rules: Rulebook | None = None,
    scan: Mapping[str, int] | None = None,
) -> list[Finding]:
    """Every rule that is broken, in the order of the rules.

    cards: those of the checkpoints, by `teacher` and `students.NAME.checkpoint`. today: for the review date. scan: hits
    by kind, where the texts were scanned for personal data. Without them only the declarations are judged, and the
    answer depends on nothing else.
    """
    rules = rules or load()
    licences = [_licence(part, name, (cards or {}).get(part, _SILENT), rules) for part, name in declared(params)]
    return _broken(rules.rules, params.governance, licences, today, scan)


def assess_scan(told: GovernanceParams, scan: Mapping[str, int]) -> list[Finding]:
    """Those of the rules alone that ask what a scan for personal data found: hits by kind."""
    return _broken([rule for rule in load().rules if rule.when.scan is not None], told, [], None, scan)


def enforce(findings: Sequence[Finding]) -> None:
    """Log what warns, once each; raises InputError with one line for all that stops."""
    for finding in findings:
        if finding.severity == "warn":
            log.warning("governance: %s: %s", finding.rule, finding.told)
    stops = [f"{finding.rule}: {finding.told}" for finding in findings if finding.severity == "stop"]
    if stops:
        count = "a rule stops" if len(stops) == 1 else f"{len(stops)} rules stop"
        raise InputError(f"governance: {count} this run before it starts: {'; '.join(stops)}")


def declared(params: Params) -> Iterator[tuple[str, str | None]]:
    """Each part of a run that has a licence, and the licence as its params declare it."""
    yield "teacher", params.teacher.licence
    yield "data", params.data.licence
    for name, student in params.students.items():
        if isinstance(student, PretrainedParams | AutoParams) and student.checkpoint is not None:
            yield f"students.{name}.checkpoint", student.checkpoint.licence


def _broken(
    rules: Sequence[Rule],
    told: GovernanceParams,
    licences: Sequence[tuple[Facts, Mapping[str, str]]],
    today: datetime.date | None,
    scan: Mapping[str, int] | None,
) -> list[Finding]:
    values = {name: str(value) for name, value in told.model_dump(mode="json").items()}
    values["scanned"] = ", ".join(f"{kind} {count}" for kind, count in (scan or {}).items())
    of_run = _facts(told, today, scan)
    findings: list[Finding] = []
    for rule in rules:
        severity = _severity(rule, told.policy)
        if severity is None:
            continue
        asked = licences if rule.when.of_licence else [({}, {})]
        findings += [
            Finding(rule.name, severity, rule.says.format_map({**values, **words}))
            for facts, words in asked
            if _applies(rule, {**of_run, **facts})
        ]
    return findings


def _severity(rule: Rule, policy: str) -> Literal["stop", "warn"] | None:
    """What a rule does under the policy, if anything."""
    if rule.always:
        return "stop"
    if policy == "off":
        return None
    return rule.severity if policy == "stop" else "warn"


def _applies(rule: Rule, facts: Facts) -> bool:
    return all(facts[name] & set(wanted) for name, wanted in rule.when.facts.items())


def _facts(told: GovernanceParams, today: datetime.date | None, scan: Mapping[str, int] | None) -> Facts:
    facts = {
        "teacher_terms": told.teacher_terms,
        "personal_data": told.personal_data,
        "ai_act": told.ai_act,
        **{
            name: "missing" if getattr(told, name) is None else "given"
            for name in ("lawful_basis", "dpia", "intended_use", "owner")
        },
    }
    review: set[str] = {"missing"} if told.review_by is None else set()
    if told.review_by is not None and today is not None:
        review = {"passed" if datetime.date.fromisoformat(told.review_by) < today else "ahead"}
    scanned: set[str] = set() if scan is None else {"found" if any(scan.values()) else "clean"}
    return {name: frozenset({word}) for name, word in facts.items()} | {
        "review": frozenset(review),
        "scan": frozenset(scanned),
    }


def _licence(part: str, name: str | None, card: Card, rules: Rulebook) -> tuple[Facts, Mapping[str, str]]:
    """Facts about one licence, and the words that sentences name. What is not declared is judged by its card."""
    name = (name or "").strip()
    near = misspelt(name) if name else None
    found = {"misspelt"} if near else set() if name else {"undeclared"}
    on_card = set()
    if card.fault is not None:
        on_card = {"unreadable"}
    elif name and card.licences and not agree(name, card.licences):
        on_card = {"differs"}
    facts = {
        "licence": frozenset(found | kinds([name] if name else card.licences, rules.licences)),
        "card": frozenset(on_card),
    }
    on_it = " and ".join(card.licences)
    words = {
        "where": f"{part}.licence",
        "licence": name or ("not declared" + (f" (its own card says {on_it})" if on_it else "")),
        "card": card.fault or on_it,
        "near": near or "",
    }
    return facts, words
