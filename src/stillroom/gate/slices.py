"""Slices: which test rows each named part of params selects."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stillroom.errors import InputError
from stillroom.gate_params import SliceParams

PATTERN_SECONDS = 10.0
"""Time that a pattern has for all test rows; a sound one takes milliseconds."""

Mask = NDArray[np.bool_]


def select_rows(slices: Mapping[str, SliceParams], texts: Sequence[str]) -> dict[str, Mask]:
    """Rows of each slice, as masks [rows] over the test texts.

    Raises InputError for a slice that selects no row, since what nothing was tested on was not kept, and for a
    pattern that takes longer than PATTERN_SECONDS, as those do that try ever more ways to fail.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    masks = {}
    for name, part in slices.items():
        if part.pattern is not None:
            mask = _found(name, part.pattern, texts)
        else:
            mask = lengths >= (part.min_chars or 0)
            if part.max_chars is not None:
                mask &= lengths <= part.max_chars
        if not mask.any():
            raise InputError(
                f"params.yaml: gate.slices.{name} selects none of the {len(texts)} test rows, so nothing can be "
                "judged; widen it or leave it out"
            )
        masks[name] = mask
    return masks


def _found(name: str, pattern: str, texts: Sequence[str]) -> Mask:
    import regex

    compiled, end = regex.compile(pattern), time.monotonic() + PATTERN_SECONDS
    found = np.zeros(len(texts), dtype=np.bool_)
    for row, text in enumerate(texts):
        try:
            found[row] = compiled.search(text, timeout=max(end - time.monotonic(), 1e-3)) is not None
        except TimeoutError as error:
            raise InputError(
                f"params.yaml: gate.slices.{name}.pattern is {pattern!r}; it took more than {PATTERN_SECONDS:g} s and "
                f"was stopped at test row {row} of {len(texts)}; write it without repeats inside repeats"
            ) from error
    return found
