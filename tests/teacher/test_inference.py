import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.batching import Ints, Tokens, token_batches, tokenise
from stillroom.errors import InputError
from stillroom.teacher.inference import answers, forward_batches, predict
from stillroom.teacher.model import Classifier, EncoderClassifier, ReadyClassifier, load_encoder
from stillroom.teacher.tokeniser import pad_id, read_tokeniser
from tests.teacher.families import write_family
from tests.toys import toy_rows

TEXTS = toy_rows(40, seed=12).text


def no_memory() -> None:
    raise MemoryError


def no_cuda_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_cpu_memory() -> None:
    torch.empty(10**15)


class Small(torch.nn.Module):
    """Holds batches of so many cells; each text's logits are its sum of ids and its number of tokens."""

    def __init__(self, cells: int, fail: Callable[[], None] = no_memory) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.cells, self.fail = cells, fail
        self.seen: list[tuple[int, int]] = []

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append((len(ids), ids.numel()))
        if ids.numel() > self.cells:
            self.fail()
        logits = torch.stack([(ids * mask).sum(1), mask.sum(1)], dim=1) * self.weight
        return logits, logits[:, :1]


def tokens_of(lengths: Sequence[int]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


def expected_of(tokens: Tokens, rows: Ints) -> Any:
    return np.stack([[tokens.one(row).sum(), len(tokens.one(row))] for row in rows])


def hooks_of(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture(scope="module")
def tokens(tiny_checkpoint: Path) -> Tokens:
    return tokenise(read_tokeniser(tiny_checkpoint, 32), TEXTS, 32)


@pytest.fixture(scope="module", params=["mean", "cls"])
def model(tiny_checkpoint: Path, request: Any) -> EncoderClassifier:
    torch.manual_seed(1)
    return EncoderClassifier(load_encoder(tiny_checkpoint), 32, 3, request.param).eval()


@pytest.mark.parametrize("budget", [1, 33, 200, 10_000])
def test_any_budget_gives_what_one_by_one_gives(model: EncoderClassifier, tokens: Tokens, budget: int) -> None:
    with torch.inference_mode():
        rows = [torch.from_numpy(tokens.one(row).astype(np.int64))[None] for row in range(len(tokens))]
        alone = torch.cat([model(ids, torch.ones_like(ids))[0] for ids in rows]).numpy()
    found = predict(model, tokens, 0, budget)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone, atol=2e-6)
    assert np.ptp(alone, axis=0).min() > 1e-3, "rows differ, so that a mix-up would be seen"


def test_padding_is_masked_out_whatever_its_id(model: EncoderClassifier, tokens: Tokens) -> None:
    np.testing.assert_allclose(predict(model, tokens, 0, 2000), predict(model, tokens, 7, 2000), atol=2e-6)


def test_every_row_comes_once_with_its_pooled_state(model: EncoderClassifier, tokens: Tokens) -> None:
    seen: list[int] = []
    for rows, logits, pooled in forward_batches(model, tokens, 0, 200):
        seen += rows.tolist()
        assert logits.shape == (len(rows), 3)
        assert pooled.shape == (len(rows), 32)
        expected = torch.from_numpy(pooled) @ model.head.weight.T + model.head.bias
        np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5)
    assert sorted(seen) == list(range(40))


def test_nothing_is_answered_with_nothing(model: EncoderClassifier) -> None:
    assert len(predict(model, Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64)), 0, 100)) == 0


def test_half_precision_is_computed_in_the_models_own(model: EncoderClassifier, tokens: Tokens) -> None:
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    found, expected = predict(half, tokens, 0, 200), predict(model, tokens, 0, 200)
    assert found.dtype == np.float32
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99
    assert not np.array_equal(found, expected)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(12, 80), st.integers(1, 400), st.randoms())
