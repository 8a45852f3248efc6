"""Every supported encoder goes the whole way: load, fine-tune, publish, load again, slice, export."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.errors import InputError
from stillroom.export.onnx import export_onnx, onnx_logits, torch_logits
from stillroom.params import ComputeParams, TeacherParams
from stillroom.student_params import SlicedParams
from stillroom.students import sliced
from stillroom.students.material import Material
from stillroom.students.vocabulary import trim
from stillroom.teacher.finetune import fine_tune
from stillroom.teacher.inference import predict
from stillroom.teacher.model import (
    TOKENISER,
    LogitsOnly,
    layers_of,
    load_encoder,
    load_teacher,
    save_teacher,
)
from stillroom.teacher.tokeniser import pad_id, read_tokeniser
from stillroom.training import Scratch
from tests.teacher.families import FAMILIES, describe, whole_material, write_family
from tests.toys import LABELS, toy_rows

ROWS, VALIDATION = toy_rows(60, seed=1), toy_rows(24, seed=2, first_row=60)
SETTINGS = TeacherParams(source="x", max_length=32, epochs=1, batch_tokens=512, train_embeddings=True)
MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_goes_the_whole_way(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    torch.set_num_threads(1)
    checkpoint = write_family(tmp_path / "checkpoint", kind)
    tokeniser, pad = read_tokeniser(checkpoint, 32), pad_id(checkpoint)
    assert tokeniser.id_to_token(pad) in ("[PAD]", "<pad>")
    train, validation = (tokenise(tokeniser, rows.text, 32) for rows in (ROWS, VALIDATION))
    before = {name: value.clone() for name, value in load_encoder(checkpoint).state_dict().items()}
    model, history = fine_tune(
        checkpoint, SETTINGS, LABELS, (train, ROWS), (validation, VALIDATION), pad, 0, MACHINE, Scratch("x")
    )
    assert len(history) == 1
    moved = [name for name, value in model.encoder.state_dict().items() if not torch.equal(value, before[name])]
    assert len(moved) > len(before) / 2
    description = describe(kind, model, pad)
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    save_teacher(teacher, model, tokeniser, description)
    loaded, _ = load_teacher(teacher)
    logits = predict(loaded, validation, pad, 512)
    np.testing.assert_allclose(logits, predict(model, validation, pad, 512), atol=2e-5)
    np.testing.assert_allclose(logits, predict(loaded, validation, pad, 1), atol=2e-5)

    vocabulary = trim(load_tokeniser(teacher / TOKENISER, 32), train, 200, pad, special_tokens=True)
    trimmed = Tokenizer.from_str(vocabulary.tokeniser_json)
    trimmed.enable_truncation(32)
    tokens = tokenise(trimmed, VALIDATION.text, 32)
    material = Material(
        loaded, description, vocabulary.tokeniser_json, vocabulary.kept, vocabulary.pad, tokens, tokens, {}
    )
    built = sliced.build(material, SlicedParams(family="sliced", layers=1)).eval()
    assert len(layers_of(built.encoder)[2]) == 1
    assert built.encoder.get_input_embeddings().num_embeddings == len(vocabulary.kept) <= 200
    student = tmp_path / "student"
    student.mkdir()
    shape = sliced.describe(built, student)
    again = sliced.load(student, shape)
    again.load_state_dict(built.state_dict())
    expected = predict(built, tokens, vocabulary.pad, 512)
    np.testing.assert_allclose(predict(again.eval(), tokens, vocabulary.pad, 512), expected, atol=2e-5)

    export_onnx(sliced.graph(again).eval(), student / "model.onnx")
    found = onnx_logits(student / "model.onnx", tokens, 512, threads=1)
    np.testing.assert_allclose(torch_logits(LogitsOnly(again), tokens, 512), expected, atol=2e-5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(onnx_logits(student / "model.onnx", tokens, 1, threads=1), found, atol=1e-4)


@pytest.mark.slow
def test_a_slice_of_all_kept_layers_over_the_whole_vocabulary_is_the_teacher(tmp_path: Path) -> None:
    for kind in FAMILIES:
        material = whole_material(tmp_path / kind, kind)
        teacher, tokens, pad = material.teacher, material.tokens, material.pad
        student = sliced.build(material, SlicedParams(family="sliced", layers=2)).eval()
        np.testing.assert_allclose(
            predict(student, tokens, pad, 512), predict(teacher, tokens, pad, 512), atol=2e-5, err_msg=kind
        )


def test_an_encoder_whose_layers_are_shared_cannot_be_sliced_and_says_so() -> None:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(vocab_size=50, hidden_size=32, embedding_size=16, num_hidden_layers=2, num_attention_heads=2)
    with pytest.raises(InputError, match=r"AlbertModel: has 0 lists of 2 layers.*MPNet.* can\. .*use another family"):
        layers_of(AlbertModel(config))


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="t5 is an encoder with a decoder; bring an encoder"):
        load_encoder(tmp_path)
