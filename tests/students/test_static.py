from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillroom.batching import Tokens
from stillroom.students import static
from stillroom.students.material import Material
from stillroom.students.static import (
    StaticGraph,
    StaticLearner,
    StaticStudent,
    bag_batches,
    bucket,
)

VOCABULARY = 40


def student_of(seed: int = 0, pairs: int = 0) -> StaticStudent:
    torch.manual_seed(seed)
    student = StaticStudent(VOCABULARY, 8, 16, 3, pairs).eval()
    with torch.no_grad():
        student.token_weight.copy_(torch.randn(VOCABULARY))
        if student.pairs is not None:
            nn.init.normal_(student.pairs.weight)
    return student


bags = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), min_size=1, max_size=6)


def tokens_of(texts: list[list[int]]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return Tokens(np.array([token for text in texts for token in text], np.int32), offsets)


@pytest.mark.parametrize("pairs", [0, 7, 64])
@given(texts=bags)
def test_the_exported_graph_on_padded_ids_is_the_student_on_bags(pairs: int, texts: list[list[int]]) -> None:
    student = student_of(pairs=pairs)
    tokens = tokens_of(texts)
    ids, mask = tokens.padded(np.arange(len(texts)), pad=0)
    with torch.inference_mode():
        expected = student(torch.from_numpy(tokens.ids.astype(np.int64)), torch.from_numpy(tokens.offsets))
        found = StaticGraph(student)(torch.from_numpy(ids), torch.from_numpy(mask))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", [0, 7])
@given(texts=bags, more=st.integers(0, 5))
def test_more_padding_changes_nothing(pairs: int, texts: list[list[int]], more: int) -> None:
    graph = StaticGraph(student_of(pairs=pairs))
    ids, mask = (torch.from_numpy(part) for part in tokens_of(texts).padded(np.arange(len(texts)), pad=0))
    wider = [torch.nn.functional.pad(part, (0, more)) for part in (ids, mask)]
    with torch.inference_mode():
        torch.testing.assert_close(graph(*wider), graph(ids, mask), atol=1e-5, rtol=1e-5)


def test_texts_without_a_token_get_an_answer_that_is_finite() -> None:
    student = student_of()
    with torch.inference_mode():
        logits = student(torch.zeros(0, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    assert logits.shape == (3, 3)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits[0], logits[1])


def test_a_text_that_spells_the_padding_is_no_longer_sum() -> None:
    student = student_of()
    with torch.inference_mode():
        spelt = student(torch.tensor([0, 3, 0]), torch.tensor([0, 3]))
        found = StaticGraph(student)(torch.tensor([[0, 3, 0]]), torch.tensor([[1, 1, 1]]))
    torch.testing.assert_close(found, spelt)


def test_the_order_of_words_does_not_matter_and_their_number_does() -> None:
    student = student_of()

    def answer(*ids: int) -> torch.Tensor:
        with torch.inference_mode():
            return student(torch.tensor(ids), torch.tensor([0, len(ids)]))

    torch.testing.assert_close(answer(1, 2, 3), answer(3, 1, 2))
    assert not torch.allclose(answer(1, 2, 2), answer(1, 2))


def test_a_student_starts_with_equal_weights_for_all_tokens(
    settings_of: Callable[..., Any], material_of: Callable[..., Material]
) -> None:
    settings = settings_of("static", dimensions=16, hidden=8)
    material = material_of(settings, special_tokens=False)
    student = static.build(material, settings)
    torch.testing.assert_close(torch.nn.functional.softplus(student.token_weight), torch.ones(len(material.kept)))
    assert student.body[3].out_features == 3
    assert material.pad == 0


class Clock(StaticLearner):
    """A learner whose step is set by hand."""

    step = 0

    @property
    def global_step(self) -> int:
        return self.step


class Heard(nn.Module):
    """Stands for the student and keeps what it is given."""

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        self.ids, self.offsets = ids, offsets
        return torch.zeros(len(offsets) - 1, 3)


def clock(settings: Any, seed: int = 0) -> Clock:
    return Clock(Heard(), settings, 10, seed)  # type: ignore[arg-type]


def heard(learner: Clock, ids: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    learner.logits_of({"ids": ids, "offsets": offsets})
    student: Any = learner.student
    return student.ids, student.offsets


def dropped(learner: Clock, step: int) -> list[int]:
    learner.step = step
    ids, offsets = heard(learner, torch.arange(100) % VOCABULARY, torch.tensor([0, 40, 40, 100]))
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    assert offsets[1] == offsets[2]
    return [*ids.tolist(), -1, *offsets.tolist()]


def test_word_dropout_is_seeded_by_the_step_and_not_by_the_past(settings_of: Callable[..., Any]) -> None:
    settings = settings_of("static", word_dropout=0.3)
    one, other = (clock(settings, seed) for seed in (0, 1))
    first = dropped(one, 5)
    torch.randn(7)
    assert dropped(one, 6) != first
    assert dropped(one, 5) == first
    assert dropped(clock(settings), 5) == first
    assert dropped(other, 5) != first
    assert 50 < first.index(-1) < 90


def test_dropped_words_are_those_of_their_own_text(settings_of: Callable[..., Any]) -> None:
    learner = clock(settings_of("static", word_dropout=0.5))
    ids = torch.tensor([1] * 20 + [2] * 20 + [3] * 20)
    kept, offsets = heard(learner, ids, torch.tensor([0, 20, 40, 60]))
    for text in range(3):
        part = kept[offsets[text] : offsets[text + 1]]
        assert 0 < len(part) < 20
        assert part.eq(text + 1).all()


def test_without_word_dropout_every_word_stays(settings_of: Callable[..., Any]) -> None:
    assert dropped(clock(settings_of("static", word_dropout=0)), 3).index(-1) == 100
    judging = clock(settings_of("static", word_dropout=0.5)).eval()
    assert dropped(judging, 3).index(-1) == 100


@given(texts=bags, rows=st.integers(1, 4), seed=st.none() | st.integers(0, 5))
def test_bag_batches_hold_every_row_once_with_its_columns(texts: list[list[int]], rows: int, seed: int | None) -> None:
    tokens = tokens_of(texts)
    batches = bag_batches(tokens, rows, seed, {"label": torch.arange(len(texts))})
    seen: list[int] = []
    for batch in batches:
        seen += batch["label"].tolist()
        assert 1 <= len(batch["label"]) <= rows
        for place, row in enumerate(batch["label"].tolist()):
            own = batch["ids"][batch["offsets"][place] : batch["offsets"][place + 1]]
            assert own.tolist() == texts[row]
    assert sorted(seen) == list(range(len(texts)))
    if seed is None:
        assert seen == sorted(seen)


@given(texts=bags)
def test_pairs_are_those_of_neighbours_in_one_text(texts: list[list[int]]) -> None:
    student = student_of(pairs=16)
    assert student.pairs is not None
    table = student.pairs.weight.detach()
    nn.init.zeros_(student.table.weight)
    tokens = tokens_of(texts)
    expected = torch.zeros(len(texts), 8)
    for row, text in enumerate(texts):
        for first, second in pairwise(text):
            expected[row] += table[(first * 1_103_515_245 + second * 1_566_083_941) % (2**31 - 1) % 16] / len(text)
    with torch.inference_mode():
        found = student(torch.from_numpy(tokens.ids.astype(np.int64)), torch.from_numpy(tokens.offsets))
        torch.testing.assert_close(found, student.body(expected), atol=1e-4, rtol=1e-4)


def test_pairs_tell_the_order_of_words_apart() -> None:
    student = student_of(pairs=64)
    with torch.inference_mode():
        one, other = (student(torch.tensor(ids), torch.tensor([0, 3])) for ids in ([1, 2, 3], [3, 2, 1]))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("buckets", [1000, 1 << 10])
def test_pairs_spread_over_the_buckets_as_by_chance(buckets: int) -> None:
    first, second = torch.arange(200).repeat_interleave(200), torch.arange(200).repeat(200)
    counts = torch.bincount(bucket(first, second, buckets), minlength=buckets).float()
    assert len(counts) == buckets
    assert float(counts.var() / counts.mean()) < 1.5, "the variance of a Poisson number is its mean"
    large = torch.full((1,), 2**31 - 2)
    assert 0 <= int(bucket(large, large, buckets)) < buckets, "no overflow"


def test_pairs_change_nothing_at_first_and_then_learn(
    settings_of: Callable[..., Any], material_of: Callable[..., Material]
) -> None:
    built = []
    for buckets in (0, 32):
        settings = settings_of("static", dimensions=8, hidden=8, ngram_buckets=buckets)
        torch.manual_seed(0)
        built.append(static.build(material_of(settings, special_tokens=False), settings).eval())
    plain, paired = built
    ids, offsets = torch.tensor([4, 5, 6, 7]), torch.tensor([0, 3, 4])
    assert torch.equal(plain(ids, offsets), paired(ids, offsets))
    assert set(paired.state_dict()) - set(plain.state_dict()) == {"pairs.weight"}
    assert paired.pairs is not None
    paired(ids, offsets).square().sum().backward()
    gradient = paired.pairs.weight.grad
    assert gradient is not None
    touched = set(gradient.abs().sum(dim=1).nonzero().flatten().tolist())
    assert touched == set(bucket(ids[:2], ids[1:3], 32).tolist())


def test_words_are_dropped_before_pairs_are_made(settings_of: Callable[..., Any]) -> None:
    settings = settings_of("static", word_dropout=0.5)
    student = student_of(pairs=64)
    batch = {"ids": torch.arange(1, 31), "offsets": torch.tensor([0, 30])}
    with torch.inference_mode():
        found = Clock(student, settings, 10, 0).logits_of(batch)
        ids, offsets = heard(clock(settings), **batch)
        assert 5 < len(ids) < 25
        assert torch.equal(found, student(ids, offsets))


def test_a_described_student_is_loaded_in_its_shape(tmp_path: Path) -> None:
    shape = static.describe(student_of(), tmp_path)
    assert shape == {"vocabulary": VOCABULARY, "dimensions": 8, "hidden": 16, "classes": 3}
    loaded = static.load(tmp_path, shape)
    assert [value.shape for value in loaded.state_dict().values()] == [
        value.shape for value in student_of().state_dict().values()
    ]


def test_a_described_student_with_pairs_has_its_table(tmp_path: Path) -> None:
    student = student_of(pairs=7)
    static.load(tmp_path, static.describe(student, tmp_path)).load_state_dict(student.state_dict())


def test_a_loss_reads_the_teachers_answers_when_there_are_some(settings_of: Callable[..., Any]) -> None:
    settings = settings_of("static", word_dropout=0, hard_weight=0.5)
    learner = Clock(student_of(), settings, 10, 0)
    batch = {"ids": torch.tensor([1, 2, 3]), "offsets": torch.tensor([0, 2, 3]), "label": torch.tensor([0, 1])}
    without = learner.loss(batch)
    logits = learner.predict_logits(batch)
    assert torch.equal(without, torch.nn.functional.cross_entropy(logits, batch["label"]))
    assert torch.equal(learner.loss(batch | {"logits": logits.detach()}), 0.5 * without)
    assert learner.loss(batch | {"logits": -logits.detach()}) > 0.5 * without
