"""Examples: checked rows in memory and as Parquet, the same bytes for the same rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from stillroom.errors import InputError

Label = str | tuple[str, ...]
"""A row's label: a name or, where a row has any number of them, their sorted names."""


def names_of(label: Label) -> tuple[str, ...]:
    """The names in a row's label."""
    return (label,) if isinstance(label, str) else label


@dataclass(frozen=True)
class Examples:
    """Rows in the order of their file. `row` is unique over all files of a run; labels are all of one kind."""

    row: list[int]
    text: list[str]
    label: list[Label]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, keep: Sequence[Any]) -> "Examples":
        """The rows for which `keep`, one truth value a row, holds."""
        chosen = [index for index, wanted in enumerate(keep) if wanted]
        return Examples(
            [self.row[index] for index in chosen],
            [self.text[index] for index in chosen],
            [self.label[index] for index in chosen],
        )

    def label_counts(self) -> dict[str, int]:
        """Rows of each label, by its name, sorted."""
        return dict(sorted(Counter(chain.from_iterable(map(names_of, self.label))).items()))


@dataclass
class Splits:
    """Rows by split, the rows in no split counted by reason, and what a person should look at."""

    examples: dict[str, Examples]
    dropped: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def write_examples(examples: Examples, path: Path) -> None:
    """Write columns row (int64), text and label (string, or list of strings)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    several = any(isinstance(label, tuple) for label in examples.label)
    columns = {
        "row": pa.array(examples.row, pa.int64()),
        "text": pa.array(examples.text, pa.string()),
        "label": pa.array(examples.label, pa.list_(pa.string()) if several else pa.string()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_examples(path: Path) -> Examples:
    """Read what `write_examples` wrote; raises InputError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path, columns=["row", "text", "label"])
        row, text, label = (columns[name].to_pylist() for name in ("row", "text", "label"))
        return Examples(row, text, [tuple(names) if isinstance(names, list) else names for names in label])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the stage that writes it") from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path}: not readable as rows ({' '.join(str(error).split())})") from error


def content_digest(splits: Mapping[str, Examples]) -> str:
    """sha256 over texts and labels in order, each after its length so that no two contents look alike."""
    digest = hashlib.sha256()
    for name, examples in splits.items():
        digest.update(f"{name} {len(examples)}\n".encode())
        for values in zip(examples.text, examples.label, strict=True):
            for value in values:
                encoded = (value if isinstance(value, str) else json.dumps(value)).encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
