"""How much growth pays: the learning curve of a quick student over growing transfer sets.

Growth helps until the student has heard enough, and each step doubles what the teacher must read; the curve is flat
where the next step no longer pays.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from stillroom.calibration import fit_temperature, log_loss
from stillroom.data.splits import Rows
from stillroom.files import read_json, write_json
from stillroom.params import ComputeParams
from stillroom.problem import accuracy, chosen_by, problem_of
from stillroom.student_params import StaticParams
from stillroom.students import static
from stillroom.students.distil import train
from stillroom.students.material import Material
from stillroom.training import Scratch

FACTORS = (0, 1, 2, 4, 8, 16)
PAYS = 0.02
"""Least share by which a step must lower the validation loss to be taken."""
_EPOCHS = 30
_NOTHING = 1e-6
"""A loss that no step can lower."""

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Step:
    """A point of the curve. loss: negative log-likelihood on validation rows, calibrated."""

    factor: int
    texts: int
    loss: float
    accuracy: float


def climb(score: Callable[[int], Step]) -> tuple[int, list[Step]]:
    """The last factor that paid, and the curve up to the first that did not. score: of a student that heard so much."""
    steps: list[Step] = []
    chosen = 0
    for factor in FACTORS:
        step = score(factor)
        gain = 1 - step.loss / max(steps[-1].loss, _NOTHING) if steps else 1.0
        told = f", {gain:+.1%} better than the step before" if steps else ""
        log.info(
            "grow: factor %d, %d texts: validation loss %.4f%s; accuracy %.4f",
            *(factor, step.texts, step.loss, told, step.accuracy),
        )
        steps.append(step)
        if gain < PAYS:
            break
        chosen = factor
    return chosen, steps


def probe_settings(factor: int, max_length: int) -> StaticParams:
    """A static student; more texts are heard less often each, so that time grows slower than they do."""
    epochs = max(1, round(_EPOCHS / (1 + factor) ** 0.5))
    return StaticParams(family="static", epochs=epochs, word_dropout=0.05, max_length=max_length)


def scored(
    material: Material,
    settings: StaticParams,
    train_rows: Rows,
    validation_rows: Rows,
    factor: int,
    seed: int,
    machine: ComputeParams,
    scratch: Scratch,
) -> Step:
    """Train the probe and score it on the validation rows, or read what an earlier process left of that."""
    kept = scratch.folder / "step.json"
    if kept.is_file():
        return Step(**read_json(kept))
    student, _ = train(material, settings, train_rows, validation_rows, "student", seed, machine, scratch)
    tokens, label = material.validation_tokens, validation_rows.label
    with torch.inference_mode():
        batches = static.batches(tokens, settings, material.pad, None, {})
        logits = torch.cat([student(batch["ids"], batch["offsets"]) for batch in batches]).float().numpy()
    step = Step(
        factor=factor,
        texts=len(material.tokens) - len(train_rows),
        loss=log_loss(logits / fit_temperature(logits, label), label),
        accuracy=accuracy(chosen_by(logits, problem_of(label)), label),
    )
    write_json(kept, asdict(step))
    return step
