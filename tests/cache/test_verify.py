from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.cache.codecs import PerToken, Signal, asked_for
from stillroom.cache.identity import entry_keys
from stillroom.cache.live import LiveTeacher, load_live
from stillroom.cache.reader import Reader, cosine
from stillroom.cache.shards import DamagedCache
from stillroom.cache.store import Store
from stillroom.cache.verify import check_sample
from stillroom.errors import InputError
from stillroom.params import ComputeParams
from tests.toys import LABELS, toy_rows

TEXTS = toy_rows(12, seed=6).text
ROWS = np.arange(100, 112)
SIGNALS = asked_for(("logits", "embedding:int8", "hidden.1", "hidden.2:int8"))
BY_NAME = {signal.name: signal for signal in SIGNALS}
Change = Callable[[Any, int], Any]


@pytest.fixture(scope="module")
def live(teacher: Path) -> LiveTeacher:
    return load_live(teacher, ComputeParams(device="cpu", precision="fp32", threads=1), 100)


def stored(
    live: LiveTeacher, root: Path, signals: tuple[Signal, ...], changed: str = "", change: Change | None = None
) -> Reader:
    """What the teacher says of the texts, with one signal changed for the row that is told; the rest is true."""
    store = Store(root, live.fingerprint(signals))
    for rows, values in live.ask_all(TEXTS, signals):
        told = {
            signal: change(values[signal], int(np.flatnonzero(rows == 5)[0]))
            if change and signal.name == changed and 5 in rows
            else values[signal]
            for signal in signals
        }
        store.add(
            entry_keys([TEXTS[row] for row in rows]), {signal: signal.codec.encode(told[signal]) for signal in signals}
        )
    reader = store.reader()
    assert reader is not None
    return reader


def turned(values: Any, at: int) -> Any:
    """The numbers of one entry in another order and sign."""
    if isinstance(values, PerToken):
        start = int(values.lengths[:at].sum())
        own = slice(start, start + int(values.lengths[at]))
        changed = values.values.copy()
        changed[own] = -changed[own]
        return PerToken(changed, values.lengths)
    values = values.copy()
    values[at] = -values[at]
    return values


def longer(values: PerToken, at: int) -> PerToken:
    """One more token for an entry."""
    end = int(values.lengths[: at + 1].sum())
    lengths = values.lengths.copy()
    lengths[at] += 1
    return PerToken(np.insert(values.values, end, values.values[end - 1], axis=0), lengths)


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_true_answers_of_every_codec_pass_in_whatever_batches(live: LiveTeacher, tmp_path: Path, budget: int) -> None:
    reader = stored(live, tmp_path, SIGNALS)
    assert len({signal.codec.label for signal in reader.signals.values()}) == 4
    other = LiveTeacher(live.folder, live.model, live.tokeniser, live.max_length, live.pad, live.precision, budget)
    check_sample(reader, other, ROWS, TEXTS)
    check_sample(reader, other, ROWS[:0], [])


@pytest.mark.parametrize("name", [signal.name for signal in SIGNALS])
def test_a_false_answer_of_every_codec_is_found_with_its_signal_and_row(
    live: LiveTeacher, tmp_path: Path, name: str
) -> None:
    reader = stored(live, tmp_path, SIGNALS, name, turned)
    least = BY_NAME[name].codec.least_cosine
    with pytest.raises(DamagedCache, match=rf"the answer \({name}\) for row 105 has cosine -") as caught:
        check_sample(reader, live, ROWS, TEXTS)
    assert str(caught.value).startswith(f"{reader.folder}: ")
    assert f"at least {least} is needed" in str(caught.value)
    others = [row for row in range(12) if row != 5]
    check_sample(reader, live, ROWS[others], [TEXTS[row] for row in others])


@pytest.mark.parametrize("name", ["hidden.1", "hidden.2"])
def test_another_number_of_tokens_is_found(live: LiveTeacher, tmp_path: Path, name: str) -> None:
    reader = stored(live, tmp_path, SIGNALS, name, longer)
    with pytest.raises(DamagedCache, match=rf"the answer \({name}\) for row 105 has cosine nan"):
        check_sample(reader, live, ROWS, TEXTS)


