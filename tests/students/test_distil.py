import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from stillroom import layout, training
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.params import ComputeParams
from stillroom.student_params import FixedStudent
from stillroom.students import distil
from stillroom.students.distil import FAMILIES, VARIANTS, load_student, publish, stopwatch, train
from stillroom.students.material import Material
from stillroom.training import Learner, Scratch
from tests.students.rows import TRAIN, VALIDATION

MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")
SETTINGS = {
    "static": {
        "epochs": 5,
        "dimensions": 8,
        "hidden": 8,
        "batch_rows": 16,
        "learning_rate": 0.01,
        "patience": 9,
        "piece_dropout": 0.2,
    },
    "cnn": {
        "epochs": 3,
        "dimensions": 8,
        "filters": 8,
        "widths": [1, 3],
        "batch_tokens": 128,
        "learning_rate": 0.01,
        "piece_dropout": 0.2,
    },
    "bilstm": {"epochs": 3, "dimensions": 8, "hidden": 8, "batch_tokens": 128, "learning_rate": 0.01},
    "sliced": {"epochs": 2, "layers": 1, "batch_tokens": 256, "learning_rate": 3e-3, "patience": 9},
    "narrow": {
        "epochs": 2,
        "layers": 1,
        "width": 16,
        "hidden_layer": 2,
        "batch_tokens": 256,
        "learning_rate": 3e-3,
        "patience": 9,
    },
}
Trained = tuple[nn.Module, list[dict[str, float]]]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    torch.set_num_threads(1)


class Room:
    """Trainings of one family on the shared material."""

    def __init__(self, family: str, settings_of: Callable[..., Any], material_of: Callable[..., Material]) -> None:
        self.settings = settings_of(family, **SETTINGS[family])
        self.special = FAMILIES[family].SPECIAL_TOKENS
        self.material = material_of(self.settings, self.special, self.settings.signals)

    def __call__(
        self, variant: str = "student", key: str = "key", seed: int = 0, material: Material | None = None
    ) -> Trained:
        given = material or self.material
        return train(given, self.settings, TRAIN, VALIDATION, variant, seed, MACHINE, Scratch(key))


@pytest.fixture(params=sorted(SETTINGS))
def room(request: Any, settings_of: Callable[..., Any], material_of: Callable[..., Material]) -> Room:
    return Room(request.param, settings_of, material_of)


def assert_same(one: Trained, other: Trained) -> None:
    state = other[0].state_dict()
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, state[name]), name
    assert [{**epoch, "seconds": 0} for epoch in one[1]] == [{**epoch, "seconds": 0} for epoch in other[1]]


def differs(one: Trained, other: Trained) -> bool:
    state = other[0].state_dict()
    return any(not torch.equal(value, state[name]) for name, value in one[0].state_dict().items())


def test_the_same_seed_gives_the_same_student_and_another_does_not(room: Room) -> None:
    one = room(key="one")
    assert_same(one, room(key="same"))
    assert differs(one, room(key="other", seed=1))


