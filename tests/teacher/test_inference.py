from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.batching import Tokens, tokenise
from stillroom.teacher.inference import forward_batches, predict
from stillroom.teacher.model import EncoderClassifier, load_encoder
from stillroom.teacher.tokeniser import read_tokeniser
from tests.toys import toy_rows

TEXTS = toy_rows(40, seed=12).text


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