def test_every_row_comes_once_and_in_order_whatever_memory_holds(
    lengths: list[int], cells: int, budget: int, random: Any
) -> None:
    tokens, model = tokens_of(lengths), Small(cells)
    batches = token_batches(tokens.lengths, budget)
    random.shuffle(batches)
    found = list(answers(model, tokens, 0, batches))
    assert np.concatenate([answer.rows for answer in found]).tolist() == np.concatenate(batches).tolist()
    for answer in found:
        np.testing.assert_array_equal(answer.logits, expected_of(tokens, answer.rows))
        np.testing.assert_array_equal(answer.pooled, answer.logits[:, :1])
    failed = [size for _, size in model.seen if size > cells]
    assert len(model.seen) == len(found) + len(failed)
    for number, (texts, size) in enumerate(model.seen):
        before = [seen for _, seen in model.seen[:number] if seen > cells]
        assert texts == 1 or size < min(before, default=np.inf), "no batch as large as one that failed is tried again"


@pytest.mark.parametrize("fail", [no_memory, no_cuda_memory, no_cpu_memory])
def test_a_batch_too_large_for_memory_is_halved_and_so_are_later_ones(
    fail: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    tokens, model = tokens_of([10] * 32), Small(45, fail)
    with caplog.at_level(logging.WARNING, "stillroom"):
        found = list(answers(model, tokens, 0, np.split(np.arange(32), 2)))
    assert [size for _, size in model.seen] == [160, 80, *[40] * 8]
    assert [answer.rows.tolist() for answer in found] == np.arange(32).reshape(8, 4).tolist()
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory on cpu: batches of at most {limit} tokens from now on" for limit in (80, 40)
    ]


def test_halves_of_unlike_lengths_are_both_tried_as_they_are() -> None:
    model = Small(40)
    list(answers(model, tokens_of([10, 10, 20, 20, 20, 20]), 0, [np.arange(4), np.arange(4, 6)]))
    assert model.seen == [(4, 80), (2, 20), (2, 40), (2, 40)]


@pytest.mark.parametrize("fail", [no_memory, no_cuda_memory, no_cpu_memory])
def test_one_text_too_large_for_memory_is_refused(fail: Callable[[], None]) -> None:
    tokens = tokens_of([3, 50, 4])
    told = r"^a text of 50 tokens does not fit the memory of cpu; lower teacher\.max_length, or set compute\.precision"
    with pytest.raises(InputError, match=told) as caught:
        predict(Small(45, fail), tokens, 0, 200)
    assert "\n" not in str(caught.value)


def test_another_failure_is_no_lack_of_memory() -> None:
    def fail() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    model = Small(45, fail)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(model, tokens_of([10] * 32), 0, 200)
    assert len(model.seen) == 1


def ready_bert(folder: Path) -> ReadyClassifier:
    from transformers import BertForSequenceClassification

    return ReadyClassifier(BertForSequenceClassification.from_pretrained(folder, num_labels=3), [2, 0, 1])


@pytest.fixture(scope="module", params=["bert", "distilbert", "ready"])
def classifier(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Tokens, int]:
    """A teacher, texts, its padding."""
    kind = "bert" if request.param == "ready" else request.param
    folder = write_family(tmp_path_factory.mktemp("families") / request.param, kind)
    if request.param == "ready":
        model: Classifier = ready_bert(folder)
    else:
        model = EncoderClassifier(load_encoder(folder), 32, 3, "mean")
    return model.eval(), tokenise(read_tokeniser(folder, 32), TEXTS, 32), pad_id(folder)


@pytest.mark.parametrize("budget", [1, 200, 10_000])
def test_hidden_states_are_the_models_own_without_padding(
    classifier: tuple[Classifier, Tokens, int], budget: int
) -> None:
    model, tokens, pad = classifier
    batches = token_batches(tokens.lengths, budget)
    found = list(answers(model, tokens, pad, batches, (2, 1)))
    for answer, rows in zip(found, batches, strict=True):
        assert answer.rows is rows
        assert list(answer.hidden) == [2, 1]
        start = 0
        for row in rows:
            ids = torch.from_numpy(tokens.one(row).astype(np.int64))[None]
            with torch.inference_mode():
                states = model.encoder(ids, torch.ones_like(ids), output_hidden_states=True).hidden_states
            part = slice(start, start + ids.numel())
            for number, hidden in answer.hidden.items():
                assert hidden.dtype == np.float32
                np.testing.assert_allclose(hidden[part], states[number][0].numpy(), atol=2e-5)
            start += ids.numel()
        assert {len(hidden) for hidden in answer.hidden.values()} == {start}
        assert np.abs(answer.hidden[1] - answer.hidden[2]).max() > 0.1, "layers differ, so a mix-up would be seen"


