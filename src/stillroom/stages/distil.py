"""distil: split, grown texts, teacher and its cached answers → one student and its baseline without a teacher."""

import logging

from stillroom import compute, layout
from stillroom.cache.manifest import FIRST
from stillroom.code import code_digest
from stillroom.data.grown import read_grown
from stillroom.data.splits import read_snapshot, read_split
from stillroom.errors import InputError
from stillroom.files import atomic_folder, sha256_file
from stillroom.params import Params
from stillroom.students.distil import FAMILIES, VARIANTS, publish, signals_of, stopwatch, train
from stillroom.students.material import gather
from stillroom.teacher.model import WEIGHTS
from stillroom.training import Scratch, training_key

log = logging.getLogger("stillroom")


def run(params: Params, item: str) -> dict[str, float]:
    """Publish one student; returns best validation accuracies and where the time went."""
    settings = params.students[item]
    compute.prepare(params.compute)
    lap = stopwatch()
    rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation")}
    special = FAMILIES[settings.family].SPECIAL_TOKENS
    material = gather(
        layout.TEACHER,
        layout.CACHE,
        rows["train"],
        read_grown(layout.GROWN),
        rows["validation"],
        settings,
        special,
        signals_of(settings),
    )
    if settings.max_length > material.description.max_length:
        raise InputError(
            f"params.yaml: students.{item}.max_length is {settings.max_length}; "
            f"the teacher reads {material.description.max_length} tokens (teacher.max_length)"
        )
    precision = compute.precision(params.compute)
    seconds = {"read": lap()}
    inputs = [read_snapshot(layout.SPLIT).sha256]
    inputs += [sha256_file(path) for path in (layout.TEACHER / WEIGHTS, layout.CACHE / FIRST)]
    trained, histories, scratches = {}, {}, []
    for variant in VARIANTS:
        key = training_key("distil", variant, settings.model_dump(), inputs, params.seed, precision)
        scratches.append(Scratch(key))
        trained[variant], histories[variant] = train(
            material,
            settings,
            rows["train"],
            rows["validation"],
            variant,
            params.seed,
            params.compute,
            scratches[-1],
        )
        seconds[variant] = lap()
    told = {
        "history": histories["student"],
        "baseline_history": histories["baseline"],
        "seconds": seconds,
        "lineage": {"teacher": inputs[1], "cache": inputs[2], "code": code_digest()},
    }
    with atomic_folder(layout.STUDENTS / item) as folder:
        publish(folder, item, settings, material, trained, told)
    for scratch in scratches:
        scratch.discard()
    best = {name: max(epoch["validation_accuracy"] for epoch in history) for name, history in histories.items()}
    log.info(
        "distil %s: validation accuracy %.4f, without the teacher %.4f; %s",
        item,
        best["student"],
        best["baseline"],
        ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items()),
    )
    return {
        "validation_accuracy": best["student"],
        "baseline_validation_accuracy": best["baseline"],
        **{f"seconds_{name}": took for name, took in seconds.items()},
    }
