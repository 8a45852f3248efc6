"""Splits on disk: what the split stage writes and every later room reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from stillroom.data.examples import Label, Splits, content_digest, names_of, read_examples, write_examples
from stillroom.data.manifest import SPLITS, DataSource, SnapshotManifest
from stillroom.errors import InputError
from stillroom.files import atomic_folder, read_json, write_json

MANIFEST = "snapshot.json"


@dataclass(frozen=True)
class Rows:
    """One split: row ids, unique over all splits; texts; labels by the indices of the manifest's, as in
    stillroom.problem: class ids [n], or 0 and 1 [n, classes]."""

    row: npt.NDArray[np.int64]
    text: list[str]
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text)


def write_splits(splits: Splits, source: DataSource, findings: list[str], folder: Path) -> SnapshotManifest:
    """Write the three splits and their manifest as one folder, whole or not at all.

    `findings` of the stages before stand in front of those of the split.
    """
    labels = sorted({name for examples in splits.examples.values() for name in examples.label_counts()})
    several = any(isinstance(label, tuple) for label in splits.examples["train"].label)
    manifest = SnapshotManifest(
        problem_type="multi_label" if several else "single_label",
        labels=tuple(labels),
        rows={name: len(splits.examples[name]) for name in SPLITS},
        label_counts={name: splits.examples[name].label_counts() for name in SPLITS},
        sha256=content_digest({name: splits.examples[name] for name in SPLITS}),
        source=source,
        dropped=splits.dropped,
        findings=(*findings, *splits.findings),
    )
    with atomic_folder(folder) as temporary:
        for name in SPLITS:
            write_examples(splits.examples[name], temporary / f"{name}.parquet")
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def read_split(folder: Path, name: str) -> Rows:
    """Read the split `name` (train, validation or test) of an artifacts/split folder.

    Raises InputError if it is missing, damaged, or has a label that the manifest does not know.
    """
    if name not in SPLITS:
        raise InputError(f"{folder}: has no split {name!r}; it has {', '.join(SPLITS)}")
    snapshot = read_snapshot(folder)
    path = folder / f"{name}.parquet"
    examples = read_examples(path)
    try:
        labels = encoded(examples.label, snapshot)
    except KeyError as error:
        raise InputError(f"{path}: label {error} is not in {MANIFEST}; run the split stage again") from error
    return Rows(np.array(examples.row, np.int64), examples.text, labels)


def encoded(given: Sequence[Label], snapshot: SnapshotManifest) -> npt.NDArray[np.int64]:
    """Labels by the indices of the manifest's: class ids [n], or 0 and 1 [n, classes]; KeyError for another label."""
    ids = {label: index for index, label in enumerate(snapshot.labels)}
    if snapshot.problem_type == "single_label":
        return np.array([ids[name] for label in given for name in names_of(label)], np.int64)
    labels = np.zeros((len(given), len(ids)), np.int64)
    for row, label in enumerate(given):
        labels[row, [ids[name] for name in names_of(label)]] = 1
    return labels


def read_snapshot(folder: Path) -> SnapshotManifest:
    """Read the manifest of an artifacts/split folder."""
    try:
        return SnapshotManifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError as error:
        raise InputError(
            f"{folder / MANIFEST}: not a snapshot manifest of this version; run the split stage again"
        ) from error
