from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.errors import InputError
from stillroom.students import sliced
from stillroom.students.material import Material
from stillroom.students.sliced import SlicedLearner
from stillroom.teacher.inference import predict
from stillroom.teacher.model import EncoderClassifier, layers_of
from tests.toys import tiny_config

Settings = Callable[..., Any]
Materials = Callable[..., Material]


def test_the_layers_of_an_encoder_are_found_with_their_owner(material_of: Materials, settings_of: Settings) -> None:
    encoder = material_of(settings_of("sliced"), True).teacher.encoder
    owner, name, layers = layers_of(encoder)
    assert getattr(owner, name) is layers
    assert len(layers) == 2


@pytest.mark.parametrize("lists", [0, 2])
def test_an_encoder_without_exactly_one_list_of_layers_is_refused(lists: int) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = tiny_config(10)
            for number in range(lists):
                setattr(self, f"layers{number}", nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]))

    with pytest.raises(InputError, match=rf"Odd: has {lists} lists of 2 layers.*use another family"):
        layers_of(Odd())


def test_more_layers_than_the_teacher_has_are_refused(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=3)
    with pytest.raises(InputError, match="layers is 3; the teacher has 2"):
        sliced.build(material_of(settings, True), settings)


def test_a_slice_holds_the_lower_layers_and_the_kept_embeddings(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=1, max_vocabulary=100)
    material = material_of(settings, True)
    teacher = material.teacher
    assert isinstance(teacher, EncoderClassifier)
    student = sliced.build(material, settings)
    table, whole = (model.encoder.get_input_embeddings() for model in (student, teacher))
    assert torch.equal(table.weight, whole.weight[material.kept])
    assert table.padding_idx == material.pad == student.encoder.config.pad_token_id
    assert table.weight.requires_grad
    assert student.encoder.config.vocab_size == len(material.kept) <= 100
    assert student.encoder.config.num_hidden_layers == 1
    own, theirs = (dict(layers_of(model.encoder)[2][0].named_parameters()) for model in (student, teacher))
    for name, weight in own.items():
        assert torch.equal(weight, theirs[name])
        assert weight is not theirs[name]
    assert torch.equal(student.head.weight, teacher.head.weight)
    assert not [name for name, _ in student.named_parameters() if "pooler" in name]


def test_making_a_slice_leaves_the_teacher_as_it_was(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=1, max_vocabulary=100)
    material = material_of(settings, True)
    before = {name: value.clone() for name, value in material.teacher.state_dict().items()}
    config = material.teacher.encoder.config.to_dict()
    student = sliced.build(material, settings)
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    after = material.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert material.teacher.encoder.config.to_dict() == config


def test_a_slice_of_every_layer_answers_as_the_teacher(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=2)
    material = material_of(settings, True)
    student = sliced.build(material, settings).eval()
    found = predict(student, material.tokens, material.pad, 500)
    original_ids = material.kept[material.tokens.ids].astype(np.int32)
    tokens = type(material.tokens)(original_ids, material.tokens.offsets)
    np.testing.assert_allclose(found, predict(material.teacher, tokens, 0, 500), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_described_slice_is_loaded_and_answers_alike(
    tmp_path: Path, material_of: Materials, settings_of: Settings, layers: int
) -> None:
    settings = settings_of("sliced", layers=layers, max_vocabulary=120)
    material = material_of(settings, True)
    student = sliced.build(material, settings).eval()
    shape = sliced.describe(student, tmp_path)
    assert shape == {"classes": 3, "pooling": "mean"}
    loaded = sliced.load(tmp_path, shape)
    loaded.load_state_dict(student.state_dict())
    tokens = material.validation_tokens
    np.testing.assert_allclose(
        predict(loaded.eval(), tokens, material.pad, 500), predict(student, tokens, material.pad, 500), atol=1e-5
    )


def batch_of(material: Material) -> dict[str, torch.Tensor]:
    ids, mask = material.tokens.padded(np.arange(8), material.pad)
    signals = {name: values[torch.arange(8)] for name, values in material.signals.items()}
    return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "label": torch.arange(8) % 3} | signals


def test_the_loss_adds_the_cosine_to_the_pooled_state_by_weight(material_of: Materials, settings_of: Settings) -> None:
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        settings = settings_of("sliced", layers=1, cosine_weight=weight)
        material = material_of(settings, True, ("logits", "embedding"))
        learner = SlicedLearner(sliced.build(material, settings).eval(), settings, 10)
        losses[weight] = float(learner.loss(batch_of(material)).detach())
    assert losses[0.0] < losses[0.5] < losses[1.0]
    assert losses[0.5] - losses[0.0] == pytest.approx(losses[1.0] - losses[0.5], rel=1e-3)


def test_a_student_that_is_the_teacher_has_only_the_hard_loss(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=2, hard_weight=0.0, cosine_weight=1.0)
    material = material_of(settings, True, ("logits", "embedding"))
    learner = SlicedLearner(sliced.build(material, settings).eval(), settings, 10)
    assert float(learner.loss(batch_of(material)).detach()) == pytest.approx(0, abs=1e-4)


def test_without_the_teachers_answers_only_the_labels_count(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=1, cosine_weight=1.0, hard_weight=0.1)
    material = material_of(settings, True, ())
    learner = SlicedLearner(sliced.build(material, settings).eval(), settings, 10)
    batch = batch_of(material)
    assert "logits" not in batch
    expected = nn.functional.cross_entropy(learner.predict_logits(batch), batch["label"])
    assert float(learner.loss(batch).detach()) == pytest.approx(float(expected.detach()))


def test_every_weight_is_trained_and_the_head_faster(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("sliced", layers=1, learning_rate=1e-3)
    student = sliced.build(material_of(settings, True), settings)
    encoder, head = SlicedLearner(student, settings, 10).parameter_groups()
    assert head["lr"] == 5 * encoder["lr"] == 5e-3
    grouped = [id(weight) for group in (encoder, head) for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in student.parameters())


def test_a_ready_teacher_is_sliced_without_its_head(
    tmp_path: Path, tiny_checkpoint: Path, material_of: Materials, settings_of: Settings
) -> None:
    from dataclasses import replace

    from stillroom.teacher.model import load_ready
    from tests.teacher.test_model import classifier
    from tests.toys import LABELS

    settings = settings_of("sliced", layers=1)
    ready = load_ready(classifier(tmp_path / "ready", tiny_checkpoint, LABELS), LABELS, "single_label")
    material = replace(material_of(settings, True), teacher=ready.eval())
    student = sliced.build(material, settings)
    table = student.encoder.get_input_embeddings().weight
    assert torch.equal(table, ready.encoder.get_input_embeddings().weight[material.kept])
    assert len(layers_of(student.encoder)[2]) == 1
