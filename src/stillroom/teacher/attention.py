"""Attention for training: plain matrix products on a CPU, the fused kernel elsewhere.

On a CPU the backward pass of the fused kernel is several times slower than matrix products, and transformers' own eager
attention goes through fp32 under autocast, which takes longer than the products themselves (benchmarks/teach.py).
"""

from typing import Any

import torch
from torch import nn

NAME = "stillroom"


def use_training_attention(encoder: Any) -> None:
    """Have an encoder of transformers compute its attention by `attention`; one that cannot be told keeps its own."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    encoder.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention in the precision of `value`; the softmax still sums in fp32.

    query, key, value: [rows, heads, tokens, width]; attention_mask: [rows, 1, 1 or tokens, tokens], added to scores.
    Returns [rows, tokens, heads, width], as transformers' AttentionInterface asks.
    """
    if value.device.type != "cpu":
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        options |= {"dropout": dropout, "scaling": scaling}
        output: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return output, None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        scores = (query * scaling).to(value.dtype) @ key.to(value.dtype).transpose(2, 3)
        if attention_mask is not None:
            scores = scores + attention_mask.to(value.dtype).clamp(min=torch.finfo(value.dtype).min)
        weights = nn.functional.dropout(scores.softmax(dim=-1), dropout, module.training)
        return (weights @ value).transpose(1, 2).contiguous(), None
