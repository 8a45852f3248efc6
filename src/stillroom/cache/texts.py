"""The transfer set as capture reads it: in pieces, so that memory does not grow with its length."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stillroom.cache.identity import Example
from stillroom.errors import InputError

_PIECE = 8192


class Texts(Protocol):
    """Examples in an order that stays."""

    def __len__(self) -> int: ...

    def pieces(self) -> Iterator[Sequence[Example]]:
        """All of them in order, some thousands at a time."""


class Listed:
    """Examples in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def pieces(self) -> Iterator[Sequence[Example]]:
        for start in range(0, len(self._examples), _PIECE):
            yield self._examples[start : start + _PIECE]


class Stored:
    """The column `text` of Parquet files, one file after another."""

    def __init__(self, *paths: Path) -> None:
        """Raises InputError for a file that is missing or damaged."""
        import pyarrow.parquet as pq

        self._paths = paths
        self._length = 0
        for path in paths:
            with _told(path):
                self._length += pq.read_metadata(path).num_rows

    def __len__(self) -> int:
        return self._length

    def pieces(self) -> Iterator[Sequence[Example]]:
        import pyarrow.parquet as pq

        for path in self._paths:
            with _told(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_PIECE, columns=["text"]):
                    yield batch["text"].to_pylist()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as texts ({told}); run the stage that writes it") from error
