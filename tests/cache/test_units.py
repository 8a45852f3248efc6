from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.batching import Tokens, tokenise
from stillroom.cache.identity import Example, entry_keys
from stillroom.cache.live import LiveTeacher
from stillroom.cache.texts import Listed
from stillroom.cache.units import Unit, answered, plan
from stillroom.errors import InputError
from tests.cache.answers import SIGNALS, Array, CountingTeacher, live
from tests.toys import toy_rows

TEXTS = toy_rows(150, seed=5).text
KEYS = entry_keys(TEXTS)
NEEDED = np.random.default_rng(4).random(150) < 0.7
WINDOW = 40


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.cache.units._WINDOW", WINDOW)
    monkeypatch.setattr("stillroom.cache.units._LEAST_UNITS", 1)
    monkeypatch.setattr("stillroom.cache.texts._PIECE", 7)


Asked = Callable[..., LiveTeacher]


@pytest.fixture
def asked(teacher: Path, tokeniser: Any) -> Asked:
    """`asked(budget)`: a toy teacher."""

    def make(budget: int = 100, model: torch.nn.Module | None = None, precision: str = "fp32") -> LiveTeacher:
        return live(model or CountingTeacher(), teacher, tokeniser, precision, budget)

    return make


def units_of(teacher: LiveTeacher, needed: Array = NEEDED, texts: Sequence[str] = TEXTS) -> list[Unit]:
    return list(plan(teacher, Listed(texts), needed))


def hexed(keys: Array) -> list[str]:
    return [key.tobytes().hex() for key in keys]


def told(unit: Unit) -> tuple[list[str], list[int], list[int], list[list[int]]]:
    """All that a unit is."""
    batches = [batch.tolist() for batch in unit.batches]
    return hexed(unit.keys), unit.tokens.ids.tolist(), unit.tokens.offsets.tolist(), batches


@pytest.mark.parametrize("budget", [1, 33, 100, 10_000])
def test_every_needed_text_stands_in_one_batch_with_its_own_tokens(asked: Asked, tokeniser: Any, budget: int) -> None:
    tokens = tokenise(tokeniser, TEXTS, 32)
    row_of = {key: row for row, key in enumerate(hexed(KEYS))}
    seen: list[int] = []
    for unit in units_of(asked(budget)):
        assert np.sort(np.concatenate(unit.batches)).tolist() == list(range(len(unit)))
        for place, key in enumerate(hexed(unit.keys)):
            np.testing.assert_array_equal(unit.tokens.one(place), tokens.one(row_of[key]))
            seen.append(row_of[key])
    assert sorted(seen) == np.flatnonzero(NEEDED).tolist()


@pytest.mark.parametrize("budget", [1, 33, 100, 10_000])
def test_no_batch_exceeds_the_budget_but_by_one_long_text(asked: Asked, budget: int) -> None:
    for unit in units_of(asked(budget)):
        for batch in unit.batches:
            assert len(batch) == 1 or len(batch) * unit.tokens.lengths[batch].max() <= budget


