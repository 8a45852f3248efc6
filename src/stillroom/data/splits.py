"""Splits on disk: what the split stage writes and every later room reads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from stillroom.data.examples import Splits, content_digest, read_examples, write_examples
from stillroom.data.manifest import SPLITS, DataSource, SnapshotManifest
from stillroom.errors import InputError
from stillroom.files import atomic_folder, read_json, write_json

MANIFEST = "snapshot.json"


@dataclass(frozen=True)
class Rows:
    """One split: row ids, unique over all splits; texts; class ids, the indices of the manifest's labels."""

    row: npt.NDArray[np.int64]
    text: list[str]
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text)


def write_splits(splits: Splits, source: DataSource, findings: list[str], folder: Path) -> SnapshotManifest:
    """Write the three splits and their manifest as one folder, whole or not at all.

    `findings` of the stages before stand in front of those of the split.
    """
    labels = sorted({label for examples in splits.examples.values() for label in examples.label})
    manifest = SnapshotManifest(
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
    ids = {label: index for index, label in enumerate(read_snapshot(folder).labels)}
    path = folder / f"{name}.parquet"
    examples = read_examples(path)
    try:
        labels = np.array([ids[label] for label in examples.label], np.int64)
    except KeyError as error:
        raise InputError(f"{path}: label {error} is not in {MANIFEST}; run the split stage again") from error
    return Rows(np.array(examples.row, np.int64), examples.text, labels)


def read_snapshot(folder: Path) -> SnapshotManifest:
    """Read the manifest of an artifacts/split folder."""
    try:
        return SnapshotManifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError as error:
        raise InputError(
            f"{folder / MANIFEST}: not a snapshot manifest of this version; run the split stage again"
        ) from error
