from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom import layout
from stillroom.batching import Tokens
from stillroom.errors import InputError
from stillroom.export.onnx import export_onnx, onnx_logits
from stillroom.params import ComputeParams
from stillroom.student_params import NarrowParams
from stillroom.students import distil, narrow
from stillroom.students.material import Material
from stillroom.students.narrow import NarrowLearner, layer_choice
from stillroom.teacher.inference import predict
from stillroom.teacher.model import count_params, layers_of
from stillroom.training import Scratch
from tests.students.rows import TRAIN, VALIDATION
from tests.teacher.families import whole_material
from tests.toys import LABELS

Settings = Callable[..., Any]
Materials = Callable[..., Material]
KINDS = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta", "deberta-v2")
MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    torch.set_num_threads(1)


def material_over(folder: Path, kind: str) -> Material:
    """A teacher of a kind, whose norms and biases are not 1 and 0, as those of a trained one."""
    material = whole_material(folder, kind)
    with torch.no_grad():
        for weight in material.teacher.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return material


def settings(**changes: Any) -> NarrowParams:
    return NarrowParams(family="narrow", **{"layers": 1, "width": 16, "max_length": 32} | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_full_width_and_all_layers_is_the_teacher(tmp_path: Path, kind: str) -> None:
    material = material_over(tmp_path, kind)
    student = narrow.build(material, settings(layers=2, width=32)).eval()
    expected = predict(material.teacher, material.tokens, material.pad, 512)
    np.testing.assert_allclose(predict(student, material.tokens, material.pad, 512), expected, atol=5e-5)
    assert np.ptp(expected, axis=0).min() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_student_costs_what_is_told_and_does_not_see_padding(tmp_path: Path, kind: str) -> None:
    material = material_over(tmp_path, kind)
    student = narrow.build(material, settings()).eval()
    cost = narrow.cost(material, settings())
    assert cost.params == count_params(student)
    (layer,) = layers_of(student.encoder)[2]
    assert cost.flops_per_token == 2 * count_params(layer)
    assert student.encoder.get_input_embeddings().weight.shape == (len(material.kept), 16)
    alone = predict(student, material.tokens, material.pad, 1)
    np.testing.assert_allclose(predict(student, material.tokens, material.pad, 512), alone, atol=2e-5)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_a_described_student_is_loaded_and_its_graph_answers_alike(tmp_path: Path, kind: str) -> None:
    material = material_over(tmp_path / "teacher", kind)
    student = narrow.build(material, settings()).eval()
    loaded = narrow.load(tmp_path, narrow.describe(student, tmp_path))
    loaded.load_state_dict(student.state_dict())
    export_onnx(narrow.graph(loaded).eval(), tmp_path / "model.onnx")
    expected = predict(student, material.tokens, material.pad, 512)
    np.testing.assert_allclose(
        onnx_logits(tmp_path / "model.onnx", material.tokens, 512, 1), expected, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 20}, "width is 20; the teacher's heads are 16 wide and its states 32, so use 16 or 32"),
        ({"width": 8}, "width is 8; .*, so use 16 or 32"),
        ({"width": 48}, "width is 48; .*, so use 32"),
        ({"layers": 3}, "layers is 3; the teacher has 2"),
    ],
)
def test_sizes_that_the_teacher_does_not_allow_are_refused(
    material_of: Materials, settings_of: Settings, changes: dict[str, int], told: str
) -> None:
    wanted = settings_of("narrow", **{"layers": 1, "width": 16} | changes)
    for make in (narrow.build, narrow.cost):
        with pytest.raises(InputError, match=told):
            make(material_of(wanted, True), wanted)


def test_a_teacher_of_another_build_is_refused(tmp_path: Path) -> None:
    material = material_over(tmp_path, "modernbert")
    for make in (narrow.build, narrow.cost):
        with pytest.raises(InputError, match="ModernBertModel: cannot be made narrow") as caught:
            make(material, settings())
        assert "\n" not in str(caught.value)


def test_evenly_spaced_layers_end_with_the_last() -> None:
    assert layer_choice(12, 3) == [3, 7, 11]
    assert layer_choice(12, 12) == list(range(12))
    assert layer_choice(6, 1) == [5]
    assert layer_choice(7, 3) == [1, 3, 6]


def learner_of(material: Material, changed: NarrowParams) -> NarrowLearner:
    return NarrowLearner(narrow.build(material, changed).eval(), changed, 10)


def batch_of(material: Material, rows: int = 8) -> dict[str, torch.Tensor]:
    ids, mask = material.tokens.padded(np.arange(rows), material.pad)
    signals = {name: values[torch.arange(rows)] for name, values in material.signals.items()}
    return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "label": torch.arange(rows) % 3} | signals


def test_a_student_that_is_the_teacher_has_no_soft_loss(material_of: Materials, settings_of: Settings) -> None:
    whole = settings_of("narrow", layers=2, width=32, hidden_layer=2, hard_weight=0.0)
    learner = learner_of(material_of(whole, True, whole.signals), whole)
    assert float(learner.loss(batch_of(material_of(whole, True, whole.signals))).detach()) < 1e-4


