"""Delimited text: CSV, TSV, and the .tab files of Orange, strict about quotes and widths."""

import csv
import io
import re
import sys
import threading
from dataclasses import dataclass, field

from stillroom.errors import InputError

_ORANGE_TYPE = re.compile(r"(d|discrete|c|continuous|s|string|t|time|b|basket)?|\S+( \S+)+")
_ORANGE_ROLE = re.compile(r"((class|multiclass|meta|ignore|weight|c|m|i|w|\S+=\S*)( |$))*")
_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Records:
    """A header, rows as wide as it is, and the line (from 1) on which each row begins."""

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    findings: list[str] = field(default_factory=list)


def read_csv(text: str, shown: str) -> Records:
    """Read comma-separated values (RFC 4180); an unbalanced quote or a row of another width is refused."""
    return _quoted(text, ",", shown)


def read_tsv(text: str, shown: str) -> Records:
    """Read tab-separated values: with quotes as CSV has them where they fit, otherwise quotes are plain text.

    The media type text/tab-separated-values knows no quotes, but spreadsheets write them. A quoted reading
    that fails, or that swallows line ends although every line has the header's number of fields, is not
    what was meant.
    """
    plain = _rectangular(text, shown)
    if plain is None:
        return _quoted(text, "\t", shown)
    try:
        quoted = _quoted(text, "\t", shown)
    except InputError:
        quoted = None
    if quoted is None or len(quoted.rows) != len(plain.rows):
        return Records(plain.header, plain.rows, plain.lines, ["quotes are read as plain text"])
    return quoted


def read_tab(text: str, shown: str) -> Records:
    """Read Orange's .tab: rows of names, types and roles, then data without quotes. One header row will do.

    Format: the Orange data mining library's "Loading your data", native tab-delimited format.
    """
    records = _unquoted(text, shown)
    if records.lines[:2] == [2, 3] and _describe_columns(*records.rows[:2]):
        return Records(records.header, records.rows[2:], records.lines[2:])
    return records


def _describe_columns(types: list[str], roles: list[str]) -> bool:
    """Whether the second and third row are Orange's: types, or the values of a discrete one; then roles."""
    if not all(_ORANGE_TYPE.fullmatch(kind) for kind in types):
        return False
    return any(types) and all(_ORANGE_ROLE.fullmatch(role) for role in roles)


def _quoted(text: str, delimiter: str, shown: str) -> Records:
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    begins = 1
    # The limit is the csv module's own global; a text's length is checked against data.max_chars later.
    with _LIMIT:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            for row in reader:
                if header is None:
                    header = row or None
                elif row:
                    _check_width(row, header, begins, shown)
                    rows.append(row)
                    lines.append(begins)
                begins = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{shown}: line {begins}: {error}; a quote is not balanced, write one inside a field twice"
            ) from error
        finally:
            csv.field_size_limit(limit)
    if header is None:
        raise InputError(f"{shown}: is empty")
    return Records(header, rows, lines)


def _unquoted(text: str, shown: str) -> Records:
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        row = line.removesuffix("\r").split("\t")
        if header is None:
            header = row if line.strip() else None
        elif line.strip("\r"):
            _check_width(row, header, number, shown)
            rows.append(row)
            lines.append(number)
    if header is None:
        raise InputError(f"{shown}: is empty")
    return Records(header, rows, lines)


def _rectangular(text: str, shown: str) -> Records | None:
    try:
        return _unquoted(text, shown)
    except InputError:
        return None


def _check_width(row: list[str], header: list[str], line: int, shown: str) -> None:
    if len(row) != len(header):
        raise InputError(
            f"{shown}: line {line}: has {len(row)} fields, the header has {len(header)}; "
            "a text that holds the separator must be quoted"
        )
