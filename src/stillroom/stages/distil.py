"""distil: split, grown texts, teacher and its cached answers → one student and its baseline without a teacher."""

import hashlib
import logging
from functools import partial
from typing import Any

from torch import nn

from stillroom import compute, layout
from stillroom.cache.manifest import FIRST
from stillroom.code import code_digest
from stillroom.data.grown import read_grown
from stillroom.data.sources.teacher import checkpoint_folder
from stillroom.data.splits import read_snapshot, read_split
from stillroom.files import atomic_folder, sha256_file
from stillroom.params import Params
from stillroom.section import Section
from stillroom.student_params import AutoParams, FixedStudent, PretrainedParams
from stillroom.students.distil import FAMILIES, VARIANTS, load_trained, publish, stopwatch, train
from stillroom.students.material import Material, Start, gather
from stillroom.students.search import Asked, Found, Search
from stillroom.students.shortlist import levels
from stillroom.students.trial import STUDENT, Trials
from stillroom.teacher.model import WEIGHTS, load_teacher, members_of
from stillroom.training import Scratch, training_key

log = logging.getLogger("stillroom")


def run(params: Params, item: str) -> dict[str, float]:
    """Publish one student; returns best validation accuracies and where the time went."""
    given = params.students[item]
    compute.prepare(params.compute)
    lap = stopwatch()
    room = _Room(params, item)
    seconds: dict[str, float] = {"read": lap()}
    trained: dict[str, nn.Module] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    told: dict[str, Any] = {}
    search = Scratch(room.key("search", given.quantise if isinstance(given, AutoParams) else None))
    if isinstance(given, AutoParams):
        found = room.search(given, search)
        settings = found.settings
        trained["student"], description = load_trained(found.folder / STUDENT, "student")
        histories["student"] = description["history"]
        told["settings"] = settings.model_dump(mode="json")
        told["search"] = [trial.model_dump(mode="json") for trial in found.trials]
        seconds["search"] = lap()
    else:
        settings = given
    scratches = [search]
    for variant in VARIANTS:
        if variant in trained:
            continue
        scratches.append(Scratch(room.key(variant, settings)))
        trained[variant], histories[variant] = room.train(settings, variant, scratches[-1])
        seconds[variant] = lap()
    lineage = {"teacher": room.inputs[1], "cache": room.inputs[2], "code": code_digest()}
    if members := room.inputs[3:]:
        lineage["members"] = hashlib.sha256("".join(members).encode()).hexdigest()
    if isinstance(settings, PretrainedParams):
        told["checkpoint"] = settings.checkpoint.model_dump(mode="json")
        lineage["checkpoint"] = settings.checkpoint.sha256
    told |= {
        "history": histories["student"],
        "baseline_history": histories["baseline"],
        "seconds": seconds,
        "lineage": lineage,
    }
    with atomic_folder(layout.STUDENTS / item) as folder:
        publish(folder, item, settings, room.material(settings), trained, told)
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


class _Room:
    """What this stage reads, and how students are trained on it."""

    def __init__(self, params: Params, item: str) -> None:
        self._params = params
        self._item = item
        self._rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation")}
        self._grown = read_grown(layout.GROWN)
        self._gathered: dict[tuple[object, ...], Material] = {}
        files = (layout.TEACHER / WEIGHTS, layout.CACHE / FIRST)
        members = (layout.CACHE / layout.MEMBERS / member.name / FIRST for member in members_of(layout.TEACHER))
        self.inputs = [read_snapshot(layout.SPLIT).sha256, *map(sha256_file, (*files, *members))]
        self.precision = compute.precision(params.compute)

    def key(self, what: str, settings: Section | None) -> str:
        """Of a training, or of the trials of a search, whatever they are wanted for."""
        told = None if settings is None else settings.model_dump(mode="json")
        return training_key("distil", self._item, what, told, self.inputs, self._params.seed, self.precision)

    def material(self, settings: FixedStudent) -> Material:
        """What a student of these settings is made from; the same for all that differ in other settings only."""
        special = FAMILIES[settings.family].SPECIAL_TOKENS
        given = settings.checkpoint if isinstance(settings, PretrainedParams) else None
        vocabulary = (settings.max_vocabulary, settings.keeps_unseen, special)
        key = (settings.max_length, vocabulary, settings.signals, given)
        if key not in self._gathered:
            rows = self._rows["train"], self._grown, self._rows["validation"]
            start = None
            if given is not None:
                what = f"students.{self._item}.checkpoint.source"
                start = Start(checkpoint_folder(given.source, given.sha256, what), given.pooling)
            read = partial(gather, layout.TEACHER, layout.CACHE, *rows)
            self._gathered[key] = read(settings, special, settings.signals, start)
        return self._gathered[key]

    def train(self, settings: FixedStudent, variant: str, scratch: Scratch) -> tuple[nn.Module, list[dict[str, float]]]:
        """Train one variant."""
        rows = self._rows["train"], self._rows["validation"]
        machine, seed = self._params.compute, self._params.seed if settings.seed is None else settings.seed
        return train(self.material(settings), settings, *rows, variant, seed, machine, scratch)

    def search(self, asked: AutoParams, scratch: Scratch) -> Found:
        """The cheapest student that holds what is asked; what an earlier, killed search tried is not tried again."""
        trials = Trials(
            material=self.material,
            train_rows=self._rows["train"],
            validation_rows=self._rows["validation"],
            scratch=lambda settings: Scratch(f"{scratch.key}/{self.key('trial', settings)}"),
            quantise=asked.quantise,
            seed=self._params.seed,
            machine=self._params.compute,
        )
        teacher, description = load_teacher(layout.TEACHER)
        tried = levels(asked, teacher.encoder, description.max_length, description.problem_type)
        tokens = self.material(tried[0].candidates[0]).tokens.lengths.mean()
        wanted = Asked(asked, description.metrics["validation"])
        return Search(wanted, float(tokens), trials.cost, trials.folder, trials.run).find(tried)