@pytest.mark.parametrize("mixed", [False, True])
def test_states_and_relations_teach_the_student_and_the_map(
    material_of: Materials, settings_of: Settings, mixed: bool
) -> None:
    weights = {"hard_weight": 1.0, "hidden_layer": 2, "layers": 1, "width": 16}
    gradients = {}
    for name, changes in {
        "states": {"hidden_weight": 1.0, "relation_weight": 0.0},
        "relations": {"hidden_weight": 0.0, "relation_weight": 1.0},
        "neither": {"hidden_weight": 0.0, "relation_weight": 0.0},
    }.items():
        chosen = settings_of("narrow", **weights, **changes)
        material = material_of(chosen, True, chosen.signals)
        learner = learner_of(material, chosen)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            learner.loss(batch_of(material)).backward()
        table = learner.student.encoder.get_input_embeddings().weight.grad
        assert torch.isfinite(table).all()
        gradients[name] = table, learner.widen.weight.grad.norm()
    assert gradients["states"][1] > 0
    assert gradients["relations"][1] == gradients["neither"][1] == 0
    for name in ("states", "relations"):
        assert not torch.allclose(gradients[name][0], gradients["neither"][0], rtol=1e-2)


def test_rows_that_are_cut_otherwise_are_left_out(material_of: Materials, settings_of: Settings) -> None:
    chosen = settings_of("narrow", layers=1, width=16, hidden_layer=2, hard_weight=1.0, max_vocabulary=110)
    material = material_of(chosen, True, chosen.signals)
    batch = batch_of(material, 30)
    left_out = batch["hidden.2"][:, 0, 0].isnan()
    assert 0 < int(left_out.sum()) < 30
    learner = learner_of(material, chosen)
    rows = ~left_out
    some = {name: values[rows] for name, values in batch.items()}
    plain = learner_of(material, chosen.model_copy(update={"hidden_weight": 0.0, "relation_weight": 0.0}))
    of_all, of_some = (float((learner.loss(part) - plain.loss(part)).detach()) for part in (batch, some))
    assert of_all == pytest.approx(of_some, rel=1e-4)
    none = {name: values[left_out] for name, values in batch.items()}
    assert float(learner.loss(none).detach()) == pytest.approx(float(plain.loss(none).detach()))


def test_without_states_only_the_common_loss_counts(material_of: Materials, settings_of: Settings) -> None:
    chosen = settings_of("narrow", layers=1, width=16, hidden_layer=2)
    material = material_of(chosen, True, chosen.signals)
    learner = learner_of(material, chosen)
    batch = batch_of(material)
    del batch["hidden.2"]
    expected = learner.imitation(learner.predict_logits(batch), batch)
    assert float(learner.loss(batch).detach()) == pytest.approx(float(expected.detach()))


def test_the_map_is_trained_kept_in_checkpoints_and_not_in_the_student(
    material_of: Materials, settings_of: Settings
) -> None:
    chosen = settings_of("narrow", layers=1, width=16, hidden_layer=2)
    learner = learner_of(material_of(chosen, True, chosen.signals), chosen)
    grouped = [id(weight) for group in learner.parameter_groups() for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in learner.parameters())
    assert "widen.weight" in learner.state_dict()
    assert not [name for name in learner.student.state_dict() if "widen" in name or "basis" in name]


def test_mixed_precision_trains(material_of: Materials, settings_of: Settings) -> None:
    chosen = settings_of("narrow", layers=1, width=16, hidden_layer=2, epochs=1, averaging=0.9, batch_tokens=256)
    material = material_of(chosen, True, chosen.signals)
    machine = MACHINE.model_copy(update={"precision": "bf16"})
    student, history = distil.train(material, chosen, TRAIN, VALIDATION, "student", 0, machine, Scratch("mixed"))
    assert np.isfinite(history[0]["train_loss"])
    assert all(torch.isfinite(weight).all() for weight in student.parameters())


def test_trimmed_tokens_keep_their_own_rows_of_the_table(material_of: Materials, settings_of: Settings) -> None:
    """With the whole width, a trimmed student answers as the teacher to the teacher's own ids."""
    chosen = settings_of("narrow", layers=2, width=32, max_vocabulary=100)
    material = material_of(chosen, True)
    student = narrow.build(material, chosen).eval()
    assert student.encoder.config.vocab_size == len(material.kept) <= 100
    theirs = Tokens(material.kept[material.tokens.ids].astype(np.int32), material.tokens.offsets)
    np.testing.assert_allclose(
        predict(student, material.tokens, material.pad, 512), predict(material.teacher, theirs, 0, 512), atol=2e-5
    )


def test_a_ready_teacher_is_narrowed_without_its_head(
    tmp_path: Path, tiny_checkpoint: Path, material_of: Materials, settings_of: Settings
) -> None:
    from stillroom.teacher.model import load_ready
    from tests.teacher.test_model import classifier

    chosen = settings_of("narrow", layers=1, width=16)
    ready = load_ready(classifier(tmp_path / "ready", tiny_checkpoint, LABELS), LABELS, "single_label")
    material = replace(material_of(chosen, True), teacher=ready.eval())
    assert count_params(narrow.build(material, chosen)) == narrow.cost(material, chosen).params
