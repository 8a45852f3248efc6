"""Tiny configurations of the encoder families that are supported, each with the tokeniser it usually has."""

from pathlib import Path
from typing import Any

import numpy as np

from stillroom.batching import tokenise
from stillroom.students.material import Material
from stillroom.teacher.model import Description, EncoderClassifier, count_params, load_encoder
from stillroom.teacher.tokeniser import pad_id, read_tokeniser
from tests.toys import LABELS, toy_rows, train_tokeniser, write_checkpoint

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("WordPiece", {**SIZES, "pad_token_id": 0}),
    "distilbert": ("WordPiece", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "pad_token_id": 0}),
    "mpnet": ("WordLevel", {**SIZES, "pad_token_id": 1}),
    "roberta": ("BPE", {**SIZES, "pad_token_id": 1}),
    "xlm-roberta": ("Unigram", {**SIZES, "pad_token_id": 1}),
    "modernbert": (
        "BPE",
        {
            **SIZES,
            "pad_token_id": 1,
            "cls_token_id": 0,
            "bos_token_id": 0,
            "sep_token_id": 2,
            "eos_token_id": 2,
            "global_attn_every_n_layers": 2,
        },
    ),
    "deberta-v2": (
        "WordPiece",
        {
            **SIZES,
            "pad_token_id": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
}


def write_family(folder: Path, kind: str, **changes: Any) -> Path:
    """A checkpoint of a family with random weights, large enough that every part of it shows in the outputs."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    tokeniser_kind, settings = FAMILIES[kind]
    tokeniser = train_tokeniser(tokeniser_kind, toy_rows(60, seed=1).text)
    settings = settings | {"vocab_size": tokeniser.get_vocab_size(), "initializer_range": 0.2} | changes
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings))
    return write_checkpoint(folder, model, tokeniser)


def describe(kind: str, teacher: EncoderClassifier, pad: int) -> Description:
    """The description of a teacher of the toy texts, which reads 32 tokens."""
    return Description(
        name=kind,
        params=count_params(teacher),
        labels=LABELS,
        pooling="mean",
        max_length=32,
        temperature=1.0,
        precision="fp32",
        pad=pad,
        metrics={},
    )


def whole_material(folder: Path, kind: str) -> Material:
    """What a student is made from over an untrained teacher of a kind, with its whole vocabulary and no answers."""
    checkpoint = write_family(folder, kind)
    tokeniser, pad = read_tokeniser(checkpoint, 32), pad_id(checkpoint)
    tokens = tokenise(tokeniser, toy_rows(60, seed=1).text, 32)
    teacher = EncoderClassifier(load_encoder(checkpoint), 32, len(LABELS), "mean").eval()
    description = describe(kind, teacher, pad)
    kept = np.arange(tokeniser.get_vocab_size())
    return Material(teacher, description, "", kept, pad, tokens, tokens, {})
