"""The file of rules: whole, and refused with its place where it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError
from stillroom.files import write_json
from stillroom.governance.rules import RULES, load
from stillroom.params_file import read_yaml

Break = Callable[[dict[str, Any]], object]


def test_what_stops_under_any_policy() -> None:
    assert [rule.name for rule in load().rules if rule.always] == ["personal-data-without-dpia"]


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda raw: raw.pop("rules"), "rules: Field required"),
        (lambda raw: raw.update(rules=[]), "rules: Tuple should have at least 1 item"),
        (lambda raw: raw["rules"].append(raw["rules"][0]), "rules: .*two rules are called licence-undeclared"),
        (lambda raw: raw["rules"][0].update(severity="fatal"), r"rules\.0\.severity: .*'stop' or 'warn'"),
        (lambda raw: raw["rules"][0].update(colour="red"), r"rules\.0\.colour: Extra inputs"),
        (lambda raw: raw["rules"][0].update(name="Two words"), r"rules\.0\.name: "),
        (lambda raw: raw["rules"][0].update(when={}), r"rules\.0\.when: .*name one fact at least"),
        (lambda raw: raw["rules"][0].update(when={"licence": []}), r"rules\.0\.when\.licence: "),
        (lambda raw: raw["rules"][0].update(when={"weather": ["bad"]}), r"rules\.0\.when\.weather: Extra"),
        (lambda raw: raw["rules"][0].update(when={"ai_act": ["huge"]}), r"rules\.0\.when\.ai_act\.0: "),
        (lambda raw: raw["rules"][0].update(when={"licence": ["red"]}), "'red' is no kind of licence; use copyleft"),
        (lambda raw: raw["rules"][0].update(says="{colour} is bad"), r"rules\.0: .*says names \{colour\}; use ai_act"),
        (lambda raw: raw["rules"][-1].update(says="{where} is bad"), r"says names \{where\}"),
        (lambda raw: raw["rules"][0].update(says="two\nlines"), "must be one line"),
        (lambda raw: raw["rules"][0].update(severity="warn", always=True), "always needs severity stop"),
        (lambda raw: raw["licences"].update(odd=["("]), "licences: .*odd: '\\(' does not compile"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(break_it: Break, told: str, tmp_path: Path) -> None:
    raw = read_yaml(RULES)
    path = tmp_path / "rules.yaml"
    write_json(path, raw)
    assert load(path) == load()
    break_it(raw)
    write_json(path, raw)
    place = "rules\\.yaml: " if told.startswith(("rules", "licences")) else ""
    with pytest.raises(InputError, match=place + told) as caught:
        load(path)
    assert "\n" not in str(caught.value)