def test_asking_for_layers_changes_no_logits(classifier: tuple[Classifier, Tokens, int]) -> None:
    model, tokens, pad = classifier
    found = answers(model, tokens, pad, token_batches(tokens.lengths, 200), [1])
    for answer, (rows, logits, pooled) in zip(found, forward_batches(model, tokens, pad, 200), strict=True):
        np.testing.assert_array_equal(answer.rows, rows)
        np.testing.assert_array_equal(answer.logits, logits)
        np.testing.assert_array_equal(answer.pooled, pooled)


def test_a_layer_may_give_a_tuple(model: EncoderClassifier, tokens: Tokens) -> None:
    one, two = model.encoder.encoder.layer
    batches = token_batches(tokens.lengths, 200)
    plain = [answer.hidden[1] for answer in answers(model, tokens, 0, batches, [1])]
    wrapped = one.register_forward_hook(lambda layer, inputs, output: (output, None))
    with wrapped, two.register_forward_pre_hook(lambda layer, inputs: (inputs[0][0], *inputs[1:])):
        for answer, expected in zip(answers(model, tokens, 0, batches, [1]), plain, strict=True):
            np.testing.assert_array_equal(answer.hidden[1], expected)


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_a_layer_that_the_teacher_lacks_is_refused(classifier: tuple[Classifier, Tokens, int], number: int) -> None:
    model, tokens, pad = classifier
    told = rf"^params\.yaml: capture\.signals names layer {number}; the teacher has 2 layers, so name 1 to 2$"
    with pytest.raises(InputError, match=told):
        next(answers(model, tokens, pad, [], (1, number)))


def test_layers_of_an_encoder_that_is_not_what_it_says_are_refused(tiny_checkpoint: Path, tokens: Tokens) -> None:
    model = EncoderClassifier(load_encoder(tiny_checkpoint), 32, 3, "mean").eval()
    model.encoder.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="has 0 lists of 5 layers"):
        next(answers(model, tokens, 0, [], [1]))


def test_no_hook_stays_behind(classifier: tuple[Classifier, Tokens, int]) -> None:
    model, tokens, pad = classifier
    before = hooks_of(model)
    batches = token_batches(tokens.lengths, 200)
    during: list[int] = []

    def watch(module: Any, inputs: Any) -> None:
        during.append(hooks_of(model))
        if len(during) == 4:
            raise KeyError("inside")

    list(answers(model, tokens, pad, batches, (1, 2)))
    assert hooks_of(model) == before
    with model.register_forward_pre_hook(watch):
        closed = answers(model, tokens, pad, batches, (1, 2))
        next(closed)
        closed.close()  # type: ignore[attr-defined]
        assert hooks_of(model) == before
        with pytest.raises(KeyError, match="inside"):
            list(answers(model, tokens, pad, batches, (1, 2)))
    assert hooks_of(model) == before
    assert during == [before + 2] * 4


def test_hidden_states_survive_a_halving(classifier: tuple[Classifier, Tokens, int]) -> None:
    model, tokens, pad = classifier
    rows = np.arange(len(tokens))

    def full(module: Any, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        if inputs[0].numel() > 300:
            no_cpu_memory()

    (whole,) = answers(model, tokens, pad, [rows], [2])
    with model.register_forward_pre_hook(full):
        parts = list(answers(model, tokens, pad, [rows], [2]))
    assert len(parts) > 2
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), rows)
    np.testing.assert_allclose(np.concatenate([part.hidden[2] for part in parts]), whole.hidden[2], atol=2e-5)
    np.testing.assert_allclose(np.concatenate([part.logits for part in parts]), whole.logits, atol=2e-5)


def test_what_is_done_between_two_answers_has_gradients(model: EncoderClassifier, tokens: Tokens) -> None:
    for _ in forward_batches(model, tokens, 0, 200):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
