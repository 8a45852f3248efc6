"""Read: from a CSV, TSV, TAB, JSONL or Parquet file to the columns of texts and labels."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.data.delimited import Records, read_csv, read_tab, read_tsv
from stillroom.data.encoding import decode
from stillroom.errors import InputError

FORMATS = (".csv", ".tsv", ".tab", ".jsonl", ".parquet")
_DELIMITED = {".csv": read_csv, ".tsv": read_tsv, ".tab": read_tab}


@dataclass(frozen=True)
class Table:
    """Raw values of both columns, not yet checked, and where each row stands in its file; no labels if none were asked.

    `unit` is what `places` count from 1: lines of a text file, where a row may span several, or rows.
    """

    shown: str
    texts: Sequence[Any]
    labels: Sequence[Any]
    places: Sequence[int]
    unit: str
    encoding: str
    findings: tuple[str, ...] = ()

    def where(self, index: int) -> str:
        """Where a row stands, for messages: `rows.csv: line 12`."""
        return f"{self.shown}: {self.unit} {self.places[index]}"


def read_table(path: Path, text: str, label: str | None, shown: str, quoting: bool = True) -> Table:
    """Read the two named columns of a file whose ending tells its format, or the texts alone.

    `shown` names the file in messages; without `quoting` no finding shows what the file holds. Raises
    InputError for what cannot be read: no such column (the nearest is named), encodings, quotes, rows of another
    width, JSON or Parquet that is not whole, no rows.
    """
    if text == label:
        raise InputError(f"params.yaml: data.text and data.label are both {text!r}; name two columns")
    found = _read(path, {"data.text": text} | ({} if label is None else {"data.label": label}), shown, quoting)
    texts, labels = found.columns if label is not None else (*found.columns, [])
    return Table(shown, texts, labels, found.places, found.unit, found.encoding, found.findings)


def read_columns(path: Path, names: Mapping[str, str], shown: str) -> dict[str, Sequence[Any]]:
    """Read other columns of the same rows. names: by the parameter that asks for each, as is the answer."""
    return dict(zip(names, _read(path, names, shown).columns, strict=True))


def column_names(path: Path, shown: str) -> list[str]:
    """Names of a file's columns; in JSONL those that any line has. Raises InputError as `read_table` does."""
    return list(_read(path, {}, shown).names)


@dataclass(frozen=True)
class _Found:
    columns: Sequence[list[Any]]
    places: Sequence[int]
    unit: str
    encoding: str
    names: Sequence[str]
    findings: tuple[str, ...] = ()


def _read(path: Path, names: Mapping[str, str], shown: str, quoting: bool = True) -> _Found:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{shown}: no known format; give a file that ends in {', '.join(FORMATS)}")
    try:
        found = _read_parquet(path, names, shown) if suffix == ".parquet" else _read_text(path, names, shown, quoting)
    except OSError as error:
        raise InputError(f"{shown}: not readable ({error.strerror or error})") from error
    if not found.places:
        raise InputError(f"{shown}: has no rows")
    return found


def _read_text(path: Path, names: Mapping[str, str], shown: str, quoting: bool) -> _Found:
    decoded = decode(path.read_bytes(), shown)
    findings = []
    if decoded.doubtful is not None:
        doubtful = repr(decoded.doubtful[:60]) if quoting else "what is beyond ASCII"
        findings.append(f"read as {decoded.encoding}, not UTF-8; look whether {doubtful} is right")
    if path.suffix.lower() == ".jsonl":
        columns, places, header = _json_lines(decoded.text, names, shown)
    else:
        records = _DELIMITED[path.suffix.lower()](decoded.text, shown)
        findings += records.findings
        columns, places, header = _columns(records, names, shown), records.lines, records.header
    return _Found(columns, places, "line", decoded.encoding, header, tuple(findings))


def _columns(records: Records, names: Mapping[str, str], shown: str) -> list[list[Any]]:
    header = records.header
    _require(header, names, shown)
    for name in names.values():
        if header.count(name) > 1:
            raise InputError(f"{shown}: has {header.count(name)} columns named {name!r}; rename one")
    return [[row[at] for row in records.rows] for at in map(header.index, names.values())]


def _json_lines(content: str, names: Mapping[str, str], shown: str) -> tuple[list[list[Any]], list[int], list[str]]:
    columns: list[list[Any]] = [[] for _ in names]
    places: list[int] = []
    header: dict[str, None] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{shown}: line {number}: not JSON ({error}); JSONL has one object a line") from error
        if not isinstance(record, dict):
            raise InputError(f"{shown}: line {number}: no JSON object; JSONL has one object a line")
        header |= dict.fromkeys(record)
        _require(list(record), names, f"{shown}: line {number}")
        for column, name in zip(columns, names.values(), strict=True):
            column.append(record[name])
        places.append(number)
    return columns, places, list(header)


def _read_parquet(path: Path, names: Mapping[str, str], shown: str) -> _Found:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise InputError(f"{shown}: is empty")
    try:
        with pq.ParquetFile(path) as file:
            header = list(file.schema_arrow.names)
            _require(header, names, shown)
            rows, table = file.metadata.num_rows, file.read(columns=list(dict.fromkeys(names.values())))
        columns = [table[name].to_pylist() for name in names.values()]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: not readable as Parquet ({' '.join(str(error).split())})") from error
    return _Found(columns, range(1, rows + 1), "row", "utf-8", header)


def _require(names: Sequence[str], wanted: Mapping[str, str], shown: str) -> None:
    for param, name in wanted.items():
        if name in names:
            continue
        near = difflib.get_close_matches(name.lower(), [other.strip().lower() for other in names], n=1, cutoff=0.5)
        close = next((other for other in names if near and other.strip().lower() == near[0]), None)
        hint = f"did you mean {close!r}?" if close is not None else f"it has {', '.join(map(repr, names[:10]))}"
        if len(names) == 1 and (mark := next((mark for mark in ";\t|" if mark in names[0]), None)):
            hint = f"its columns seem to be separated by {mark!r}"
        raise InputError(f"{shown}: has no column {name!r} ({param}); {hint}")
