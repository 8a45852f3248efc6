"""Train a student twice from the same start: on the teacher's answers, and without a teacher as the baseline."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.params import ComputeParams
from stillroom.student_params import FixedStudent
from stillroom.students import bilstm, cnn, narrow, pretrained, sliced, static
from stillroom.students.family import Family
from stillroom.students.material import Material
from stillroom.students.spelling import Respelled, spellings
from stillroom.supervision import NO_LABEL
from stillroom.teacher.model import count_params
from stillroom.training import ByRow, Scratch, count_steps, fit

FAMILIES: dict[str, Family] = {
    "static": static,
    "cnn": cnn,
    "bilstm": bilstm,
    "sliced": sliced,
    "narrow": narrow,
    "pretrained": pretrained,
}
VARIANTS = ("student", "baseline")
DESCRIPTION = "student.json"


def train(
    material: Material,
    settings: FixedStudent,
    train_rows: Rows,
    validation_rows: Rows,
    variant: str,
    seed: int,
    machine: ComputeParams,
    scratch: Scratch,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """One training run. variant `student` learns from the teacher's answers, for grown texts too, which have no label;
    `baseline` from the labels of the training rows alone.
    """
    family = FAMILIES[settings.family]
    torch.manual_seed(seed)
    student = family.build(material, settings)
    tokens = material.tokens if variant == "student" else material.tokens.first(len(train_rows))
    label = torch.full((len(tokens), *train_rows.label.shape[1:]), NO_LABEL, dtype=torch.int64)
    label[: len(train_rows)] = torch.from_numpy(train_rows.label)
    columns: dict[str, ByRow] = {"label": label}
    if variant == "student":
        columns |= material.signals
    if settings.piece_dropout:
        table = spellings(material.tokeniser_json)
        tokens = Respelled(tokens.ids, tokens.offsets, table, settings.piece_dropout, settings.max_length, seed)
    batches = family.batches(tokens, settings, material.pad, seed, columns)
    validation = family.batches(
        material.validation_tokens,
        settings,
        material.pad,
        None,
        {"label": torch.from_numpy(validation_rows.label)},
    )
    learner = family.learner(student, settings, count_steps(batches, settings.epochs), seed)
    learner.calibration = material.description.temperature
    fit(
        learner,
        batches,
        validation,
        epochs=settings.epochs,
        patience=settings.patience,
        scratch=scratch,
        machine=machine,
        task=f"distil {variant}",
    )
    return student, learner.history


def publish(
    folder: Path,
    name: str,
    settings: FixedStudent,
    material: Material,
    trained: dict[str, nn.Module],
    told: dict[str, Any],
) -> None:
    """Write both variants, the trimmed tokeniser and the description into an existing folder."""
    family = FAMILIES[settings.family]
    for variant, model in trained.items():
        state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / f"{variant}.safetensors")
    spec = json.loads(material.tokeniser_json)
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    student = trained["student"]
    description = {
        "format": 1,
        "name": name,
        "family": settings.family,
        "params": count_params(student),
        "problem_type": material.description.problem_type,
        "labels": list(material.description.labels),
        "max_length": settings.max_length,
        "trimming": dict(material.trimming),
        "shape": family.describe(student, folder),
        **told,
    }
    write_json(folder / DESCRIPTION, description)


def load_trained(folder: Path, variant: str) -> tuple[nn.Module, dict[str, Any]]:
    """A published student as it was trained, and its description.

    Raises InputError if the folder is not as it was published.
    """
    description = read_json(folder / DESCRIPTION)
    try:
        model: nn.Module = FAMILIES[description["family"]].load(folder, description["shape"])
        model.load_state_dict(load_file(folder / f"{variant}.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: not a whole student ({told}); run the stage distil again") from error
    return model.eval(), description


def load_student(folder: Path, variant: str) -> tuple[nn.Module, dict[str, Any]]:
    """The same in the form that is exported."""
    model, description = load_trained(folder, variant)
    exported: nn.Module = FAMILIES[description["family"]].graph(model)
    return exported.eval(), description


def stopwatch() -> Any:
    """A function that returns the seconds since its last call."""
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        now = time.monotonic()
        last, took = now, now - last
        return took

    return lap
