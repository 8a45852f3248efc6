"""The section cost: off until everything is given that only the firm can know."""

from typing import Any

import pytest

from stillroom.cost_params import NEEDED, CostParams, Terms
from stillroom.errors import ParamsError
from stillroom.params import validate

BARE = {"data": {"source": "a.csv"}, "teacher": {"source": "b"}, "students": {"s": {"family": "static"}}}
GIVEN = {
    "api_per_1000_calls": 0.5,
    "machine_per_hour": 0.2,
    "calls_per_month": 1_000_000,
    "setup": 20_000,
    "upkeep_per_month": 0,
}


def test_without_prices_there_are_no_terms_and_what_lacks_is_named() -> None:
    bare = validate(BARE, "test").cost
    assert bare.missing == [f"cost.{key}" for key in GIVEN] == [f"cost.{key}" for key in NEEDED]
    assert Terms.of(bare) is None
    for key in GIVEN:
        part = CostParams.model_validate({name: value for name, value in GIVEN.items() if name != key})
        assert part.missing == [f"cost.{key}"]
        assert Terms.of(part) is None


def test_nothing_but_zero_says_that_there_is_no_setup_and_no_upkeep() -> None:
    terms = Terms.of(CostParams.model_validate(GIVEN | {"setup": 0, "currency": "CHF"}))
    assert terms is not None
    assert (terms.setup, terms.upkeep_per_month, terms.currency) == (0.0, 0.0, "CHF")
    assert (terms.always_on, terms.requests, terms.training_hours) == (True, "single", None)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("api_per_1000_call", 1, "cost.api_per_1000_call is not a known key; did you mean api_per_1000_calls?"),
        ("api_per_1000_calls", 0, "cost.api_per_1000_calls is 0; input should be greater than 0"),
        ("machine_per_hour", -0.1, "cost.machine_per_hour is -0.1; input should be greater than or equal to 0"),
        ("machine_per_hour", float("nan"), "cost.machine_per_hour is nan; input should be a finite number"),
        ("setup", float("inf"), "cost.setup is inf; input should be a finite number"),
        ("calls_per_month", 0, "cost.calls_per_month is 0; input should be greater than or equal to 1"),
        ("calls_per_month", 1.5, "cost.calls_per_month is 1.5; input should be a valid integer"),
        ("calls_per_month", 10**16, "cost.calls_per_month is 10000000000000000; input should be less than"),
        ("growth_per_month", -1, "cost.growth_per_month is -1; input should be greater than -1"),
        ("utilisation", 0, "cost.utilisation is 0; input should be greater than 0"),
        ("utilisation", 1.1, "cost.utilisation is 1.1; input should be less than or equal to 1"),
        ("peak", 0.5, "cost.peak is 0.5; input should be greater than or equal to 1"),
        ("requests", "stream", "cost.requests is 'stream'; input should be 'single' or 'batch'"),
        ("currency", "€", "cost.currency is '€'; "),
    ],
)
def test_mistakes_are_told_with_their_key(key: str, value: Any, told: str) -> None:
    with pytest.raises(ParamsError) as caught:
        validate(BARE | {"cost": {key: value}}, "test")
    assert told in str(caught.value)
