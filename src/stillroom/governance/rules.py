"""The rules as a file: what they are made of, checked when they are read."""

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from stillroom.errors import InputError
from stillroom.governance_params import AiAct, GovernanceParams, PersonalData, Terms
from stillroom.section import Section

RULES = Path(__file__).parent / "rulebook" / "rules.yaml"
PLAIN_KINDS = ("undeclared", "misspelt")
"""What a licence may be beside the kinds that the file describes."""
LICENCE_WORDS = frozenset({"where", "licence", "card", "near"})
"""What a rule about licences may name in its sentence, in braces; any rule may name a key of the section governance."""
SCAN_WORDS = frozenset({"scanned"})
"""What a rule about the scan may name as well: the kinds that were found, each with its hits."""

Given = Annotated[tuple[Literal["given", "missing"], ...], Field(min_length=1)]


class Conditions(Section):
    """Facts, each with the words of which one must hold; all facts that are named must."""

    licence: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Of one licence: undeclared, misspelt, or a kind under `licences`."""
    card: Annotated[tuple[Literal["differs", "unreadable"], ...], Field(min_length=1)] | None = None
    """Of the card that the checkpoint brings along, beside the licence that is declared."""
    teacher_terms: Annotated[tuple[Terms, ...], Field(min_length=1)] | None = None
    personal_data: Annotated[tuple[PersonalData, ...], Field(min_length=1)] | None = None
    ai_act: Annotated[tuple[AiAct, ...], Field(min_length=1)] | None = None
    lawful_basis: Given | None = None
    dpia: Given | None = None
    intended_use: Given | None = None
    owner: Given | None = None
    review: Annotated[tuple[Literal["missing", "ahead", "passed"], ...], Field(min_length=1)] | None = None
    scan: Annotated[tuple[Literal["found", "clean"], ...], Field(min_length=1)] | None = None
    """Whether data.personal_data_scan found anything; neither, where none was made."""

    @property
    def facts(self) -> dict[str, tuple[str, ...]]:
        """Name of each fact that is asked for → the words that will do."""
        return self.model_dump(exclude_none=True)

    @property
    def of_licence(self) -> bool:
        """Whether each licence is asked by itself."""
        return self.licence is not None or self.card is not None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.facts:
            raise ValueError("name one fact at least")
        return self


class Rule(Section):
    """When it applies, how heavily, and the sentence that is told."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    when: Conditions
    severity: Literal["stop", "warn"]
    always: bool = False
    """Stops under any policy."""
    says: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        known = GovernanceParams.model_fields.keys() | (LICENCE_WORDS if self.when.of_licence else set())
        known |= SCAN_WORDS if self.when.scan is not None else set()
        for name in (field for _, field, _, _ in Formatter().parse(self.says) if field is not None):
            if name not in known:
                raise ValueError(f"says names {{{name}}}; use {', '.join(sorted(known))}")
        if "\n" in self.says:
            raise ValueError("says must be one line")
        if self.always and self.severity != "stop":
            raise ValueError("always needs severity stop")
        return self


class Rulebook(Section):
    """Kinds of licences, by expressions over their names, and the rules."""

    licences: dict[str, tuple[str, ...]]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @field_validator("licences")
    @classmethod
    def _compile(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for kind, patterns in value.items():
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{kind}: {pattern!r} does not compile: {error}") from error
        return value

    @model_validator(mode="after")
    def _names_what_there_is(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules are called {twice[0]}")
        known = {*PLAIN_KINDS, *self.licences}
        for rule in self.rules:
            for kind in rule.when.licence or ():
                if kind not in known:
                    raise ValueError(f"{rule.name}: {kind!r} is no kind of licence; use {', '.join(sorted(known))}")
        return self


def load(path: Path = RULES) -> Rulebook:
    """Read a file of rules; raises InputError with the first thing that is wrong in it."""
    from stillroom.params_file import read_yaml

    try:
        return Rulebook.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {where or 'rules'}: {problem['msg']}") from error
