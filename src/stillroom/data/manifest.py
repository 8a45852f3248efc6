"""What is recorded about a run's data: where it came from, and what the split holds."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillroom.errors import InputError
from stillroom.files import read_json
from stillroom.problem import ProblemType

SOURCE_RECORD = "source.json"
INGEST_REPORT = "report.json"
SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"
CASES = "cases"


def _absent(value: object) -> bool:
    return value is None


class FileSource(BaseModel):
    """One raw file: the address as params.yaml gives it, its sha256, and its name in sources/data."""

    model_config = ConfigDict(frozen=True)

    uri: str
    sha256: str
    file: str


class DataSource(BaseModel):
    """sources/data/source.json: the raw files of a run and the licence that their owner declares."""

    model_config = ConfigDict(frozen=True)

    train: FileSource
    test: FileSource | None = None
    validation: FileSource | None = None
    unlabelled: FileSource | None = Field(default=None, exclude_if=_absent)
    cases: FileSource | None = Field(default=None, exclude_if=_absent)
    licence: str | None = None

    def files(self) -> dict[str, FileSource]:
        """The files that are given, by split, in the order train, validation, test, unlabelled, cases."""
        given = {name: getattr(self, name) for name in (*SPLITS, UNLABELLED, CASES)}
        return {split: source for split, source in given.items() if source is not None}

    def labelled(self) -> "DataSource":
        """Without unlabelled rows and cases, on which a split, and a teacher that is trained on it, must not depend."""
        return self.model_copy(update={UNLABELLED: None, CASES: None})


class PersonalData(BaseModel):
    """What a scan found in the texts of one file: counts, and never a value."""

    model_config = ConfigDict(frozen=True)

    texts: int
    texts_with_any: int
    kinds: dict[str, dict[str, int]]
    """Of each kind that was looked for, the `texts` that hold it and the `hits` in them."""


class PersonalDataReport(BaseModel):
    """A scan for personal data: what it looked for, and by file, as it was given, what it found."""

    model_config = ConfigDict(frozen=True)

    regions: tuple[str, ...]
    national_numbers: tuple[str, ...]
    """Those of the regions whose national numbers are known."""
    redacted: bool
    files: dict[str, PersonalData]

    def hits(self) -> dict[str, int]:
        """Hits of each kind in all files; kinds without any are left out."""
        total: Counter[str] = Counter()
        for file in self.files.values():
            total.update({kind: counts["hits"] for kind, counts in file.kinds.items()})
        return {kind: count for kind, count in total.items() if count}


class IngestReport(BaseModel):
    """artifacts/ingested/report.json: what the raw files hold, and what a person should look at."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    source: DataSource
    files: dict[str, dict[str, Any]]
    findings: tuple[str, ...]
    """On the labelled rows; those on the unlabelled ones and on cases stand with their file."""
    personal_data: PersonalDataReport | None = Field(default=None, exclude_if=_absent)


class SnapshotManifest(BaseModel):
    """artifacts/split/snapshot.json. The index of a label in `labels` is its class id everywhere."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    problem_type: ProblemType = "single_label"
    labels: tuple[str, ...]
    rows: dict[str, int]
    label_counts: dict[str, dict[str, int]]
    sha256: str
    """Digest of texts and labels in order, free of row ids and of the Parquet version."""
    source: DataSource
    dropped: dict[str, int]
    """Rows of the input that are in no split, by reason; rows + dropped is the input."""
    findings: tuple[str, ...]


def read_source(folder: Path) -> DataSource:
    """Read the record of a sources/data folder."""
    try:
        return DataSource.model_validate(read_json(folder / SOURCE_RECORD))
    except ValidationError as error:
        raise InputError(
            f"{folder / SOURCE_RECORD}: not a record of sources; run `stillroom run` to write it anew"
        ) from error


def read_report(folder: Path) -> IngestReport:
    """Read the report of an artifacts/ingested folder."""
    try:
        return IngestReport.model_validate(read_json(folder / INGEST_REPORT))
    except ValidationError as error:
        raise InputError(
            f"{folder / INGEST_REPORT}: not a report of this version; run the ingest stage again"
        ) from error
