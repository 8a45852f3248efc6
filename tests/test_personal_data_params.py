from typing import Any

import pytest

from stillroom.errors import ParamsError
from stillroom.params import Params, validate
from stillroom.personal_data_params import KINDS


def declare(scan: Any) -> Params:
    raw = {"data": {"source": "a.csv", "personal_data_scan": scan}, "teacher": {"source": "b"}}
    return validate({**raw, "students": {"s": {"family": "static"}}}, "params.yaml")


def test_a_scan_is_off_unless_it_is_asked_for() -> None:
    assert declare(None).data.personal_data_scan is None
    scan = declare({"regions": ["DE"]}).data.personal_data_scan
    assert scan is not None
    assert (scan.kinds, scan.redact) == (KINDS, False)


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        ({"kinds": ["name"]}, "data.personal_data_scan.kinds.0 is 'name'"),
        ({"kinds": []}, "data.personal_data_scan.kinds is []"),
        ({"kinds": ["email", "email"]}, "name each once"),
        ({"regions": ["de"]}, "data.personal_data_scan.regions.0 is 'de'"),
        ({"regions": ["DE", "DE"]}, "name each once"),
        ({}, "regions is empty; name the countries whose numbers are looked for"),
        ({"kinds": ["email", "phone"]}, "or leave phone out of kinds"),
        ({"kinds": ["email"], "redacted": True}, "redacted is not a known key"),
        (True, "data.personal_data_scan is True"),
    ],
)
def test_what_it_cannot_look_for_is_refused_in_one_line(scan: Any, told: str) -> None:
    with pytest.raises(ParamsError) as caught:
        declare(scan)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_country_is_needed_for_what_is_alike_in_all() -> None:
    assert declare({"kinds": ["email", "card", "iban", "ip_address"]}).data.personal_data_scan is not None
