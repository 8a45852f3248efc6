"""Take in: read and check the raw files of a run, all of them or none."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from stillroom.data.cases import NONE, Cases
from stillroom.data.checks import check_classes, check_known_labels, check_rows, check_texts
from stillroom.data.examples import Examples, names_of
from stillroom.data.labels import near_equal
from stillroom.data.manifest import CASES, SPLITS, UNLABELLED, PersonalDataReport
from stillroom.data.personal.scan import Scanner, open_scanner
from stillroom.data.reading import Table, column_names, read_table
from stillroom.errors import InputError
from stillroom.params import DataParams

_TYPING_ERROR = 0.8


@dataclass(frozen=True)
class Ingested:
    """Checked rows by split, a description of each file, what a person should look at, texts without labels, cases
    (none unless a file of them is given), and a scan."""

    examples: dict[str, Examples]
    files: dict[str, dict[str, Any]]
    findings: list[str]
    unlabelled: list[str] | None = None
    cases: Cases = NONE
    personal_data: PersonalDataReport | None = None


def take_in(files: Mapping[str, tuple[str, Path]], data: DataParams) -> Ingested:
    """Read and check the files, given by split as (name for messages, path).

    Rows are numbered through all files, so that a row id is unique in the run. Raises InputError for the
    first thing that is wrong; a finding is something that may be meant. Where texts are scanned for personal data,
    neither quotes what was found.
    """
    scanner = open_scanner(data.personal_data_scan)
    if scanner is None:
        return _take_in(files, data, None)
    try:
        return _take_in(files, data, scanner)
    except InputError as error:
        raise InputError(scanner.redacted(str(error))[0]) from None


def _take_in(files: Mapping[str, tuple[str, Path]], data: DataParams, scanner: Scanner | None) -> Ingested:
    examples: dict[str, Examples] = {}
    described: dict[str, dict[str, Any]] = {}
    findings: list[str] = []
    first_row = 0
    separator = data.label_separator if data.problem_type == "multi_label" else None
    for split in SPLITS:
        if split not in files:
            continue
        shown, path = files[split]
        table = read_table(path, data.text, data.label, shown, quoting=scanner is None)
        checked = check_rows(table, data.max_chars, first_row, separator)
        examples[split] = replace(checked, text=_scanned(scanner, split, checked.text))
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
    texts, cases = None, NONE
    if UNLABELLED in files:
        shown, path = files[UNLABELLED]
        table = read_table(path, data.text, None, shown, quoting=scanner is None)
        texts = _scanned(scanner, UNLABELLED, check_texts(table, data.max_chars))
        described[UNLABELLED] = _describe(table, path) | {"findings": list(table.findings)}
    if CASES in files:
        shown, path = files[CASES]
        cases, table = _take_in_cases(path, data, list(known), shown, scanner)
        kept = f"no column {data.label!r}: what must not change is the teacher's answer"
        told = [*table.findings, *([kept] if cases.label is None else [])]
        described[CASES] = _describe(table, path) | {"findings": told}
    if scanner is None:
        return Ingested(examples, described, findings, texts, cases)
    # Labels and names of columns stand in findings too.
    findings = [scanner.redacted(finding)[0] for finding in findings]
    return Ingested(examples, described, findings, texts, cases, scanner.report())


def _scanned(scanner: Scanner | None, file: str, texts: list[str]) -> list[str]:
    return texts if scanner is None else scanner.over(file, texts)


def _take_in_cases(
    path: Path, data: DataParams, known: Sequence[str], shown: str, scanner: Scanner | None
) -> tuple[Cases, Table]:
    """Read and check a file of cases, with or without the column of labels. known: the labels of the training rows.

    Raises InputError as rows do, for a label that no training row has, for a text that is there with two answers, and
    for a column that seems to be that of the labels, misspelt.
    """
    if not _has_labels(path, data, shown):
        table = read_table(path, data.text, None, shown, quoting=scanner is None)
        return Cases(_places(table), _scanned(scanner, CASES, check_texts(table, data.max_chars)), None), table
    table = read_table(path, data.text, data.label, shown, quoting=scanner is None)
    separator = data.label_separator if data.problem_type == "multi_label" else None
    rows = check_rows(table, data.max_chars, 0, separator)
    check_known_labels(rows, known, shown)
    texts = _scanned(scanner, CASES, rows.text)
    first: dict[str, int] = {}
    for index, (text, label) in enumerate(zip(texts, rows.label, strict=True)):
        other = first.setdefault(text, index)
        if rows.label[other] != label:
            raise InputError(
                f"{table.where(index)}: has the text of {table.unit} {table.places[other]} and another label; "
                "no package can give both, drop one"
            )
    return Cases(_places(table), texts, rows.label), table


def _has_labels(path: Path, data: DataParams, shown: str) -> bool:
    names = column_names(path, shown)
    if data.label in names:
        return True
    others = {name.strip().lower(): name for name in names if name != data.text}
    near = difflib.get_close_matches(data.label.strip().lower(), others, n=1, cutoff=_TYPING_ERROR)
    if near:
        raise InputError(
            f"{shown}: has the column {others[near[0]]!r} and no {data.label!r} (data.label); rename it, or drop it to "
            "have the teacher's answers kept"
        )
    return False


def _places(table: Table) -> list[str]:
    return [f"{table.unit} {place}" for place in table.places]


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
