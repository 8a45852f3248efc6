"""Models to export."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stillroom.batching import tokenise
from stillroom.export.build import Model
from stillroom.students.static import StaticGraph, StaticStudent
from stillroom.students.vocabulary import trim
from stillroom.teacher.model import EncoderClassifier, LogitsOnly, count_params
from tests.toys import LABELS, tiny_config, toy_rows, toy_tokeniser

MAX_LENGTH = 24
VALIDATION = toy_rows(60, seed=41)


def static_model(folder: Path) -> Model:
    """A static student with random weights whose answers differ from text to text."""
    torch.manual_seed(11)
    original = toy_tokeniser(VALIDATION.text)
    vocabulary = trim(original, tokenise(original, VALIDATION.text, MAX_LENGTH), 150, 0, special_tokens=False)
    (folder / "tokenizer.json").write_text(vocabulary.tokeniser_json, encoding="utf-8")
    student = StaticStudent(len(vocabulary.kept), 16, 32, len(LABELS))
    with torch.no_grad():
        student.body[3].weight.mul_(8)
    return Model(
        name="toy",
        family="static",
        module=StaticGraph(student).eval(),
        tokeniser=folder / "tokenizer.json",
        problem_type="single_label",
        labels=LABELS,
        max_length=MAX_LENGTH,
        params=count_params(student),
    )


def sliced_model(folder: Path) -> Model:
    """A BERT of two layers with random weights, as sliced students are."""
    from transformers import BertModel

    torch.manual_seed(12)
    tokeniser = toy_tokeniser(VALIDATION.text)
    tokeniser.save(str(folder / "tokenizer.json"))
    encoder = BertModel(tiny_config(tokeniser.get_vocab_size()), add_pooling_layer=False)
    student = EncoderClassifier(encoder, 32, len(LABELS), "mean").eval()
    with torch.no_grad():
        student.head.weight.mul_(8)
    return Model(
        name="toy-sliced",
        family="sliced",
        module=LogitsOnly(student),
        tokeniser=folder / "tokenizer.json",
        problem_type="single_label",
        labels=LABELS,
        max_length=MAX_LENGTH,
        params=count_params(student),
    )


def poisoned(model: Model) -> Model:
    """The same function of a static model, but its first product has one row of huge weights on a faint input."""
    module = copy.deepcopy(model.module)
    norm, linear = module.body[0], module.body[1]
    with torch.no_grad():
        norm.weight[3] *= 1e-5
        norm.bias[3] *= 1e-5
        linear.weight[:, 3] *= 1e5
    return replace(model, module=module)


def naive(model: Model, text: str, temperature: float) -> np.ndarray:
    """Probabilities of one text, computed in PyTorch from the tokeniser up."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(model.tokeniser)).encode(text).ids[: model.max_length]
    mask = [1] * len(ids)
    with torch.inference_mode():
        logits = model.module(torch.tensor([ids or [0]]), torch.tensor([mask or [0]]))
        result: np.ndarray = torch.softmax(logits / temperature, dim=1).numpy()[0]
    return result
