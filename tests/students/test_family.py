"""What is asked of every family, and of those whose exported form reads padded ids and mask as they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stillroom.batching import Tokens
from stillroom.export.onnx import export_onnx, onnx_logits, torch_logits
from stillroom.students.bilstm import BilstmStudent
from stillroom.students.cnn import CnnStudent
from stillroom.students.distil import FAMILIES
from stillroom.students.family import TokenLearner, without_some_tokens
from stillroom.students.material import Material
from stillroom.teacher.model import count_params

VOCABULARY = 40
SMALL: dict[str, list[dict[str, Any]]] = {
    "static": [{"dimensions": 6, "hidden": 10}, {"dimensions": 6, "hidden": 10, "ngram_buckets": 100}],
    "cnn": [{"dimensions": 6, "filters": 5, "widths": [1, 4]}, {"dimensions": 40, "filters": 3, "widths": [2]}],
    "bilstm": [{"dimensions": 6, "hidden": 5}, {"dimensions": 40, "hidden": 3}],
    "sliced": [{"layers": 1}, {"layers": 2}],
    "narrow": [{"layers": 1, "width": 16}, {"layers": 2, "width": 32}],
    "pretrained": [{}, {"layers": 1}],
}


def cnn_of() -> CnnStudent:
    torch.manual_seed(0)
    return CnnStudent(VOCABULARY, 8, 6, (2, 4), 3).eval()


def bilstm_of() -> BilstmStudent:
    torch.manual_seed(0)
    return BilstmStudent(VOCABULARY, 8, 6, 3).eval()


STUDENTS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn_of, "bilstm": bilstm_of}
padded = pytest.mark.parametrize("name", STUDENTS)
texts_of_tokens = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), min_size=1, max_size=6)


def tokens_of(texts: list[list[int]]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return Tokens(np.array([token for text in texts for token in text], np.int32), offsets)


def padded_of(texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = tokens_of(texts).padded(np.arange(len(texts)), pad=0)
    return torch.from_numpy(ids), torch.from_numpy(mask)


@pytest.mark.parametrize(("family", "changes"), [(name, each) for name, all_ in SMALL.items() for each in all_])
def test_the_cost_is_known_before_the_student_is_built(
    settings_of: Callable[..., Any], material_of: Callable[..., Material], family: str, changes: dict[str, Any]
) -> None:
    chosen = settings_of(family, **changes)
    module = FAMILIES[family]
    material = material_of(chosen, module.SPECIAL_TOKENS)
    cost = module.cost(material, chosen)
    assert cost.params == count_params(module.build(material, chosen))
    assert 0 < cost.bytes_per_token < cost.params
    assert min(cost.flops_per_token, cost.flops_per_text) > 0


def test_every_family_is_asked_for_its_cost() -> None:
    assert set(SMALL) == set(FAMILIES)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@padded
@settings(max_examples=40)
@given(texts=texts_of_tokens, more=st.integers(0, 5), under=st.integers(0, VOCABULARY - 1))
def test_nothing_depends_on_padding_nor_on_what_stands_in_it(
    name: str, texts: list[list[int]], more: int, under: int
) -> None:
    student = STUDENTS[name]()
    ids, mask = padded_of(texts)
    wider_ids, wider_mask = (nn.functional.pad(part, (0, more)) for part in (ids, mask))
    with torch.inference_mode():
        expected = student(ids, mask)
        found = student(wider_ids.masked_fill(wider_mask == 0, under), wider_mask)
        alone = torch.cat([student(*padded_of([text])) for text in texts])
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alone, expected, atol=1e-6, rtol=1e-5)


@padded
def test_the_order_of_words_counts(name: str) -> None:
    student = STUDENTS[name]()
    with torch.inference_mode():
        one, other = (student(*padded_of([text])) for text in ([1, 2, 3, 4], [1, 3, 2, 4]))
    assert not torch.allclose(one, other)


@padded
def test_every_weight_learns(name: str) -> None:
    student = STUDENTS[name]()
    student(*padded_of([[1, 2, 3, 4, 5, 6], [7, 8]])).square().sum().backward()
    without_gradient = [key for key, weight in student.named_parameters() if not weight.grad.abs().sum() > 0]  # type: ignore[union-attr]
    assert without_gradient == []


@padded
def test_a_described_student_is_loaded_and_answers_alike(tmp_path: Path, name: str) -> None:
    family, student = FAMILIES[name], STUDENTS[name]()
    loaded = family.load(tmp_path, family.describe(student, tmp_path))
    loaded.load_state_dict(student.state_dict())
    inputs = padded_of([[1, 2, 3], []])
    with torch.inference_mode():
        assert torch.equal(family.graph(loaded.eval())(*inputs), student(*inputs))


@padded
def test_the_graph_answers_as_pytorch_in_any_batch_and_in_int8(tmp_path: Path, name: str) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    student = STUDENTS[name]()
    generator = np.random.default_rng(0)
    tokens = tokens_of([generator.integers(0, VOCABULARY, size).tolist() for size in (0, 1, 2, 3, 9, 30, 0, 12, 1, 5)])
    expected = torch_logits(FAMILIES[name].graph(student), tokens, 10_000)
    export_onnx(FAMILIES[name].graph(student), tmp_path / "fp32.onnx")
    for budget in (1, 30, 10_000):
        np.testing.assert_allclose(onnx_logits(tmp_path / "fp32.onnx", tokens, budget, 1), expected, atol=1e-5)
    quantize_dynamic(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    spread = float(np.ptp(expected, axis=0).min())
    for budget in (1, 10_000):
        found = onnx_logits(tmp_path / "int8.onnx", tokens, budget, 1)
        np.testing.assert_allclose(found, expected, atol=0.1 * spread)


@given(texts=texts_of_tokens, seed=st.integers(0, 3), step=st.integers(0, 3))
def test_dropped_tokens_are_closed_up(texts: list[list[int]], seed: int, step: int) -> None:
    ids, mask = padded_of(texts)
    kept, still = without_some_tokens(ids, mask, 0.5, seed, step)
    assert kept.shape == still.shape == ids.shape
    assert torch.equal(still, still.sort(dim=1, descending=True).values), "padding comes last"
    for row, text in enumerate(texts):
        rest = iter(text)
        assert all(token in rest for token in kept[row, : int(still[row].sum())].tolist()), "in their order"
    assert all(torch.equal(part, other) for part, other in zip((ids, mask), padded_of(texts), strict=True))


def test_what_is_dropped_depends_on_seed_and_step_and_on_training(settings_of: Callable[..., Any]) -> None:
    class Heard(nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (ids * mask).float()

    class Clock(TokenLearner):
        step = 0

        @property
        def global_step(self) -> int:
            return self.step

    def answer(seed: int, step: int, dropout: float = 0.5, training: bool = True) -> list[list[float]]:
        clock = Clock(Heard(), settings_of("cnn"), 10, dropout, seed).train(training)
        clock.step = step
        ids, mask = padded_of([list(range(1, 31)), [5] * 10])
        found: list[list[float]] = clock.logits_of({"ids": ids, "mask": mask}).tolist()
        return found

    assert answer(0, 3) == answer(0, 3)
    assert len({str(answer(seed, step)) for seed, step in ((0, 3), (0, 4), (1, 3))}) == 3
    whole = answer(0, 3, training=False)
    assert whole == answer(0, 3, dropout=0.0)
    assert np.count_nonzero(whole) == 40
    assert 10 < np.count_nonzero(answer(0, 3)) < 30
