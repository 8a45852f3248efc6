"""Checks: what a row, a label column and a set of classes must be before any work is spent on them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from stillroom.data.examples import Examples, Label, names_of
from stillroom.data.folding import folded
from stillroom.data.labels import nearest_label
from stillroom.data.reading import Table
from stillroom.errors import InputError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+")
_NAMED = 5


def check_rows(table: Table, max_chars: int, first_row: int, separator: str | None = None) -> Examples:
    """Check types and contents row by row and return the rows, numbered from `first_row`.

    separator: where a row has any number of labels, what stands between them; they may be a list as well. Raises
    InputError that names the first offending row: a text as `check_texts` has it; a label that is missing, empty or a
    fraction.
    """
    texts = check_texts(table, max_chars)
    labels: list[Label]
    if separator is not None:
        labels = [_labels(value, separator, table, index) for index, value in enumerate(table.labels)]
        _refuse_fractions(((index, name) for index, names in enumerate(labels) for name in names), table)
    else:
        names = [_label(value, table, index) for index, value in enumerate(table.labels)]
        _refuse_fractions(enumerate(names), table)
        labels = [*names]
    rows = range(first_row, first_row + len(labels))
    return Examples(list(rows), texts, labels)


def check_texts(table: Table, max_chars: int) -> list[str]:
    """Check the texts row by row and return them.

    Raises InputError that names the first offending row: a text that is no string, empty, without a visible
    character, longer than `max_chars`, or not encodable.
    """
    for index, text in enumerate(table.texts):
        _check_text(text, max_chars, table, index)
    return list(table.texts)


def check_classes(examples: Examples, shown: str) -> None:
    """Check that training rows can teach: two classes at least, and two different texts in each.

    A class of one text can't be both learned and checked, so it is refused by its name.
    """
    counts = examples.label_counts()
    texts = [folded(text) for text in examples.text]
    if len(set(texts)) == 1 and len(texts) > 1:
        raise InputError(f"{shown}: all {len(texts)} rows hold the same text; there is nothing to learn")
    if not counts:
        raise InputError(f"{shown}: no row has a label; give rows of at least two classes")
    if len(counts) == 1:
        raise InputError(f"{shown}: has one class only, {next(iter(counts))!r}; give rows of at least two")
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        raise InputError(
            f"{shown}: {_classes(single)} with a single row, which can't be both trained on and checked; "
            "add rows, merge it into another class or drop it"
        )
    pairs = {(name, text) for label, text in zip(examples.label, texts, strict=True) for name in names_of(label)}
    distinct = Counter(name for name, _ in pairs)
    alike = sorted(label for label, count in distinct.items() if count == 1)
    if alike:
        raise InputError(f"{shown}: {_classes(alike)} whose rows all hold the same text; add different ones or drop it")


def check_known_labels(examples: Examples, known: Sequence[str], shown: str) -> None:
    """Raise InputError for a label that no training row has, with the nearest one that exists."""
    counts = examples.label_counts()
    unknown = sorted(set(counts) - set(known))
    if unknown:
        near = nearest_label(unknown[0], known)
        hint = f"; did you mean {near!r}?" if near else "; add training rows of it or drop its rows"
        more = f" and {len(unknown) - 1} more labels" if len(unknown) > 1 else ""
        raise InputError(
            f"{shown}: label {unknown[0]!r} ({counts[unknown[0]]} rows){more} is unknown in the training rows{hint}"
        )


def _check_text(text: Any, max_chars: int, table: Table, index: int) -> None:
    if not isinstance(text, str):
        raise InputError(f"{table.where(index)}: the text is {_in_words(text)}, not a string")
    if len(text) > max_chars:
        raise InputError(
            f"{table.where(index)}: the text has {len(text):,} characters; data.max_chars allows {max_chars:,}"
        )
    _check_encodable(text, "text", table, index)
    if not any(character.isprintable() and character != " " for character in text):
        what = "only spaces or invisible characters" if text else "empty"
        raise InputError(f"{table.where(index)}: the text is {what}; drop the row")


def _label(value: Any, table: Table, index: int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise InputError(f"{table.where(index)}: the label is the float {value}; labels are names or whole numbers")
    if not isinstance(value, str):
        hint = "; for any number of labels a row, set data.problem_type to multi_label" * isinstance(value, list)
        raise InputError(f"{table.where(index)}: the label is {_in_words(value)}, not a name{hint}")
    if not value.strip():
        raise InputError(f"{table.where(index)}: the label is empty; drop the row or name its class")
    _check_encodable(value, "label", table, index)
    return value


def _labels(value: Any, separator: str, table: Table, index: int) -> tuple[str, ...]:
    """The names in a cell, each once and sorted: a list of them, a string of them, or nothing."""
    given = [] if value is None else value if isinstance(value, list) else [value]
    if isinstance(value, str):
        given = value.split(separator) if value.strip() else []
        if not all(name.strip() for name in given):
            raise InputError(
                f"{table.where(index)}: {value!r} has nothing before, after or between separators ({separator!r}); "
                "repair the cell"
            )
    if nested := next((name for name in given if isinstance(name, list | dict)), None):
        raise InputError(f"{table.where(index)}: a label among others is {_in_words(nested)}, not a name")
    names = [_label(name, table, index).strip() for name in given]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InputError(f"{table.where(index)}: has the label {twice!r} twice; name each once")
    return tuple(sorted(names))


def _check_encodable(value: str, what: str, table: Table, index: int) -> None:
    if "\0" in value:
        raise InputError(f"{table.where(index)}: the {what} holds a NUL character; drop it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{table.where(index)}: the {what} holds half a surrogate pair; repair it") from error


def _refuse_fractions(labels: Iterable[tuple[int, str]], table: Table) -> None:
    """Labels, each behind its row's index, that are all numbers and not all whole, are a measure and not classes."""
    fraction = None
    for index, label in labels:
        if not _NUMBER.fullmatch(label.strip()):
            return
        if fraction is None and not _INTEGER.fullmatch(label.strip()):
            fraction = index, label
    if fraction is not None:
        raise InputError(
            f"{table.where(fraction[0])}: the label is the float {fraction[1]}; "
            "labels are names or whole numbers, is it the right column?"
        )


def _classes(labels: Sequence[str]) -> str:
    named = ", ".join(repr(label) for label in labels[:_NAMED])
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"has the class {named}" if len(labels) == 1 else f"has {len(labels)} classes ({named}{more})"


def _in_words(value: Any) -> str:
    return "missing" if value is None else f"a value of type {type(value).__name__}"
