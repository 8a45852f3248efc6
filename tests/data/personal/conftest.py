"""The extra privacy is part of `make dev`; scanners for the tests of this folder."""

from collections import Counter
from collections.abc import Callable

import pytest

from stillroom.data.personal.scan import Scanner
from stillroom.personal_data_params import KINDS, PersonalDataParams

Find = Callable[[str], dict[str, int]]


@pytest.fixture(scope="session")
def scanner() -> Scanner:
    """Looks for everything, in the forms of three countries with a 0 before an area's number and of one without."""
    return Scanner(PersonalDataParams(kinds=KINDS, regions=("DE", "FR", "NL", "US"), redact=True))


@pytest.fixture(scope="session")
def find(scanner: Scanner) -> Find:
    """Hits of a text, by kind."""
    return lambda text: dict(Counter(scanner.redacted(text)[1]))
