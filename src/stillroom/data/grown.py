"""Texts without a label on disk: the user's own, and those that the stage grow hands to capture and the students."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillroom.errors import InputError
from stillroom.files import atomic_folder, write_json

TEXTS = "texts.parquet"
TOLD = "grown.json"


def write_grown(texts: Sequence[str], folder: Path, told: Mapping[str, Any] | None = None) -> None:
    """Write an artifacts/grown folder, whole or not at all.

    told: grown.json, what the texts are: `kept` and `refused` near a held-out text, by kind; `factor`; `curve`, what
    each step of growth gave, where steps were.
    """
    with atomic_folder(folder) as temporary:
        write_texts(texts, temporary / TEXTS)
        write_json(temporary / TOLD, {"kept": {}, "refused": {}, "factor": 0, "curve": [], **(told or {})})


def read_grown(folder: Path) -> list[str]:
    """Read what `write_grown` wrote; raises InputError if it is missing or damaged."""
    return read_texts(folder / TEXTS, "grow")


def write_texts(texts: Sequence[str], path: Path) -> None:
    """Write one column, text (string)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, compression="zstd")


def read_texts(path: Path, stage: str) -> list[str]:
    """Read what `write_texts` wrote; raises InputError, with the stage to run again, if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        texts: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()
        return texts
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{path}: not readable as texts ({' '.join(str(error).split())}); run the stage {stage} again"
        ) from error