def test_a_run_that_breaks_and_goes_on_equals_one_that_does_not(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = room(key="whole")
    monkeypatch.setenv(training.CHECKPOINT_VARIABLE, "0")
    monkeypatch.setattr(training, "_SHARE_OF_TIME", 0)
    real = Learner.training_step
    for at_step in (3, 9):

        def breaking(self: Learner, batch: Any, index: int, at_step: int = at_step) -> torch.Tensor:
            if self.global_step == at_step:
                raise RuntimeError("the power is gone")
            return real(self, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "training_step", breaking)
            with pytest.raises(RuntimeError, match="the power is gone"):
                room(key="broken")
    assert (Scratch("broken").folder / "last.ckpt").exists()
    assert_same(room(key="broken"), whole)


def test_the_baseline_never_sees_the_teachers_answers(room: Room) -> None:
    lying = {name: -values[torch.arange(len(TRAIN))] for name, values in room.material.signals.items()}
    misled = replace(room.material, signals=lying)
    assert_same(room("baseline", "one"), room("baseline", "two", material=misled))
    assert differs(room("student", "three"), room("student", "four", material=misled))
    without = replace(room.material, signals={})
    assert_same(room("baseline", "one"), room("baseline", "five", material=without))


def test_labels_are_doubted_by_the_calibrated_teacher(
    settings_of: Callable[..., Any], material_of: Callable[..., Material]
) -> None:
    def trained(temperature: float, doubt: float) -> Trained:
        settings = settings_of("static", **SETTINGS["static"], doubt=doubt)
        material = material_of(settings, False)
        sure = {"logits": 50 * material.signals["logits"][torch.arange(len(TRAIN))]}
        description = material.description.model_copy(update={"temperature": temperature})
        given = replace(material, signals=sure, description=description)
        return train(given, settings, TRAIN, VALIDATION, "student", 0, MACHINE, Scratch(f"{temperature} {doubt}"))

    trusted = trained(1.0, 0.0)
    assert differs(trained(1.0, 1.0), trusted)
    assert_same(trained(1e6, 1.0), trusted)


def test_both_variants_start_alike(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[dict[str, torch.Tensor]] = []

    def no_training(learner: Any, *args: Any, **options: Any) -> None:
        starts.append({name: value.clone() for name, value in learner.state_dict().items()})

    monkeypatch.setattr(distil, "fit", no_training)
    for variant in VARIANTS:
        room(variant)
    assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())


def test_validation_labels_judge_and_do_not_teach(room: Room) -> None:
    accuracies, losses = [], []
    for shift in range(3):
        shifted = Rows(VALIDATION.row, VALIDATION.text, (VALIDATION.label + shift) % 3)
        _, history = train(room.material, room.settings, TRAIN, shifted, "student", 0, MACHINE, Scratch(str(shift)))
        accuracies.append([epoch["validation_accuracy"] for epoch in history])
        losses.append([epoch["train_loss"] for epoch in history])
    assert losses[0] == losses[1] == losses[2]
    np.testing.assert_allclose(np.sum(accuracies, axis=0), 1, atol=1e-6)


def publish_room(room: Room, folder: Path, trained: dict[str, nn.Module]) -> Path:
    folder.mkdir()
    publish(folder, "one", room.settings, room.material, trained, {"history": [], "lineage": {"teacher": "x"}})
    return folder


def test_what_is_published_is_loaded_and_answers_alike(room: Room, tmp_path: Path) -> None:
    trained = {variant: room(variant, variant)[0] for variant in VARIANTS}
    folder = publish_room(room, tmp_path / "student", trained)
    ids, mask = (
        torch.from_numpy(part) for part in room.material.validation_tokens.padded(np.arange(30), room.material.pad)
    )
    answers = {}
    for variant, model in trained.items():
        loaded, description = load_student(folder, variant)
        assert not loaded.training
        with torch.inference_mode():
            answers[variant] = loaded(ids, mask)
            expected = room.settings.family and FAMILIES[room.settings.family].graph(model.eval())(ids, mask)
        torch.testing.assert_close(answers[variant], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answers["student"], answers["baseline"])
    assert description["labels"] == ["delivery", "login", "refund"]
    assert (description["name"], description["family"]) == ("one", room.settings.family)
    assert description["lineage"] == {"teacher": "x"}
    assert description["max_length"] == 32


def test_what_is_published_is_tensors_and_json_alone(room: Room, tmp_path: Path) -> None:
    model = room()[0]
    folder = publish_room(room, tmp_path / "student", dict.fromkeys(VARIANTS, model))
    for path in folder.iterdir():
        if path.suffix == ".json":
            assert json.loads(path.read_text(encoding="utf-8"))
        else:
            with safe_open(path, framework="np") as tensors:
                weights = sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118
    assert json.loads((folder / "student.json").read_text())["params"] == weights


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_published_student_that_is_not_whole_is_wrong_input(room: Room, tmp_path: Path, damage: str) -> None:
    folder = publish_room(room, tmp_path / "student", dict.fromkeys(VARIANTS, room()[0]))
    weights = folder / "student.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    else:
        description = json.loads((folder / "student.json").read_text())
        description["shape"]["classes"] = 5
        (folder / "student.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="run the stage distil again") as caught:
        load_student(folder, "student")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_student_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"student\.json: no such file"):
        load_student(tmp_path, "student")


def test_a_loss_reads_the_signals_that_it_needs_and_no_other(settings_of: Callable[..., Any]) -> None:
    assert settings_of("static").signals == ("logits",)
    assert settings_of("sliced").signals == ("logits", "embedding")
    assert settings_of("sliced", cosine_weight=0).signals == ("logits",)
    assert settings_of("narrow").signals == ("logits",)
    assert settings_of("narrow", hidden_layer=2).signals == ("logits", "hidden.2")


def test_every_family_has_what_training_and_export_ask_of_it() -> None:
    kinds = get_args(get_args(FixedStudent)[0])
    assert set(FAMILIES) == {get_args(kind.model_fields["family"].annotation)[0] for kind in kinds}
    for family in FAMILIES.values():
        for name in ("cost", "build", "describe", "load", "graph", "learner", "batches"):
            assert callable(getattr(family, name))
        assert isinstance(family.SPECIAL_TOKENS, bool)


def test_a_lap_is_the_time_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 12.5, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    lap = stopwatch()
    assert (lap(), lap()) == (2.5, 0.5)
