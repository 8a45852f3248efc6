"""Costs in params.yaml: prices and volume, from which the month follows in which a student has paid for itself."""

from typing import Annotated, Literal, Self

from pydantic import Field

from stillroom.section import Section

Money = Annotated[float, Field(ge=0.0, le=1e12, allow_inf_nan=False)]
Price = Annotated[float, Field(gt=0.0, le=1e12, allow_inf_nan=False)]
MOST_CALLS = 10**15
"""A month; more is no volume, but a slip."""
Calls = Annotated[int, Field(ge=1, le=MOST_CALLS)]


class CostParams(Section):
    """A student on machines of one's own beside a remote API. Off until the five keys without a default are given."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    """What all prices are in: three capital letters (ISO 4217)."""
    api_per_1000_calls: Price | None = None
    """What the API takes for 1,000 calls with texts of your usual length."""
    machine_per_hour: Money | None = None
    """Price of an hour of a machine like the one on which speed was measured."""
    calls_per_month: Calls | None = None
    """Texts to be labelled in the first month."""
    setup: Money | None = None
    """What the student costs once that the API does not: people's time, labels; 0 if nothing."""
    upkeep_per_month: Money | None = None
    """People's time for the student each month, retraining included; 0 if none."""
    growth_per_month: Annotated[float, Field(gt=-1.0, le=1.0, allow_inf_nan=False)] = 0.0
    """By how much the calls of a month exceed those of the month before: 0.02 is 2 %."""
    requests: Literal["single", "batch"] = "single"
    """Whether a machine answers one call after another or reads texts in batches; single takes the lesser of both
    measured speeds."""
    peak: Annotated[float, Field(ge=1.0, le=1000.0, allow_inf_nan=False)] = 4.0
    """Calls of the busiest hour ÷ calls of a mean hour; 4 is traffic of office hours."""
    utilisation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the measured speed that is counted on: at the busiest hour or, without always_on, in every paid hour."""
    always_on: bool = True
    """Whole machines run all month, one at least; false pays for the hours of work alone, as for nightly batches."""
    training_hours: Money | None = None
    """Hours of the machine that one whole run takes; null counts none in the report, and in `stillroom cost` what
    the receipts tell."""
    machine_watts: Annotated[float, Field(gt=0.0, le=1e5, allow_inf_nan=False)] | None = None
    """What the machine draws while it trains, by a meter or its data sheet; the model card then estimates energy."""
    retrainings_per_year: Money = 4.0
    """Whole runs a year after the first, at the machine's price."""

    @property
    def missing(self) -> list[str]:
        """What is still to be given before anything can be compared, as dotted keys."""
        return [f"cost.{name}" for name in NEEDED if getattr(self, name) is None]


class Terms(CostParams):
    """The section with all that a comparison needs."""

    api_per_1000_calls: Price
    machine_per_hour: Money
    calls_per_month: Calls
    setup: Money
    upkeep_per_month: Money

    @classmethod
    def of(cls, params: CostParams) -> Self | None:
        """The terms that a section gives, or None while it lacks some."""
        return None if params.missing else cls.model_validate(params.model_dump())


NEEDED = tuple(name for name, field in Terms.model_fields.items() if field.is_required())
"""Keys without a default, which nobody but the firm can know."""
