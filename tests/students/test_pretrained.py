"""A smaller encoder of one's own: its tokeniser, its layers, a head that starts anew, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from stillroom.errors import InputError
from stillroom.params import ComputeParams
from stillroom.students import pretrained
from stillroom.students.distil import load_student, load_trained, publish, train
from stillroom.students.material import Material
from stillroom.students.vocabulary import trimming
from stillroom.teacher.model import count_params, load_encoder
from stillroom.teacher.tokeniser import read_tokeniser
from stillroom.training import Scratch
from tests.students.rows import TRAIN, VALIDATION

Settings = Callable[..., Any]
Materials = Callable[..., Material]


def test_it_reads_texts_with_its_own_tokeniser(
    material_of: Materials, settings_of: Settings, smaller_checkpoint: Path
) -> None:
    material = material_of(settings_of("pretrained"), True)
    own = read_tokeniser(smaller_checkpoint, 32)
    for row in range(len(TRAIN)):
        assert material.kept[material.tokens.one(row)].tolist() == own.encode(TRAIN.text[row]).ids
    assert material.kept[material.pad] == own.token_to_id("<pad>")


def test_words_that_no_training_row_has_are_read_as_the_checkpoint_reads_them_if_asked(
    material_of: Materials, settings_of: Settings, smaller_checkpoint: Path
) -> None:
    own = read_tokeniser(smaller_checkpoint, 32)
    texts = [name for name in own.get_vocab() if name.isalnum()]
    changed = []
    for unseen in (False, True):
        material = material_of(settings_of("pretrained", unseen_pieces=unseen), True)
        small = Tokenizer.from_str(material.tokeniser_json)
        changed.append(trimming(own, small, texts)["changed"])
    assert changed[1] == 0 < changed[0]


def test_the_whole_checkpoint_is_the_student_but_for_the_vocabulary(
    material_of: Materials, settings_of: Settings, smaller_checkpoint: Path
) -> None:
    settings = settings_of("pretrained", max_vocabulary=300)
    material = material_of(settings, True)
    student, whole = pretrained.build(material, settings), load_encoder(smaller_checkpoint)
    table = whole.get_input_embeddings().weight
    assert torch.equal(student.encoder.get_input_embeddings().weight, table[material.kept])
    theirs = dict(whole.named_parameters())
    for name, weight in student.encoder.named_parameters():
        if weight.shape == theirs[name].shape:
            assert torch.equal(weight, theirs[name]), name
    without_pooler = sum(weight.numel() for name, weight in theirs.items() if not name.startswith("pooler"))
    removed = table.numel() - len(material.kept) * table.shape[1]
    assert count_params(student.encoder) == without_pooler - removed
    assert student.head.out_features == len(material.description.labels)


def test_the_head_starts_from_the_seed_and_the_layers_from_the_checkpoint(
    material_of: Materials, settings_of: Settings
) -> None:
    settings = settings_of("pretrained", layers=1)
    material = material_of(settings, True)
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(pretrained.build(material, settings))
    heads, layers = ([getattr(student, part).state_dict() for student in built] for part in ("head", "encoder"))
    assert torch.equal(heads[0]["weight"], heads[1]["weight"])
    assert not torch.equal(heads[0]["weight"], heads[2]["weight"])
    assert all(torch.equal(value, layers[2][name]) for name, value in layers[0].items())


def test_more_layers_than_the_checkpoint_has_are_refused(material_of: Materials, settings_of: Settings) -> None:
    settings = settings_of("pretrained", layers=3)
    with pytest.raises(InputError, match="layers is 3; the checkpoint has 2"):
        pretrained.build(material_of(settings, True), settings)


def test_a_checkpoint_with_too_few_places_is_refused(
    material_of: Materials, settings_of: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("pretrained")
    monkeypatch.setattr(
        "stillroom.students.material.load_encoder",
        lambda folder: _with_places(load_encoder(folder), 31),
    )
    with pytest.raises(InputError, match=r"max_length is 32; the checkpoint .* reads 31 tokens"):
        material_of(settings, True)


def _with_places(encoder: Any, count: int) -> Any:
    encoder.config.max_position_embeddings = count
    return encoder


def test_it_learns_the_teachers_answers_and_is_published_and_loaded_alike(
    material_of: Materials, settings_of: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_STATE", str(tmp_path / "state"))
    settings = settings_of("pretrained", epochs=3, learning_rate=5e-3, batch_tokens=128, objective="mse", hard_weight=0)
    material = material_of(settings, True)
    machine = ComputeParams(precision="fp32", device="cpu", threads=1)
    student, history = train(material, settings, TRAIN, VALIDATION, "student", 0, machine, Scratch("pretrained"))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    publish(tmp_path, "one", settings, material, {"student": student}, {"history": history})
    loaded, description = load_trained(tmp_path, "student")
    assert description["family"] == "pretrained"
    exported, _ = load_student(tmp_path, "student")
    ids, mask = map(torch.from_numpy, material.validation_tokens.padded(np.arange(8), material.pad))
    with torch.inference_mode():
        expected = student(ids, mask)[0]
        torch.testing.assert_close(loaded(ids, mask)[0], expected)
        torch.testing.assert_close(exported(ids, mask), expected)
