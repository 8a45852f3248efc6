"""Splitting: from checked rows to train, validation and test rows that share no text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from stillroom.data.cuts import TEST, TRAIN, VALIDATION, cut
from stillroom.data.duplicates import near_groups, reappearing
from stillroom.data.examples import Examples, Label, Splits
from stillroom.data.folding import folded
from stillroom.errors import InputError
from stillroom.params import DataParams

_SHOWN_CHARS = 60


def split_examples(given: Mapping[str, Examples], data: DataParams, seed: int) -> Splits:
    """Cut what is not given, and drop from training what would leak.

    A given test file stays as it is; rows of validation and train that reappear in it, exactly or nearly,
    are dropped, and so are training rows that reappear in a given validation file. Of exact duplicates in
    train the first is kept, with the label that most copies have; without a majority none is. Raises
    InputError when a class loses all its training rows, or when there is not enough to cut.
    """
    done = Splits({TRAIN: given[TRAIN]})
    for split in (TEST, VALIDATION):
        if split in given:
            done.examples[split] = given[split]
            done.findings += _about_repeats(given[split], split)
    if VALIDATION in given and TEST in given:
        _drop_reappearing(done, VALIDATION, TEST, data)
    for split in (TEST, VALIDATION):
        if split in given:
            _drop_reappearing(done, TRAIN, split, data)
    _drop_repeats(done, data)
    _require_classes(done, given[TRAIN])
    fractions = {VALIDATION: data.validation_fraction, TEST: data.test_fraction}
    _cut(done, {split: share for split, share in fractions.items() if split not in given}, data, seed)
    for split in (VALIDATION, TEST):
        done.findings += _about_absent(done, split)
        if not done.examples[split]:
            raise InputError(f"data.source: {_why_empty(split, split in given)}")
    done.examples = {split: done.examples[split] for split in (TRAIN, VALIDATION, TEST)}
    return done


def _drop_reappearing(done: Splits, split: str, elsewhere: str, data: DataParams) -> None:
    rows, others = done.examples[split], done.examples[elsewhere]
    known: dict[str, set[Label]] = {}
    for text, label in zip(others.text, others.label, strict=True):
        known.setdefault(folded(text), set()).add(label)
    exact = [folded(text) in known for text in rows.text]
    near = reappearing(rows.text, others.text, data.near_duplicate)
    drop = [one or bool(two) for one, two in zip(exact, near, strict=True)]
    done.dropped[f"{split}_rows_in_{elsewhere}"] = sum(exact)
    done.dropped[f"{split}_rows_near_{elsewhere}"] = sum(drop) - sum(exact)
    if any(drop):
        done.findings.append(
            f"{split}: {sum(drop)} rows reappear in {elsewhere}, {sum(exact)} of them exactly; dropped from {split}"
        )
    torn = [
        index
        for index, (text, label, is_exact) in enumerate(zip(rows.text, rows.label, exact, strict=True))
        if is_exact and label not in known[folded(text)]
    ]
    if torn:
        done.findings.append(
            f"{split}: {len(torn)} of the rows that reappear in {elsewhere} have another label there, "
            f"such as {_named(rows, torn[0], data)}"
        )
    done.examples[split] = rows.take([not one for one in drop])


def _drop_repeats(done: Splits, data: DataParams) -> None:
    train = done.examples[TRAIN]
    copies: dict[str, list[int]] = {}
    for index, text in enumerate(train.text):
        copies.setdefault(folded(text), []).append(index)
    keep = [False] * len(train)
    repeated = unsure = 0
    torn: list[int] = []
    for indices in copies.values():
        label = _majority([train.label[index] for index in indices])
        if len({train.label[index] for index in indices}) > 1:
            torn.append(indices[0])
        if label is None:
            unsure += len(indices)
            continue
        keep[next(index for index in indices if train.label[index] == label)] = True
        repeated += len(indices) - 1
    done.dropped["exact_duplicates"] = repeated
    done.dropped["conflicting_labels"] = unsure
    if repeated:
        done.findings.append(f"train: {repeated} rows repeat the text of another row; dropped")
    if torn:
        done.findings.append(
            f"train: {len(torn)} texts have conflicting labels, such as {_named(train, torn[0], data)}; "
            f"the majority's is kept, and {unsure} rows without one are dropped"
        )
    done.examples[TRAIN] = train.take(keep)


def _majority(labels: Sequence[Label]) -> Label | None:
    ranked = Counter(labels).most_common(2)
    return None if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _require_classes(done: Splits, given: Examples) -> None:
    left = done.examples[TRAIN].label_counts()
    for label, count in given.label_counts().items():
        if label not in left:
            raise InputError(
                f"data.source: class {label!r} keeps none of its {count} training rows: they reappear in "
                "the test or validation file, or their labels conflict; add other rows of it"
            )


def _cut(done: Splits, fractions: dict[str, float], data: DataParams, seed: int) -> None:
    if not fractions:
        return
    train = done.examples[TRAIN]
    groups = near_groups(train.text, data.near_duplicate)
    assigned = cut(train.text, train.label, groups.tolist(), fractions, seed)
    for split in (TRAIN, *fractions):
        done.examples[split] = train.take([one == split for one in assigned])
    grouped = len(groups) - len(set(groups.tolist()))
    if grouped:
        done.findings.append(f"train: {grouped} rows are near duplicates of another row; kept in the same split")


def _about_repeats(examples: Examples, split: str) -> list[str]:
    labels: dict[str, set[Label]] = {}
    for text, label in zip(examples.text, examples.label, strict=True):
        labels.setdefault(folded(text), set()).add(label)
    repeated = len(examples) - len(labels)
    torn = sum(len(found) > 1 for found in labels.values())
    conflicts = f", {torn} texts with conflicting labels" if torn else ""
    return [f"{split}: {repeated} rows repeat the text of another row{conflicts}; kept as given"] if repeated else []


def _about_absent(done: Splits, split: str) -> list[str]:
    counts = {name: done.examples[name].label_counts() for name in (TRAIN, split)}
    absent = sorted(counts[TRAIN].keys() - counts[split].keys())
    if not absent:
        return []
    named = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
    return [f"{split}: {len(absent)} of the classes have no row in it: {named}"]


def _why_empty(split: str, given: bool) -> str:
    if given:
        return f"no {split} row is left once those that reappear in the test file are dropped; give others"
    return f"no {split} rows can be cut: the classes have too few different texts; add rows or give data.{split}"


def _named(rows: Examples, index: int, data: DataParams) -> str:
    """How a finding names a row: by its text, or by its number where texts are scanned for personal data."""
    if data.personal_data_scan is not None:
        return f"row {rows.row[index]}"
    text = folded(rows.text[index])
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")
