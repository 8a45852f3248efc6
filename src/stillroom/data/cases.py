"""Must-not-change cases: texts whose answer by a package must be exactly a given one. They are no test rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillroom.data.examples import Label
from stillroom.data.manifest import SnapshotManifest
from stillroom.data.splits import Rows, encoded
from stillroom.errors import InputError


@dataclass(frozen=True)
class Cases:
    """Texts, and where each stands in its file (`line 3`). label: the answers that are demanded, or None where they
    are the teacher's own."""

    place: list[str]
    text: list[str]
    label: list[Label] | None

    def __len__(self) -> int:
        return len(self.text)

    def rows(self, snapshot: SnapshotManifest) -> Rows | None:
        """The cases as rows that are numbered from 0, with the demanded answers; None where those are the teacher's."""
        if self.label is None:
            return None
        try:
            labels = encoded(self.label, snapshot)
        except KeyError as error:
            raise InputError(f"data.cases: label {error} is not among those of the split; run it again") from error
        return Rows(np.arange(len(self)), self.text, labels)


NONE = Cases([], [], None)
FILE = "cases.parquet"
"""In the folders of ingested rows, of the reference and of each evaluation."""


def write_cases(cases: Cases, path: Path) -> None:
    """Write columns place, text and, where answers are demanded, label; without cases, a file without rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"place": pa.array(cases.place, pa.string()), "text": pa.array(cases.text, pa.string())}
    if cases.label is not None:
        several = any(isinstance(label, tuple) for label in cases.label)
        columns["label"] = pa.array(cases.label, pa.list_(pa.string()) if several else pa.string())
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_cases(path: Path) -> Cases:
    """Read what `write_cases` wrote; raises InputError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        place, text = (table[name].to_pylist() for name in ("place", "text"))
        label = table["label"].to_pylist() if "label" in table.column_names else None
    except (pa.ArrowException, OSError, KeyError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as cases ({told}); run the stage ingest again") from error
    if label is not None:
        label = [tuple(names) if isinstance(names, list) else names for names in label]
    return Cases(place, text, label)
