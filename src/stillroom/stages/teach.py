"""teach: the pinned checkpoint and the split → a fine-tuned (or ready) teacher, calibrated and described."""

import logging
from pathlib import Path

from stillroom import compute, layout
from stillroom.batching import tokenise
from stillroom.calibration import fit_temperature
from stillroom.data.sources import teacher_folder
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

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish the teacher; returns its validation metrics and the speed of training."""
    settings = params.teacher
    compute.prepare(params.compute)
    checkpoint = teacher_folder(layout.SOURCE_TEACHER)
    snapshot = read_snapshot(layout.SPLIT)
    tokeniser = read_tokeniser(checkpoint, settings.max_length)
    pad = pad_id(checkpoint)
    rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation")}
    tokens = {name: tokenise(tokeniser, part.text, settings.max_length) for name, part in rows.items()}
    pin = read_json(layout.SOURCE_TEACHER)
    precision = compute.precision(params.compute)
    scratch = Scratch(training_key("teach", settings.model_dump(), pin, snapshot.sha256, params.seed, precision))
    history: list[dict[str, float]] = []
    speed = 0.0
    model: Classifier
    if settings.fine_tune:
        model, history = fine_tune(
            checkpoint,
            settings,
            snapshot.labels,
            (tokens["train"], rows["train"]),
            (tokens["validation"], rows["validation"]),
            pad,
            params.seed,
            params.compute,
            scratch,
        )
        speed = len(tokens["train"].ids) * len(history) / sum(epoch["seconds"] for epoch in history)
    else:
        model = load_ready(checkpoint, snapshot.labels, snapshot.problem_type)
    logits = predict(model, tokens["validation"], pad, 4 * settings.batch_tokens)
    temperature = fit_temperature(logits, rows["validation"].label)
    found = probabilities(logits, snapshot.problem_type, temperature)
    metrics = classification_metrics(rows["validation"].label, found)
    description = Description(
        name=settings.name or _name(pin["uri"]),
        params=count_params(model),
        problem_type=snapshot.problem_type,
        labels=tuple(snapshot.labels),
        pooling=settings.pooling,
        max_length=settings.max_length,
        temperature=temperature,
        precision=precision,
        pad=pad,
        ready=not settings.fine_tune,
        metrics={"validation": metrics},
        history=tuple(history),
        tokens_per_second=speed or None,
    )
    with atomic_folder(layout.TEACHER) as folder:
        save_teacher(folder, model, tokeniser, description)
    scratch.discard()
    log.info("teach: validation accuracy %.4f, %.0f tokens/s", metrics["accuracy"], speed)
    return {**metrics, "tokens_per_second": speed, "epochs": float(len(history))}


def _name(uri: str) -> str:
    return Path(uri.split("://")[-1].split("@")[0]).name
