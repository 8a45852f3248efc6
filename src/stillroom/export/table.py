"""Label a CSV file row by row, whatever its size: text in, `text,label,probability` out, in order."""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from stillroom.errors import InputError
from stillroom.export.runtime import Package
from stillroom.files import atomic_file

_COLUMN = "text"
_FIELD_CHARS = 16 * 1024 * 1024


def predict_file(package: Package, source: Path, target: Path | None) -> None:
    """Read a column `text`, write columns `text,label,probability` to the target or to stdout.

    The target appears whole or not at all. Raises InputError for a file without that column or of broken CSV.
    """
    csv.field_size_limit(_FIELD_CHARS)
    with source.open(encoding="utf-8-sig", newline="") as stream:
        texts = _texts(stream, source)
        if target is None:
            _write(sys.stdout, package, texts)
            return
        if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
            raise InputError(f"{target}: its folder does not exist or cannot be written")
        with atomic_file(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
            _write(out, package, texts)


def _texts(stream: TextIO, source: Path) -> Iterator[str]:
    reader = csv.DictReader(stream, strict=True)
    try:
        names = reader.fieldnames or []
        if _COLUMN not in names:
            raise InputError(f"{source}: has no column {_COLUMN!r}; it has {', '.join(names) or 'none'}")
        for row in reader:
            if row[_COLUMN] is None:
                raise InputError(f"{source}: line {reader.line_num} has no value for {_COLUMN!r}")
            yield row[_COLUMN]
    except csv.Error as error:
        raise InputError(f"{source}: line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 after line {reader.line_num} ({error.reason})") from error


def _write(out: TextIO, package: Package, texts: Iterator[str]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_COLUMN, "label", "probability"])
    for text, label, probability in package.stream(texts):
        writer.writerow([text, label, f"{probability:.6f}"])
