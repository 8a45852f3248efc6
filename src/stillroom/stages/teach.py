"""teach: the pinned checkpoint and the split → a fine-tuned (or ready) teacher, calibrated and described."""

import logging
from pathlib import Path

from stillroom import compute, layout
from stillroom.batching import tokenise
from stillroom.calibration import fit_temperature
from stillroom.data.sources.teacher import teacher_folder
from stillroom.data.splits import read_snapshot, read_split
from stillroom.files import atomic_folder, read_json
from stillroom.gate.metrics import classification_metrics
from stillroom.params import Params
from stillroom.problem import probabilities
from stillroom.teacher.finetune import fine_tune
from stillroom.teacher.inference import predict
from stillroom.teacher.model import Classifier, Description, count_params, load_ready, save_teacher
from stillroom.teacher.tokeniser import pad_id, read_tokeniser
from stillroom.training import Scratch, training_key

_BETWEEN_SEEDS = 1_000_003
"""Between the seeds of an ensemble's members, so that none is that of another run's first."""

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish the teacher, and the other members of its ensemble below it; its validation metrics and its speed."""
    compute.prepare(params.compute)
    room = _Room(params)
    scratches: list[Scratch] = []
    with atomic_folder(layout.TEACHER) as folder:
        first, speed = room.publish(folder, 0, scratches)
        others = []
        for number in range(1, params.teacher.members):
            own = folder / layout.MEMBERS / str(number)
            own.mkdir(parents=True)
            others.append(room.publish(own, number, scratches)[0].metrics["validation"]["accuracy"])
    for scratch in scratches:
        scratch.discard()
    metrics = first.metrics["validation"]
    log.info("teach: validation accuracy %.4f, %.0f tokens/s", metrics["accuracy"], speed)
    found = {**metrics, "tokens_per_second": speed, "epochs": float(len(first.history))}
    if not others:
        return found
    every = [metrics["accuracy"], *others]
    log.info("teach: of %d members, validation accuracy %.4f to %.4f", len(every), min(every), max(every))
    return found | {"least_member_accuracy": min(every), "greatest_member_accuracy": max(every)}


class _Room:
    """What teachers are made from."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._settings = settings = params.teacher
        self._checkpoint = teacher_folder(layout.SOURCE_TEACHER)
        self._snapshot = read_snapshot(layout.SPLIT)
        self._tokeniser = read_tokeniser(self._checkpoint, settings.max_length)
        self._pad = pad_id(self._checkpoint)
        self._rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation")}
        self._tokens = {
            name: tokenise(self._tokeniser, part.text, settings.max_length) for name, part in self._rows.items()
        }
        self._pin = read_json(layout.SOURCE_TEACHER)
        self._precision = compute.precision(params.compute)

    def publish(self, folder: Path, member: int, scratches: list[Scratch]) -> tuple[Description, float]:
        """Write one teacher into an empty folder; its description, and tokens a second of its training.

        scratches: what the trainings resume from is added to it; to be discarded once all are published.
        """
        settings, snapshot, validation = self._settings, self._snapshot, self._rows["validation"]
        history: list[dict[str, float]] = []
        speed = 0.0
        model: Classifier
        if settings.fine_tune:
            model, history = self._fine_tuned(member, scratches)
            speed = len(self._tokens["train"].ids) * len(history) / sum(epoch["seconds"] for epoch in history)
        else:
            model = load_ready(self._checkpoint, snapshot.labels, snapshot.problem_type)
        logits = predict(model, self._tokens["validation"], self._pad, 4 * settings.batch_tokens)
        temperature = fit_temperature(logits, validation.label)
        found = probabilities(logits, snapshot.problem_type, temperature)
        description = Description(
            name=settings.name or _name(self._pin["uri"]),
            params=count_params(model),
            problem_type=snapshot.problem_type,
            labels=tuple(snapshot.labels),
            pooling=settings.pooling,
            max_length=settings.max_length,
            temperature=temperature,
            precision=self._precision,
            pad=self._pad,
            ready=not settings.fine_tune,
            metrics={"validation": classification_metrics(validation.label, found)},
            history=tuple(history),
            tokens_per_second=speed or None,
        )
        save_teacher(folder, model, self._tokeniser, description)
        return description, speed

    def _fine_tuned(self, member: int, scratches: list[Scratch]) -> tuple[Classifier, list[dict[str, float]]]:
        told = self._settings.model_dump(exclude={"members"})  # one more leaves those before it as they are
        seed = self._params.seed + member * _BETWEEN_SEEDS
        key = training_key("teach", told, self._pin, self._snapshot.sha256, seed, self._precision)
        scratches.append(Scratch(key))
        return fine_tune(
            self._checkpoint,
            self._settings,
            self._snapshot.labels,
            (self._tokens["train"], self._rows["train"]),
            (self._tokens["validation"], self._rows["validation"]),
            self._pad,
            seed,
            self._params.compute,
            scratches[-1],
        )


def _name(uri: str) -> str:
    return Path(uri.split("://")[-1].split("@")[0]).name
