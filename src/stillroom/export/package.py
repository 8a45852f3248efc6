"""Write the folder that ships. The manifest comes last and lists the sha256 of every file beside it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillroom.export.runtime import FORMAT, MANIFEST, package_digest
from stillroom.files import file_digests, write_json
from stillroom.problem import ProblemType


def write_package(
    folder: Path,
    *,
    model: Path,
    tokeniser: Path,
    name: str,
    family: str,
    problem_type: ProblemType,
    labels: Sequence[str],
    max_length: int,
    temperature: float,
    quantisation: str,
    params: int,
    threads: int,
    lineage: Mapping[str, str],
    rungs: Sequence[Mapping[str, Any]] = (),
    fp32: Mapping[str, Any] | None = None,
    calibration: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Fill an existing, empty folder with a package and return its manifest.

    threads: CPU threads that the graph runs best with, 0 for every core. params: number of weights of the model.
    rungs: every rung tried, the one that ships last; fp32: the same figures of the graph before it was quantised;
    calibration: its expected calibration error on validation rows with the temperature, and without.
    """
    shutil.copyfile(model, folder / "model.onnx")
    shutil.copyfile(tokeniser, folder / "tokenizer.json")
    files = file_digests(folder)
    manifest = {
        "format": FORMAT,
        "name": name,
        "task": "text-classification",
        "problem_type": problem_type,
        "family": family,
        "labels": list(labels),
        "max_length": max_length,
        "temperature": temperature,
        "threads": threads,
        "quantisation": quantisation,
        "params": params,
        "files": files,
        "digest": package_digest(files, labels, max_length, temperature, problem_type),
        "lineage": dict(lineage),
        "rungs": [dict(rung) for rung in rungs],
        "fp32": None if fp32 is None else dict(fp32),
        "calibration": None if calibration is None else dict(calibration),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def relist(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a package's manifest after files (card, gate report) joined it; the digest stays."""
    files = {name: digest for name, digest in file_digests(folder).items() if name != MANIFEST}
    complete = {**manifest, "files": files}
    write_json(folder / MANIFEST, complete)
    return complete
