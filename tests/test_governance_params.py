"""The section governance: defaults that let old files stand, and declarations that say something."""

from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import ParamsError
from stillroom.governance_params import GovernanceParams
from stillroom.params import validate
from stillroom.params_file import load_params, write_yaml

BARE = {"data": {"source": "a.csv"}, "teacher": {"source": "b"}, "students": {"s": {"family": "static"}}}


def test_a_file_without_the_section_declares_nothing_and_is_warned() -> None:
    assert validate(BARE, "test").governance == GovernanceParams()
    told = GovernanceParams().model_dump(exclude_none=True)
    unknown = dict.fromkeys(("teacher_terms", "personal_data", "ai_act"), "unknown")
    assert told == {"policy": "warn", **unknown, "languages": ()}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("polcy", "warn", "governance.polcy is not a known key; did you mean policy?"),
        ("policy", "strict", r"governance.policy is 'strict'; input should be 'off', 'warn' or 'stop'"),
        ("ai_act", "unacceptable", "governance.ai_act is 'unacceptable'; "),
        ("personal_data", None, "governance.personal_data is None; "),
        ("dpia", "  ", "governance.dpia is '  '; string should have at least 1 character"),
        ("owner", "we\nand others", "governance.owner is 'we"),
        ("review_by", "31.3.2027", "governance.review_by: '31.3.2027' is no date; write '2027-03-31'"),
        ("review_by", "2027-02-30", "governance.review_by: '2027-02-30' is no date"),
        ("review_by", 2027, "governance.review_by is 2027; "),
        ("reviewed_on", "yesterday", "governance.reviewed_on: 'yesterday' is no date; write '2027-03-31'"),
        ("schedule", "", "governance.schedule is ''; string should have at least 1 character"),
        ("languages", ["English"], "governance.languages.0 is 'English'; "),
    ],
)
def test_mistakes_are_told_with_their_key(key: str, value: Any, told: str) -> None:
    with pytest.raises(ParamsError) as caught:
        validate(BARE | {"governance": {key: value}}, "test")
    assert told in str(caught.value)


def test_a_date_is_quoted_since_dvc_takes_no_other(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    write_yaml(validate(BARE | {"governance": {"review_by": "2027-03-31"}}, "test"), path)
    assert load_params(path).governance.review_by == "2027-03-31"
    with pytest.raises(ParamsError, match=r"governance\.review_by: put the date in quotes, '2027-04-01'"):
        load_params(path, ["governance.review_by=2027-04-01"])
    assert load_params(path, ["governance.review_by='2027-04-01'"]).governance.review_by == "2027-04-01"
