"""One student of a search: trained, published, packaged, and measured on validation rows as what ships would be."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillroom.data.splits import Rows
from stillroom.export.build import build_package
from stillroom.export.measure import latencies_ms
from stillroom.export.runtime import Package
from stillroom.files import atomic_folder
from stillroom.gate.metrics import macro_f1
from stillroom.params import ComputeParams
from stillroom.problem import accuracy, choices
from stillroom.quantise_params import QuantiseParams
from stillroom.student_params import FixedStudent
from stillroom.students.distil import FAMILIES, publish, train
from stillroom.students.family import Cost
from stillroom.students.material import Material
from stillroom.students.packaging import model_of
from stillroom.students.search import Measured
from stillroom.training import Scratch

STUDENT = "student"
_TIMED_TEXTS = 1000


@dataclass(frozen=True)
class Trials:
    """All that a trial needs. material: what a student of some settings is made from; scratch: of its training."""

    material: Callable[[FixedStudent], Material]
    train_rows: Rows
    validation_rows: Rows
    scratch: Callable[[FixedStudent], Scratch]
    quantise: QuantiseParams
    seed: int
    machine: ComputeParams

    def folder(self, settings: FixedStudent) -> Path:
        """Where a trial's files are, those of a training that was broken off among them."""
        return self.scratch(settings).folder

    def cost(self, settings: FixedStudent) -> Cost:
        """By the family's cost model."""
        return FAMILIES[settings.family].cost(self.material(settings), settings)

    def run(self, settings: FixedStudent, folder: Path) -> Measured:
        """Leave a published student in folder/student, and say what its package reaches."""
        began = time.monotonic()
        material = self.material(settings)
        rows = self.train_rows, self.validation_rows
        scratch = self.scratch(settings)
        student, history = train(material, settings, *rows, "student", self.seed, self.machine, scratch)
        with atomic_folder(folder / STUDENT) as published:
            publish(published, folder.name, settings, material, {"student": student}, {"history": history})
        packaged = folder / "package"
        shutil.rmtree(packaged, ignore_errors=True)  # an earlier process may have left a part of it
        packaged.mkdir()
        model = model_of(folder / STUDENT, "student", folder.name)
        manifest = build_package(packaged, model, self.validation_rows, self.quantise, {}, self.train_rows)
        return self._measured(Package.load(packaged), manifest["rungs"][-1], time.monotonic() - began)

    def _measured(self, package: Package, rung: dict[str, float], seconds: float) -> Measured:
        rows = self.validation_rows
        chosen = np.random.default_rng(self.seed).permutation(len(rows.text))[:_TIMED_TEXTS]
        texts, warm = [rows.text[row] for row in chosen], self.train_rows.text[:_TIMED_TEXTS]
        package.predict(warm)  # as a service that has run for a while
        latency = latencies_ms({"one": lambda text: package.predict([text])}, texts, {}, warm)
        answers = choices(package.predict(rows.text), package.problem_type)
        return Measured(
            accuracy=accuracy(answers, rows.label),
            macro_f1=macro_f1(rows.label, answers),
            fp32_accuracy=rung["accuracy"] + rung["drop"],
            latency_p50_ms=latency["one"]["p50"],
            latency_p95_ms=latency["one"]["p95"],
            size_bytes=sum(path.stat().st_size for path in package.folder.iterdir()),
            params=package.manifest["params"],
            quantisation=package.manifest["quantisation"],
            seconds=seconds,
        )
