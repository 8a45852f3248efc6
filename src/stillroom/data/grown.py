"""Grown texts on disk: what the stage grow writes, and capture and the students read."""

from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import InputError
from stillroom.files import atomic_folder

TEXTS = "texts.parquet"


def write_grown(texts: Sequence[str], folder: Path) -> None:
    """Write an artifacts/grown folder, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_folder(folder) as temporary:
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), temporary / TEXTS, compression="zstd")


def read_grown(folder: Path) -> list[str]:
    """Read what `write_grown` wrote; raises InputError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / TEXTS
    try:
        texts: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()
        return texts
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{path}: not readable as texts ({' '.join(str(error).split())}); run the stage grow again"
        ) from error