def test_windows_follow_the_order_of_the_data_and_are_shared_out_evenly(asked: Asked) -> None:
    needed = np.flatnonzero(NEEDED)
    window_of = {key: place // WINDOW for place, key in enumerate(hexed(KEYS[needed]))}
    units = units_of(asked(40))
    windows = [{window_of[key] for key in hexed(unit.keys)} for unit in units]
    assert all(len(window) == 1 for window in windows), "no unit spans two windows"
    order = [window.pop() for window in windows]
    assert order == sorted(order)
    assert set(order) == set(range(-(-len(needed) // WINDOW)))
    cells = [sum(len(batch) * int(unit.tokens.lengths[batch].max()) for batch in unit.batches) for unit in units]
    for window in set(order):
        mine = [cost for cost, owner in zip(cells, order, strict=True) if owner == window]
        assert len(mine) <= 8
        assert max(mine) <= sum(mine) / 8 + 40, "an eighth, and a batch that began before it was full"


def test_a_window_of_many_batches_has_eight_units(asked: Asked) -> None:
    assert len(units_of(asked(1), texts=TEXTS[:WINDOW], needed=np.ones(WINDOW, bool))) == 8


@pytest.mark.parametrize(("windows", "least", "units"), [(1, 12, 12), (2, 24, 24), (2, 25, 26), (3, 24, 24)])
def test_a_small_pass_is_cut_finer(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, windows: int, least: int, units: int
) -> None:
    monkeypatch.setattr("stillroom.cache.units._LEAST_UNITS", least)
    monkeypatch.setattr(
        "stillroom.cache.units.token_batches", lambda lengths, budget: list(np.arange(len(lengths))[:, None])
    )
    one_length = np.ones(windows * WINDOW, dtype=bool)
    found = units_of(asked(1), texts=["same length"] * (windows * WINDOW), needed=one_length)
    assert len(found) == units


def test_the_plan_depends_on_the_needed_texts_and_the_budget_alone(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [told(unit) for unit in units_of(asked())]
    assert [told(unit) for unit in units_of(asked(model=CountingTeacher(0), precision="bf16"))] == expected
    only = [text for text, needed in zip(TEXTS, NEEDED, strict=True) if needed]
    assert [told(unit) for unit in units_of(asked(), np.ones(len(only), bool), only)] == expected
    monkeypatch.setattr("stillroom.cache.texts._PIECE", 64)
    assert [told(unit) for unit in units_of(asked())] == expected
    assert [told(unit) for unit in units_of(asked(budget=64))] != expected


def test_nothing_needed_is_no_unit(asked: Asked) -> None:
    assert units_of(asked(), np.zeros(150, bool)) == []
    assert units_of(asked(), np.zeros(0, bool), []) == []


def test_the_next_window_is_tokenised_while_one_is_computed(asked: Asked) -> None:
    second = Event()

    class Told(LiveTeacher):
        def tokens(self, examples: Sequence[Example]) -> Tokens:
            if examples[0] == TEXTS[WINDOW]:
                second.set()
            return super().tokens(examples)

    teacher = asked()
    told = Told(teacher.folder, teacher.model, teacher.tokeniser, 32, 0, "fp32", 100)
    units = plan(told, Listed(TEXTS), np.ones(150, bool))
    first = next(units)
    assert set(hexed(first.keys)) <= set(hexed(KEYS[:WINDOW]))
    assert second.wait(30)
    units.close()  # type: ignore[attr-defined]


def test_the_answers_of_a_unit_are_those_of_its_texts(asked: Asked, tokeniser: Any) -> None:
    model, tokens = CountingTeacher(), tokenise(tokeniser, TEXTS, 32)
    row_of = {key: row for row, key in enumerate(hexed(KEYS))}
    rows: list[int] = []
    for unit in units_of(asked(100)):
        for keys, answers in answered(asked(100, model), unit, SIGNALS):
            mine = [row_of[key] for key in hexed(keys)]
            rows += mine
            ids, mask = (torch.from_numpy(part) for part in tokens.padded(np.array(mine), 0))
            for signal, expected in zip(SIGNALS, reversed(CountingTeacher()(ids, mask)), strict=True):
                np.testing.assert_array_equal(signal.codec.decode(answers[signal]), expected.numpy())
    assert len(rows) == model.rows == NEEDED.sum()


@pytest.mark.parametrize(
    ("number", "message"),
    [(float("nan"), "the teacher's embedding are not finite in"), (1e9, "the teacher's embedding exceed the range")],
)
def test_the_signal_that_cannot_be_stored_is_named(asked: Asked, number: float, message: str) -> None:
    class Broken(CountingTeacher):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, pooled = super().forward(ids, mask)
            return logits, pooled * number

    teacher = asked(model=Broken())
    with pytest.raises(InputError, match=message):
        list(answered(teacher, units_of(teacher)[0], SIGNALS))
