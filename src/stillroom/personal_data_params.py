"""What a scan of the texts for personal data looks for, and whether it takes it out."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from stillroom.section import Section

Kind = Literal["email", "phone", "card", "iban", "national_id", "ip_address"]
KINDS: tuple[Kind, ...] = ("email", "iban", "card", "national_id", "ip_address", "phone")
"""In the order in which they are told; of two that a text spells alike the first is meant."""
_OF_COUNTRIES = ("phone", "national_id")


class PersonalDataParams(Section):
    """A scan of all texts, where they are read; needs the extra `privacy`."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    """What is looked for, by its form and, where it has them, its check digits."""
    regions: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...] = ()
    """Countries (ISO 3166, as DE) whose phone numbers and national numbers are looked for; a phone number that begins
    with + is found of any country."""
    redact: bool = False
    """Put [EMAIL], [PHONE], … in the place of what is found, before duplicates, splits and teacher see the texts."""

    @field_validator("kinds", "regions")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("name each once")
        return value

    @model_validator(mode="after")
    def _countries_are_named(self) -> Self:
        asked = [kind for kind in self.kinds if kind in _OF_COUNTRIES]
        if asked and not self.regions:
            raise ValueError(
                f"regions is empty; name the countries whose numbers are looked for, as [DE, AT], "
                f"or leave {' and '.join(asked)} out of kinds"
            )
        return self
