"""quantise: a student and its baseline → two packages, each exported, checked against PyTorch and quantised."""

from stillroom import compute, layout
from stillroom.data.splits import read_snapshot, read_split
from stillroom.export.build import build_package
from stillroom.files import atomic_folder, read_json, sha256_file, tree_digest
from stillroom.params import Params
from stillroom.students.distil import DESCRIPTION, VARIANTS
from stillroom.students.packaging import model_of


def run(params: Params, item: str) -> dict[str, float]:
    """Publish both packages; returns the student's size and what quantising it cost on validation."""
    compute.prepare(params.compute)
    source = layout.STUDENTS / item
    train, validation = (read_split(layout.SPLIT, name) for name in ("train", "validation"))
    lineage = read_json(source / DESCRIPTION)["lineage"] | {
        "data": read_snapshot(layout.SPLIT).sha256,
        "student": tree_digest(source),
        "lock": sha256_file(layout.LOCK),
    }
    metrics: dict[str, float] = {}
    with atomic_folder(layout.PACKAGES / item) as folder:
        for variant in VARIANTS:
            model = model_of(source, variant, item if variant == "student" else f"{item}-baseline")
            (folder / variant).mkdir()
            manifest = build_package(folder / variant, model, validation, params.quantise, lineage, train)
            last = manifest["rungs"][-1]
            metrics |= {f"{variant}_{name}": float(last[name]) for name in ("accuracy", "drop", "size_bytes")}
    return metrics
