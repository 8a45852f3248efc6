"""Decode: from a file's bytes to text, or one line that says which byte on which line is wrong."""

import codecs
from dataclasses import dataclass

from stillroom.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks, longest first where one begins like another."""
_SAMPLE_BYTES = 256 << 10
_WESTERN = "cp1252"
_READS_WELL = 0.1
"""charset-normalizer's chaos, 0 to 1, up to which a text counts as readable."""


@dataclass(frozen=True)
class Decoded:
    """Text, the encoding that it was read by and, if that is a guess, the first line that depends on it."""

    text: str
    encoding: str
    doubtful: str | None = None


def decode(data: bytes, shown: str) -> Decoded:
    """Decode UTF-8, anything with a byte-order mark, or one other encoding that the whole file keeps to.

    A mark at the start is dropped, so it never hides in the first column's name. Raises InputError for an
    empty file, for a file that mixes encodings (with the first line that breaks off), for a mark in its
    midst, for NUL.
    """
    if not data.strip():
        raise InputError(f"{shown}: is empty")
    decoded = _by_mark(data, shown) or _by_guess(data, shown)
    _refuse_marks_and_nul(decoded.text, shown)
    return decoded


def _by_mark(data: bytes, shown: str) -> Decoded | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return Decoded(data[len(mark) :].decode(encoding), encoding)
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, len(mark) + error.start) + 1
                raise InputError(f"{shown}: line {line}: not {encoding}, which its byte-order mark promises") from error
    return None


def _by_guess(data: bytes, shown: str) -> Decoded:
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        foreign = _foreign_lines(data, shown)
    encoding = _likeliest(b"\n".join(foreign)[:_SAMPLE_BYTES])
    try:
        if encoding is None:
            raise LookupError
        return Decoded(data.decode(encoding), encoding, foreign[0].decode(encoding).strip())
    except (LookupError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: not UTF-8, and no other encoding fits; save it as UTF-8") from error


def _likeliest(sample: bytes) -> str | None:
    """The encoding that reads best; Windows' western one where it reads well, for a few words fit many."""
    from charset_normalizer import from_bytes

    matches = from_bytes(sample)
    for match in matches:
        if _WESTERN in (match.encoding, *match.could_be_from_charset) and match.chaos <= _READS_WELL:
            return _WESTERN
    best = matches.best()
    return best.encoding if best is not None else None


def _foreign_lines(data: bytes, shown: str) -> list[bytes]:
    """The lines that are not UTF-8; a file that has lines in UTF-8 beyond ASCII as well mixes encodings."""
    foreign: list[bytes] = []
    first_foreign = first_utf8 = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            first_utf8 = first_utf8 or number
        except UnicodeDecodeError:
            first_foreign = first_foreign or number
            foreign.append(line)
    if first_utf8:
        raise InputError(
            f"{shown}: line {first_foreign}: not UTF-8, while line {first_utf8} is; "
            "the file mixes encodings, save it whole as UTF-8"
        )
    return foreign


def _refuse_marks_and_nul(text: str, shown: str) -> None:
    nul = text.find("\0")
    if nul >= 0:
        raise InputError(
            f"{shown}: line {_line(text, nul)}: holds a NUL byte; the file is damaged, or is UTF-16 without its mark"
        )
    mark = 0 if text.startswith("\ufeff") else text.find("\n\ufeff")
    if mark >= 0:
        raise InputError(
            f"{shown}: line {_line(text, mark + 1)}: begins with a byte-order mark; "
            "were two files joined? remove the mark, and the second header if there is one"
        )


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
