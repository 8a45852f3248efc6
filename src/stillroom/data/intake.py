"""Take in: read and check the raw files of a run, all of them or none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stillroom.data.checks import check_classes, check_known_labels, check_rows, check_texts
from stillroom.data.examples import Examples, names_of
from stillroom.data.labels import near_equal
from stillroom.data.manifest import SPLITS, UNLABELLED
from stillroom.data.reading import Table, read_table
from stillroom.params import DataParams


@dataclass(frozen=True)
class Ingested:
    """Checked rows by split, a description of each file, what a person should look at, and texts without labels."""

    examples: dict[str, Examples]
    files: dict[str, dict[str, Any]]
    findings: list[str]
    unlabelled: list[str] | None = None


def take_in(files: Mapping[str, tuple[str, Path]], data: DataParams) -> Ingested:
    """Read and check the files, given by split as (name for messages, path).

    Rows are numbered through all files, so that a row id is unique in the run. Raises InputError for the
    first thing that is wrong; a finding is something that may be meant.
    """
    examples: dict[str, Examples] = {}
    described: dict[str, dict[str, Any]] = {}
    findings: list[str] = []
    first_row = 0
    separator = data.label_separator if data.problem_type == "multi_label" else None
    for split in SPLITS:
        if split not in files:
            continue
        shown, path = files[split]
        table = read_table(path, data.text, data.label, shown)
        examples[split] = check_rows(table, data.max_chars, first_row, separator)
        first_row += len(examples[split])
        findings += [f"{split}: {finding}" for finding in table.findings]
        labels = examples[split].label_counts()
        described[split] = _describe(table, path) | {"labels": labels}
    check_classes(examples["train"], files["train"][0])
    known = examples["train"].label_counts()
    for split in examples:
        check_known_labels(examples[split], list(known), files[split][0])
    findings += _about_labels(known, examples)
    if data.problem_type == "multi_label" and all(len(names_of(label)) < 2 for label in examples["train"].label):
        findings.append(
            f"train: no row has two labels; look whether {data.label_separator!r} is what stands between them"
        )
    if UNLABELLED not in files:
        return Ingested(examples, described, findings)
    shown, path = files[UNLABELLED]
    table = read_table(path, data.text, None, shown)
    texts = check_texts(table, data.max_chars)
    described[UNLABELLED] = _describe(table, path) | {"findings": list(table.findings)}
    return Ingested(examples, described, findings, texts)


def _describe(table: Table, path: Path) -> dict[str, Any]:
    """What a checked file holds."""
    lengths = [len(text) for text in table.texts]
    return {
        "format": path.suffix.lower().removeprefix("."),
        "encoding": table.encoding,
        "rows": len(lengths),
        "characters": {"min": min(lengths), "median": median(lengths), "max": max(lengths)},
    }


def _about_labels(known: Mapping[str, int], examples: Mapping[str, Examples]) -> list[str]:
    findings = [
        f"labels {one!r} ({known[one]} rows) and {other!r} ({known[other]} rows) have nearly the same name"
        for one, other in near_equal(known)
    ]
    for split, given in examples.items():
        absent = sorted(known.keys() - given.label_counts().keys())
        if absent:
            named = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
            findings.append(f"{split}: has no row of {len(absent)} labels: {named}")
    return findings