def test_a_vector_of_noughts_is_no_answer(live: LiveTeacher, tmp_path: Path) -> None:
    def nought(values: Any, at: int) -> Any:
        values = values.copy()
        values[at] = 0
        return values

    reader = stored(live, tmp_path, asked_for(("logits",)), "logits", nought)
    with pytest.raises(DamagedCache, match=r"the answer \(logits\) for row 105 has cosine 0\.0000"):
        check_sample(reader, live, ROWS, TEXTS)


@pytest.mark.parametrize("name", [signal.name for signal in SIGNALS])
def test_a_teacher_that_says_no_numbers_now_is_found(live: LiveTeacher, tmp_path: Path, name: str) -> None:
    reader = stored(live, tmp_path, SIGNALS)

    class Broken(LiveTeacher):
        def ask_all(self, *asked: Any) -> Any:
            for rows, values in super().ask_all(*asked):
                spoiled = values[BY_NAME[name]]
                numbers = spoiled.values if isinstance(spoiled, PerToken) else spoiled
                numbers[-1, -1] = np.nan
                yield rows, values

    broken = Broken(live.folder, live.model, live.tokeniser, live.max_length, live.pad, live.precision, 10_000)
    with pytest.raises(DamagedCache, match=rf"the answer \({name}\) for row \d+ has cosine nan"):
        check_sample(reader, broken, ROWS, TEXTS)


def test_a_text_that_has_no_answer_is_told(live: LiveTeacher, tmp_path: Path) -> None:
    reader = stored(live, tmp_path, asked_for(("logits",)))
    with pytest.raises(InputError, match="holds no answer for 1 of 2 texts"):
        check_sample(reader, live, ROWS[:2], [TEXTS[0], "never seen"])


def test_a_small_difference_of_precision_passes(live: LiveTeacher, tmp_path: Path) -> None:
    def rounded(values: Any, at: int) -> Any:
        return torch.from_numpy(values).bfloat16().float().numpy()

    check_sample(stored(live, tmp_path, SIGNALS, "logits", rounded), live, ROWS, TEXTS)


def test_rounding_of_an_answer_near_nought_passes_and_another_answer_there_does_not() -> None:
    usual = 4.0
    unsure, moved, other = np.array([[0.1, -0.1]]), np.array([[0.13, -0.09]]), np.array([[-0.1, 0.1]])
    sure = np.array([[2.9, -2.8]])
    assert cosine(unsure, moved)[0] < 0.99
    assert cosine(unsure, moved, usual)[0] > 0.999
    assert cosine(unsure, other, usual)[0] < 0.99
    assert cosine(unsure, sure, usual)[0] < cosine(unsure, sure)[0] + 1e-12
    assert cosine(np.zeros((1, 2)), sure, usual)[0] == 0.0
    assert np.isnan(cosine(np.array([[np.nan, 0.0]]), unsure, usual)[0])


@pytest.mark.parametrize(("moved", "same"), [((0.0, 0.004), True), ((-0.01, 0.014), True), ((-0.04, 0.0), False)])
def test_a_text_between_two_classes_does_not_condemn_the_cache(
    live: LiveTeacher, tmp_path: Path, moved: tuple[float, float], same: bool
) -> None:
    usual = stored(live, tmp_path / "true", asked_for(("logits",))).usual_norm("logits")
    faint = np.zeros(len(LABELS), dtype=np.float32)
    faint[0] = 0.02 * usual

    def unsure(values: Any, at: int) -> Any:
        values = values.copy()
        values[at] = faint
        return values

    class Unsure(LiveTeacher):
        def ask_all(self, *asked: Any) -> Any:
            for rows, values in super().ask_all(*asked):
                logits = values[BY_NAME["logits"]]
                logits[rows == 5] = faint + usual * np.array([*moved, 0.0], dtype=np.float32)
                yield rows, values

    reader = stored(live, tmp_path / "unsure", asked_for(("logits",)), "logits", unsure)
    now = Unsure(live.folder, live.model, live.tokeniser, live.max_length, live.pad, live.precision, 100)
    if same:
        check_sample(reader, now, ROWS, TEXTS)
    else:
        with pytest.raises(DamagedCache, match=r"the answer \(logits\) for row 105"):
            check_sample(reader, now, ROWS, TEXTS)
