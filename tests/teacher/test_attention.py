from pathlib import Path

import pytest
import torch
from torch import nn

from stillroom.teacher.attention import attention, use_training_attention
from stillroom.teacher.model import load_encoder
from tests.teacher.families import FAMILIES, write_family

ROWS, HEADS, TOKENS, WIDTH = 3, 2, 5, 8


def tensors(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(ROWS, HEADS, TOKENS, WIDTH, generator=generator) for _ in range(3))
    mask = torch.zeros(ROWS, 1, 1, TOKENS)
    mask[1, :, :, 3:] = mask[2, :, :, 1:] = torch.finfo(torch.float32).min
    return query.to(dtype), key.to(dtype), value.to(dtype), mask


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_equals_the_fused_kernel_in_value_and_gradient(dtype: torch.dtype, tolerance: float) -> None:
    query, key, value, mask = tensors(dtype)
    for tensor in (query, key, value):
        tensor.requires_grad_()
    ours, _ = attention(nn.Module(), query, key, value, mask)
    fused = nn.functional.scaled_dot_product_attention(query, key, value, mask.to(dtype)).transpose(1, 2)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, fused, atol=tolerance, rtol=tolerance)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((out * weight).sum(), (query, key, value)) for out in (ours, fused)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2 * tolerance, rtol=2 * tolerance)


def test_a_text_of_which_nothing_may_be_read_gives_numbers() -> None:
    query, key, value, mask = tensors(torch.bfloat16)
    mask[:] = torch.finfo(torch.float32).min
    ours, _ = attention(nn.Module(), query, key, value, mask)
    assert torch.isfinite(ours).all()


def test_the_softmax_leaves_fp32_to_itself_under_autocast() -> None:
    query, key, value, mask = tensors(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        ours, _ = attention(nn.Module(), query.float(), key, value, mask)  # a rotated query comes in fp32
    assert ours.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_answers_as_with_its_own_attention(kind: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, kind)
    ours = load_encoder(folder).eval()
    own = load_encoder(folder).eval()
    own.set_attn_implementation("eager")
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[2, 2:] = 0
    with torch.inference_mode():
        outputs = [model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()] for model in (ours, own)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_an_encoder_that_cannot_be_told_keeps_its_own(tmp_path: Path) -> None:
    encoder = load_encoder(write_family(tmp_path, "mpnet"))
    use_training_attention(encoder)
    assert encoder.config._attn_implementation == "eager"
