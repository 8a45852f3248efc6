"""Label a CSV file row by row, whatever its size: a column of texts in, with label and probability out, in order."""

import csv
import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from stillroom.errors import InputError
from stillroom.export.abstention import Answer
from stillroom.files import atomic_file, disk_errors

_FIELD_CHARS = 16 * 1024 * 1024


def predict_file(
    answer: Callable[[Iterator[str]], Iterator[Answer]], source: Path, target: Path | None, column: str = "text"
) -> None:
    """Read a column, write it with the columns `label` and `probability` to the target or to stdout.

    answer: what labels the texts as they come, such as a package's `stream`. The target appears whole or not at all.
    Raises InputError for a source that cannot be read, lacks that column or is broken CSV and for a target that
    cannot be written, TryAgain where the target's disk is full.
    """
    csv.field_size_limit(_FIELD_CHARS)
    texts = _texts(source, column)
    if target is None:
        _write(sys.stdout, column, answer(texts))
        return
    with disk_errors(target):
        written = _written(target)
        with atomic_file(written) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
            _write(out, column, answer(texts))


def _written(target: Path) -> Path:
    """The file that a target stands for, through links; a pipe or a device must not be replaced by a file."""
    written = Path(os.path.realpath(target))
    if not written.parent.is_dir():
        raise InputError(f"{target}: there is no folder {written.parent}; create it")
    if written.exists() and not written.is_file():
        raise InputError(f"{target}: is no regular file; give --output another name, or leave it out for stdout")
    return written


def _texts(source: Path, column: str) -> Iterator[str]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = reader.fieldnames or []
            if column not in names:
                told = ", ".join(names) or "none"
                raise InputError(f"{source}: has no column {column!r}; it has {told}; name another with --column")
            for row in reader:
                if row[column] is None:
                    raise InputError(f"{source}: line {reader.line_num} has no value for {column!r}")
                yield row[column]
    except csv.Error as error:
        raise InputError(f"{source}: after line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 after line {reader.line_num} ({error.reason})") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error


class _Lines:
    """Ends lines with a line feed alone; csv quotes a text's carriage return only where its own line end has one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix("\r\n") + "\n")


def _write(out: TextIO, column: str, rows: Iterator[Answer]) -> None:
    first = list(islice(rows, 1))  # a source that is refused leaves not even a header on stdout
    writer = csv.writer(_Lines(out))
    writer.writerow([column, "label", "probability"])
    for text, label, probability in chain(first, rows):
        writer.writerow([text, label, f"{probability:.6f}"])
