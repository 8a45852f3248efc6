"""What people declare about a run in params.yaml: terms, personal data, purpose, risk and who answers for it."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from stillroom.section import Section

Terms = Literal["allowed", "forbidden", "unknown"]
PersonalData = Literal["none", "pseudonymised", "personal", "unknown"]
AiAct = Literal["minimal", "limited", "high", "unknown"]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\r\n]*$")]
"""One line that says something."""


Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
"""A language by its ISO 639 code: en, de, gsw."""
Date = Annotated[str, Field(json_schema_extra={"format": "date"})]


class GovernanceParams(Section):
    """What is declared about a run beside the licences, which stand at what they are of."""

    policy: Literal["off", "warn", "stop"] = "warn"
    """What broken rules do before a run: warn in the log, or stop it; off leaves only what stops under any policy."""
    teacher_terms: Terms = "unknown"
    """Whether the teacher's terms allow that its outputs train another model."""
    personal_data: PersonalData = "unknown"
    """Whether the texts tell of people who can be identified."""
    lawful_basis: Words | None = None
    """On what ground personal data are processed (GDPR, article 6)."""
    dpia: Words | None = None
    """Reference of the data protection impact assessment."""
    intended_use: Words | None = None
    ai_act: AiAct = "unknown"
    """Class of risk under the EU's AI Act, of the use that is intended."""
    owner: Words | None = None
    """Who answers for the model: a person, or a team that can be reached."""
    review_by: Date | None = None
    """Date by which all this is looked at anew, in quotes: '2027-03-31'."""
    reviewed_on: Date | None = None
    """Date of the last review, in quotes."""
    schedule: Words | None = None
    """When the student is distilled anew."""
    drift_watch: Words | None = None
    """How it is noticed that texts or answers are no longer those of the test rows."""
    languages: tuple[Language, ...] = ()
    """Languages of the texts, by ISO 639 code: [en]."""

    @field_validator("review_by", "reviewed_on", mode="before")
    @classmethod
    def _a_date_in_quotes(cls, value: Any) -> Any:
        if isinstance(value, datetime.date):
            raise ValueError(f"put the date in quotes, '{value:%Y-%m-%d}'; DVC takes no other")
        if isinstance(value, str):
            try:
                return datetime.date.fromisoformat(value).isoformat()
            except ValueError as error:
                raise ValueError(f"{value!r} is no date; write '2027-03-31'") from error
        return value
