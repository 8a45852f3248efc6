"""Cuts: validation and test rows taken from the training rows, stratified by class, never through a group.

A row of several labels counts for the rarest of them, which needs its rows most (the order of Sechidis et al., On the
stratification of multi-label data, 2011).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from stillroom.data.examples import Label, names_of
from stillroom.data.folding import folded

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass
class _Group:
    """Rows that must stay together, and their place in the seeded order."""

    rows: list[int]
    classes: Counter[str]
    labels: set[str]
    rank: bytes
    split: str = field(default=TRAIN)

    @property
    def label(self) -> str:
        return min(self.classes, key=lambda label: (-self.classes[label], label))


def cut(
    texts: Sequence[str],
    labels: Sequence[Label],
    groups: Sequence[int],
    fractions: dict[str, float],
    seed: int,
) -> list[str]:
    """The split of each row. `fractions` gives the share of rows of each split to cut, validation and test.

    Groups are drawn in the order of a hash of seed and content, so the cut depends neither on the order of
    the rows nor, but for its own class, on what else is there. A class keeps training rows first, then gets
    validation rows, then test rows, as far as it has groups; a group of several classes counts for the one
    most of it has.
    """
    whole = _gathered(texts, labels, groups, seed)
    by_label: dict[str, list[_Group]] = {}
    for group in whole:
        by_label.setdefault(group.label, []).append(group)
    for label in sorted(by_label):
        _cut_class(by_label[label], fractions)
    _give_back(whole)
    splits = [TRAIN] * len(texts)
    for group in whole:
        for row in group.rows:
            splits[row] = group.split
    return splits


def _gathered(texts: Sequence[str], labels: Sequence[Label], groups: Sequence[int], seed: int) -> list[_Group]:
    """Groups in the seeded order, which is that of the least hash among a group's rows."""
    key = seed.to_bytes(8, "little")
    counts = Counter(chain.from_iterable(map(names_of, labels)))
    found: dict[int, _Group] = {}
    for row, (text, label, number) in enumerate(zip(texts, labels, groups, strict=True)):
        rank = hashlib.blake2b(folded(text).encode(), key=key, digest_size=16).digest()
        group = found.setdefault(number, _Group([], Counter(), set(), rank))
        group.rows.append(row)
        group.classes[min(names_of(label), key=lambda name: (counts[name], name), default="")] += 1
        group.labels.update(names_of(label))
        group.rank = min(group.rank, rank)
    return sorted(found.values(), key=lambda group: group.rank)


def _cut_class(groups: list[_Group], fractions: dict[str, float]) -> None:
    rows = sum(len(group.rows) for group in groups)
    quotas = _quotas(rows, len(groups), fractions)
    left = dict(quotas)
    for group in groups:
        for split in (TEST, VALIDATION):
            if len(group.rows) <= left.get(split, 0):
                group.split = split
                left[split] -= len(group.rows)
                break
    for split in (VALIDATION, TEST):
        staying = [group for group in groups if group.split == TRAIN]
        if quotas.get(split, 0) and left[split] == quotas[split] and len(staying) > 1:
            min(staying, key=lambda group: (len(group.rows), group.rank)).split = split


def _quotas(rows: int, groups: int, fractions: dict[str, float]) -> dict[str, int]:
    """Rows of a class for each split: its share, at least one if there are groups, one left for training."""
    wanted = [split for split in (VALIDATION, TEST) if split in fractions][: max(0, groups - 1)]
    quotas = {split: max(1, int(fractions[split] * rows + 0.5)) for split in wanted}
    spare = rows - 1
    for split in wanted:
        later = len(wanted) - wanted.index(split) - 1
        quotas[split] = min(quotas[split], spare - later)
        spare -= quotas[split]
    return quotas


def _give_back(groups: list[_Group]) -> None:
    """Return a group to training for every label without a training row, which mixed groups can cause."""
    trained = {label for group in groups if group.split == TRAIN for label in group.labels}
    for label in sorted({label for group in groups for label in group.labels} - trained):
        holders = [group for group in groups if label in group.labels]
        if all(group.split != TRAIN for group in holders):
            min(holders, key=lambda group: (len(group.rows), group.rank)).split = TRAIN
