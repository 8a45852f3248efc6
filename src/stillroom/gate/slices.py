"""Slices: which test rows each named part of params selects."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.data.labels import nearest_label
from stillroom.errors import InputError
from stillroom.gate_params import SliceParams
from stillroom.pattern import compiled

PATTERN_SECONDS = 10.0
"""Time that a pattern has for all test rows; a sound one takes milliseconds."""

Mask = NDArray[np.bool_]


def asked_columns(slices: Mapping[str, SliceParams]) -> dict[str, str]:
    """The columns that slices are made of, by the parameter that names each."""
    return {_param(name): part.column for name, part in slices.items() if part.column is not None}


def select_rows(
    slices: Mapping[str, SliceParams],
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]] | None = None,
    of: str = "test rows",
    quoting: bool = True,
) -> dict[str, Mask]:
    """Rows of each slice, as masks [rows] over texts. columns: those of `asked_columns`; of: what the rows are;
    without `quoting` no error shows what else a column holds.

    Raises InputError for a slice, or a value of one, that selects no row, since what nothing was tested on was not
    kept, and for a pattern that takes longer than PATTERN_SECONDS, as those do that try ever more ways to fail.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    masks = {}
    for name, part in slices.items():
        if part.pattern is not None:
            mask = _found(name, part.pattern, texts, of)
        elif part.column is not None:
            mask = _having(name, part, (columns or {})[_param(name)], of, quoting)
        else:
            mask = lengths >= (part.min_chars or 0)
            if part.max_chars is not None:
                mask &= lengths <= part.max_chars
        if not mask.any():
            raise InputError(
                f"params.yaml: gate.slices.{name} selects none of the {len(texts)} {of}, so nothing can be "
                "judged; widen it or leave it out"
            )
        masks[name] = mask
    return masks


def _param(name: str) -> str:
    return f"gate.slices.{name}.column"


def _having(name: str, part: SliceParams, cells: Sequence[Any], of: str, quoting: bool) -> Mask:
    """Rows whose cell is one of the values: in CSV all cells are strings, in JSONL and Parquet they need not be."""
    held = [_as_string(cell) for cell in cells]
    known = sorted({cell for cell in held if cell is not None})
    for value in map(_as_string, part.values):
        if value not in known:
            told = _beside(str(value), known) if quoting else "look up how the file spells it"
            raise InputError(
                f"params.yaml: gate.slices.{name}.values has {value!r}, which none of the {len(cells)} {of} has in the "
                f"column {part.column!r}; {told}"
            )
    wanted = {_as_string(value) for value in part.values}
    return np.array([cell in wanted for cell in held], dtype=np.bool_)


def _beside(value: str, known: Sequence[str]) -> str:
    near = nearest_label(value, known)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(map(repr, known[:5]))}"


def _as_string(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def _found(name: str, pattern: str, texts: Sequence[str], of: str) -> Mask:
    expression, end = compiled(pattern), time.monotonic() + PATTERN_SECONDS
    found = np.zeros(len(texts), dtype=np.bool_)
    for row, text in enumerate(texts):
        try:
            found[row] = expression.search(text, timeout=max(end - time.monotonic(), 1e-3)) is not None
        except TimeoutError as error:
            raise InputError(
                f"params.yaml: gate.slices.{name}.pattern is {pattern!r}; it took more than {PATTERN_SECONDS:g} s and "
                f"was stopped at {row} of {len(texts)} {of}; write it without repeats inside repeats"
            ) from error
    return found
