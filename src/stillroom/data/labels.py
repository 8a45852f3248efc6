"""Labels: names that are nearly the same, of which one may be a typing error, and those of a ready teacher."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from stillroom.errors import InputError

_SEPARATORS = re.compile(r"[\s_\-./]+")
_MIN_LENGTH = 5
"""Shorter names differ by one character too often on purpose."""


def near_equal(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of labels that differ in case, separators or one character only (no digit), sorted.

    One character: inserted, deleted, replaced or swapped with its neighbour. Found through shared deletions
    (the idea of SymSpell), so that thousands of labels take milliseconds.
    """
    by_deletion: dict[str, list[str]] = {}
    plain = {label: _SEPARATORS.sub("", label.casefold()) for label in counts}
    for label, name in plain.items():
        shorter = {name[:at] + name[at + 1 :] for at in range(len(name))} if len(name) >= _MIN_LENGTH else set()
        for variant in {name, *shorter}:
            by_deletion.setdefault(variant, []).append(label)
    pairs = {pair for labels in by_deletion.values() for pair in combinations(sorted(labels), 2)}
    return sorted((one, other) for one, other in pairs if _one_edit(plain[one], plain[other]))


def nearest_label(label: str, known: Sequence[str]) -> str | None:
    """The known label that is most like `label`, or None if none is."""
    plain = {_SEPARATORS.sub(" ", other.casefold()).strip(): other for other in sorted(known)}
    near = difflib.get_close_matches(_SEPARATORS.sub(" ", label.casefold()).strip(), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None


def _one_edit(one: str, other: str) -> bool:
    """Whether two names are equal or one edit apart, digits apart: class1 and class2 are meant so."""
    if one == other:
        return True
    start = next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    rest_one, rest_other = one[start:], other[start:]
    while rest_one and rest_other and rest_one[-1] == rest_other[-1]:
        rest_one, rest_other = rest_one[:-1], rest_other[:-1]
    if any(character.isdigit() for character in rest_one + rest_other):
        return False
    swapped = len(rest_one) == 2 and rest_one == rest_other[::-1]
    return swapped or max(len(rest_one), len(rest_other)) == 1


def check_labels(found: Sequence[str], wanted: Collection[str], shown: str) -> None:
    """Raise InputError unless a ready classifier gives the labels of the data, in any order."""
    if len(found) != len(wanted):
        raise InputError(
            f"{shown}: the checkpoint gives {len(found)} labels, the data have {len(wanted)}; "
            "set teacher.fine_tune to true or bring a matching checkpoint"
        )
    if missing := sorted(set(wanted) - set(found)):
        raise InputError(f"{shown}: the checkpoint's labels lack {', '.join(missing[:5])}")
