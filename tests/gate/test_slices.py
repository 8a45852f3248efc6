"""Slices: which rows a pattern or a length takes, and what is refused instead of judged."""

import time

import pytest

from stillroom.errors import InputError
from stillroom.gate import slices
from stillroom.gate.slices import asked_columns, select_rows
from stillroom.gate_params import SliceParams

TEXTS = ["", "Refund me", "please REFUND\nnow", "grüße", "a much longer text"]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"pattern": "refund"}, []),
        ({"pattern": "(?i)refund"}, [1, 2]),
        ({"pattern": "^.{5}$"}, [3]),
        ({"pattern": r"\p{Ll}ü"}, [3]),
        ({"min_chars": 6}, [1, 2, 4]),
        ({"max_chars": 5}, [0, 3]),
        ({"min_chars": 5, "max_chars": 9}, [1, 3]),
    ],
)
def test_rows_of_a_slice(given: dict[str, object], rows: list[int]) -> None:
    part = SliceParams.model_validate(given)
    if not rows:
        with pytest.raises(InputError, match=r"gate\.slices\.part selects none of the 5 test rows"):
            select_rows({"part": part}, TEXTS)
    else:
        assert select_rows({"part": part}, TEXTS)["part"].nonzero()[0].tolist() == rows


def test_a_pattern_that_runs_away_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PATTERN_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        select_rows({"evil": SliceParams(pattern="(?:(a|aa)+)+$")}, ["fine", "a" * 60 + "b"])
    assert time.monotonic() - began < 20
    told = str(refused.value)
    assert "gate.slices.evil.pattern is '(?:(a|aa)+)+$'; it took more than 0.3 s" in told
    assert "stopped at 1 of 2 test rows" in told
    assert "\n" not in told


def test_the_time_is_that_of_all_rows_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PATTERN_SECONDS", 0.0)
    slow = "(?:(a|aa)+)+$"
    with pytest.raises(InputError, match="stopped at 0 of 3 test rows"):
        select_rows({"slow": SliceParams(pattern=slow)}, ["a" * 60 + "b"] * 3)


CELLS = ["de", "fr", None, 3, True]


@pytest.mark.parametrize(
    ("values", "rows"),
    [(["de"], [0]), (["fr", "de"], [0, 1]), ([3], [3]), (["3"], [3]), ([True], [4]), (["true", "de"], [0, 4])],
)
def test_rows_that_have_a_value_in_a_column(values: list[object], rows: list[int]) -> None:
    part = SliceParams.model_validate({"column": "language", "values": values})
    assert asked_columns({"part": part, "short": SliceParams(max_chars=3)}) == {"gate.slices.part.column": "language"}
    masks = select_rows({"part": part}, TEXTS, {"gate.slices.part.column": CELLS})
    assert masks["part"].nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    ("value", "told"), [("DE", "did you mean 'de'?"), ("None", "there are '3', 'de', 'fr', 'true'"), (1, "there are")]
)
def test_a_value_that_no_row_has_is_refused_though_others_select(value: object, told: str) -> None:
    part = SliceParams.model_validate({"column": "language", "values": ["fr", value]})
    with pytest.raises(InputError, match=r"gate\.slices\.part\.values has '.*', which none of the 5 test") as refused:
        select_rows({"part": part}, TEXTS, {"gate.slices.part.column": CELLS})
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["DE", 1])
def test_an_error_need_not_show_what_a_column_holds(value: object) -> None:
    part = SliceParams.model_validate({"column": "language", "values": [value]})
    with pytest.raises(InputError, match=r"column 'language'; look up how the file spells it$") as refused:
        select_rows({"part": part}, TEXTS, {"gate.slices.part.column": CELLS}, quoting=False)
    assert not any(repr(cell) in str(refused.value) for cell in ("de", "fr", "3", "true"))
