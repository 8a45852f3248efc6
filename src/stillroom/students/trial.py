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
from stillroom.params import ComputeParams, QuantiseParams
from stillroom.student_params import FixedStudent
from stillroom.students.distil import FAMILIES, publish, train
from stillroom.students.family import Cost
from stillroom.students.material import Material
from stillroom.students.packaging import model_of
from stillroom.students.search import Measured
from stillroom.training import Scratch

STUDENT = "student"
_TIMED_TEXTS = 100
_REPEATS = 10


@dataclass(frozen=True)
class Trials:
    """All that a trial needs. material: what a student of some settings is made from; key: of its training."""

    material: Callable[[FixedStudent], Material]
    train_rows: Rows
    validation_rows: Rows
    key: Callable[[FixedStudent], str]
    seed: int
    machine: ComputeParams

    def cost(self, settings: FixedStudent) -> Cost:
        """By the family's cost model."""
        return FAMILIES[settings.family].cost(self.material(settings), settings)

    def run(self, settings: FixedStudent, folder: Path) -> Measured:
        """Leave a published student in folder/student, and say what its package reaches."""
        began = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        material, scratch = self.material(settings), Scratch(self.key(settings))
        student, history = train(
            material,
            settings,
            self.train_rows,
            self.validation_rows,
            "student",
            self.seed,
            self.machine,
            scratch,
        )
        with atomic_folder(folder / STUDENT) as published:
            publish(published, folder.name, settings, material, {"student": student}, {"history": history})
        scratch.discard()
        packaged = folder / "package"
        packaged.mkdir()
        model = model_of(folder / STUDENT, "student", folder.name)
        manifest = build_package(packaged, model, self.validation_rows, QuantiseParams(), {}, self.train_rows)
        return self._measured(Package.load(packaged), manifest["rungs"][-1], time.monotonic() - began)

    def _measured(self, package: Package, rung: dict[str, float], seconds: float) -> Measured:
        rows = self.validation_rows
        hits = package.predict(rows.text).argmax(axis=1) == rows.label
        chosen = np.random.default_rng(self.seed).permutation(len(rows.text))[:_TIMED_TEXTS]
        latency = latencies_ms(
            {"student": lambda text: package.predict([text])}, [rows.text[row] for row in chosen], {"student": _REPEATS}
        )["student"]
        return Measured(
            accuracy=float(hits.mean()),
            fp32_accuracy=rung["accuracy"] + rung["drop"],
            latency_p50_ms=latency["p50"],
            latency_p95_ms=latency["p95"],
            size_bytes=sum(path.stat().st_size for path in package.folder.iterdir()),
            params=package.manifest["params"],
            quantisation=package.manifest["quantisation"],
            seconds=seconds,
        )
