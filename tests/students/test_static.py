from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.batching import Tokens
from stillroom.students import static
from stillroom.students.material import Material
from stillroom.students.static import (
    StaticGraph,
    StaticLearner,
    StaticStudent,
    bag_batches,
    initial_table,
)

VOCABULARY = 40


def student_of(seed: int = 0) -> StaticStudent:
    torch.manual_seed(seed)
    student = StaticStudent(VOCABULARY, 8, 16, 3).eval()
    with torch.no_grad():
        student.token_weight.copy_(torch.randn(VOCABULARY))
    return student


bags = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), min_size=1, max_size=6)


def tokens_of(texts: list[list[int]]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return Tokens(np.array([token for text in texts for token in text], np.int32), offsets)


@given(texts=bags)
def test_the_exported_graph_on_padded_ids_is_the_student_on_bags(texts: list[list[int]]) -> None:
    student = student_of()
    tokens = tokens_of(texts)
    ids, mask = tokens.padded(np.arange(len(texts)), pad=0)
    with torch.inference_mode():
        expected = student(torch.from_numpy(tokens.ids.astype(np.int64)), torch.from_numpy(tokens.offsets))
        found = StaticGraph(student)(torch.from_numpy(ids), torch.from_numpy(mask))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@given(texts=bags, more=st.integers(0, 5))
def test_more_padding_changes_nothing(texts: list[list[int]], more: int) -> None:
    graph = StaticGraph(student_of())
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


@pytest.mark.parametrize(("rows", "width", "dimensions"), [(30, 12, 5), (30, 12, 12), (30, 12, 20), (6, 12, 10)])
def test_the_initial_table_has_the_shape_asked_for(rows: int, width: int, dimensions: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(50, width)).astype(np.float32)
    kept = np.random.default_rng(1).permutation(50)[:rows]
    table = initial_table(embeddings, kept, dimensions)
    assert table.shape == (rows, dimensions)
    assert table.dtype == np.float32
    assert np.linalg.norm(table, axis=1).mean() == pytest.approx(dimensions**0.5)
    used = min(rows, width, dimensions)
    assert not table[:, used:].any()
    variances = table[:, :used].var(axis=0)
    assert (np.diff(variances) <= 1e-6).all(), "principal components come in the order of their share"


def test_with_all_components_distances_between_tokens_are_kept() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    table = initial_table(embeddings, np.arange(20), 6)
    before, after = (np.linalg.norm(part[:, None] - part[None], axis=2) for part in (embeddings, table))
    scale = after[0, 1] / before[0, 1]
    np.testing.assert_allclose(after, before * scale, atol=1e-4)


def test_a_table_of_equal_embeddings_is_finite() -> None:
    assert not initial_table(np.ones((5, 4), np.float32), np.arange(5), 3).any()


def test_a_student_starts_from_the_teachers_embeddings(
    settings_of: Callable[..., Any], material_of: Callable[..., Material]
) -> None:
    settings = settings_of("static", dimensions=16, hidden=8)
    material = material_of(settings, special_tokens=False)
    student = static.build(material, settings)
    embeddings = material.teacher.encoder.get_input_embeddings().weight.detach().numpy()
    expected = initial_table(embeddings, material.kept, 16)
    np.testing.assert_allclose(student.table.weight.detach().numpy(), expected, atol=1e-6)
    torch.testing.assert_close(torch.nn.functional.softplus(student.token_weight), torch.ones(len(material.kept)))
    assert student.body[3].out_features == 3
    assert material.pad == 0


class Clock(StaticLearner):
    """A learner whose step is set by hand."""

    step = 0

    @property
    def global_step(self) -> int:
        return self.step


def dropped(learner: Clock, step: int) -> list[int]:
    learner.step = step
    ids, offsets = learner._without_some_words(torch.arange(100) % VOCABULARY, torch.tensor([0, 40, 40, 100]))
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    assert offsets[1] == offsets[2]
    return [*ids.tolist(), -1, *offsets.tolist()]


def test_word_dropout_is_seeded_by_the_step_and_not_by_the_past(settings_of: Callable[..., Any]) -> None:
    settings = settings_of("static", word_dropout=0.3)
    one, other = (Clock(student_of(), settings, 10, seed) for seed in (0, 1))
    first = dropped(one, 5)
    torch.randn(7)
    assert dropped(one, 6) != first
    assert dropped(one, 5) == first
    assert dropped(Clock(student_of(), settings, 10, 0), 5) == first
    assert dropped(other, 5) != first
    assert 50 < first.index(-1) < 90


def test_dropped_words_are_those_of_their_own_text(settings_of: Callable[..., Any]) -> None:
    learner = Clock(student_of(), settings_of("static", word_dropout=0.5), 10, 0)
    ids = torch.tensor([1] * 20 + [2] * 20 + [3] * 20)
    kept, offsets = learner._without_some_words(ids, torch.tensor([0, 20, 40, 60]))
    for text in range(3):
        part = kept[offsets[text] : offsets[text + 1]]
        assert 0 < len(part) < 20
        assert part.eq(text + 1).all()


def test_without_word_dropout_every_word_stays(settings_of: Callable[..., Any]) -> None:
    learner = Clock(student_of(), settings_of("static", word_dropout=0), 10, 0)
    assert dropped(learner, 3).index(-1) == 100


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


def test_a_described_student_is_loaded_in_its_shape(tmp_path: Path) -> None:
    shape = static.describe(student_of(), tmp_path)
    assert shape == {"vocabulary": VOCABULARY, "dimensions": 8, "hidden": 16, "classes": 3}
    loaded = static.load(tmp_path, shape)
    assert [value.shape for value in loaded.state_dict().values()] == [
        value.shape for value in student_of().state_dict().values()
    ]


def test_a_loss_reads_the_teachers_answers_when_there_are_some(settings_of: Callable[..., Any]) -> None:
    settings = settings_of("static", word_dropout=0, hard_weight=0.5)
    learner = Clock(student_of(), settings, 10, 0)
    batch = {"ids": torch.tensor([1, 2, 3]), "offsets": torch.tensor([0, 2, 3]), "label": torch.tensor([0, 1])}
    without = learner.loss(batch)
    logits = learner.predict_logits(batch)
    assert torch.equal(without, torch.nn.functional.cross_entropy(logits, batch["label"]))
    assert torch.equal(learner.loss(batch | {"logits": logits.detach()}), 0.5 * without)
    assert learner.loss(batch | {"logits": -logits.detach()}) > 0.5 * without
