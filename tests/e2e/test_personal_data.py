"""A whole run over texts with personal data in them, redacted: they are in the raw files and nowhere else."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillroom.files import sha256_file
from tests.e2e.conftest import TINY, TinyRun

pytestmark = [TINY, pytest.mark.slow]

VALUES = ("max.mustermann@example.org", "0170 1234567", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00")


def plant(source: Path, target: Path) -> str:
    """Copy rows with a value in every third; returns the digest of what was written."""
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number, row in enumerate(rows):
            value = f" {VALUES[number // 3 % len(VALUES)]}" * (number % 3 == 0)
            writer.writerow([row["text"] + value, row["label"]])
    return sha256_file(target)


def texts_of(path: Path) -> bytes:
    """A file's bytes; the texts in it, where they are compressed."""
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist()).encode()
    return path.read_bytes()


def is_of_run(path: Path, folder: Path) -> bool:
    """Whether a file is none of the project's tests, which name the values."""
    return path.relative_to(folder).parts[0] not in (".git", "tests")


def test_what_is_redacted_is_in_the_raw_files_and_nowhere_else(tiny_run: TinyRun, tmp_path: Path) -> None:
    raw = {plant(tiny_run.params.with_name(f"{name}.csv"), tmp_path / f"{name}.csv") for name in ("train", "test")}
    settings = [
        *("--set", f"data.source={tmp_path / 'train.csv'}", "--set", f"data.test={tmp_path / 'test.csv'}"),
        *("--set", "data.personal_data_scan.regions=[DE]", "--set", "data.personal_data_scan.redact=true"),
    ]
    workspace = tmp_path / "workspace"
    where = ("--params", str(tiny_run.params), "--workspace", str(workspace))
    ended = tiny_run.checkout.stillroom("run", *where, *settings, "--set", "governance.personal_data=pseudonymised")
    folders = (workspace, tiny_run.checkout.path)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and is_of_run(path, folder)]
    assert len(files) > 100
    kept = {sha256_file(path) for path in files} & raw
    assert kept == raw, "the raw files are versioned as they are"
    told = {path: texts_of(path) for path in files if sha256_file(path) not in raw}
    for value in VALUES:
        assert value not in ended.stdout + ended.stderr
        assert [path for path, content in told.items() if value.encode() in content] == []
    assert any(b"[EMAIL]" in content for content in told.values())
    card = next((workspace / "release").glob("*/MODEL_CARD.md")).read_text(encoding="utf-8")
    kinds = {"e-mail addresses": 34, "IBANs": 33, "card numbers": 33, "phone numbers": 34}
    found = ", ".join(f"{name} {count} times in {count}" for name, count in kinds.items())
    assert f"| found in train | {found}, of 400 texts; 134 hold something |" in card
