"""Rows and splits with a scan for personal data: counts are told, values never; redaction comes before duplicates."""

import logging
from pathlib import Path
from typing import Any

import pytest

from stillroom import layout
from stillroom.data.examples import read_examples
from stillroom.data.grown import read_texts
from stillroom.data.manifest import read_report
from stillroom.errors import InputError
from stillroom.files import sha256_file, write_json
from stillroom.params import Params, validate
from stillroom.stages import ingest, split

VALUES = [
    "max.mustermann@example.org",
    "0170 1234567",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "192.168.0.17",
]
SCAN = {"regions": ["DE"]}
TOPICS = ["card", "app", "refund", "limit", "branch", "transfer", "cash", "loan"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(**files: bytes) -> None:
    record: dict[str, object] = {"train": None, "test": None, "validation": None, "licence": "CC0-1.0"}
    layout.SOURCE_DATA.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = layout.SOURCE_DATA / f"{name}.csv"
        path.write_bytes(content)
        record[name] = {"uri": f"given/{name}.csv", "sha256": sha256_file(path), "file": path.name}
    write_json(layout.SOURCE_DATA / "source.json", record)


def params(scan: dict[str, Any] | None, **governance: str) -> Params:
    raw = {
        "data": {"source": "rows.csv", "unlabelled": "more.csv", "personal_data_scan": scan},
        "teacher": {"source": "teacher"},
        "students": {"static": {"family": "static"}},
        "governance": {"personal_data": "pseudonymised", **governance},
    }
    return validate(raw, "test")


def rows(values: list[str]) -> bytes:
    """Two classes, each value in texts of both, the same text once with either label, and letters of Windows."""
    lines = ["text,label"]
    for topic in TOPICS:
        lines += [f"{topic} where did my order go,a", f"{topic} please close what I have open,b"]
    for value in values:
        lines += [
            f"reach me under {value} about the caf\u00e9,a",
            f"{value} is what I gave,b",
            f"both {value},a",
            f"both {value},b",
        ]
    return "\n".join(lines).encode("cp1252")


def written() -> str:
    """All that the stages told in files, the rows themselves apart."""
    return "\n".join(path.read_text() for path in Path("artifacts").rglob("*.json"))


@pytest.mark.parametrize("redact", [False, True])
def test_no_value_is_told_in_any_file_or_line_of_the_log(
    redact: bool, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay(train=rows(VALUES), test=rows(VALUES[:2]), unlabelled=b"text\n" + "\n".join(VALUES).encode())
    asked = params(SCAN | {"redact": redact}, personal_data="none")
    with caplog.at_level(logging.DEBUG):
        ingest.run(asked)
        split.run(asked)
    told = written() + caplog.text
    assert "conflicting labels" in told
    assert "read as cp1252" in told
    assert "personal-data-found" in caplog.text
    kept = [*read_texts(layout.INGESTED / "unlabelled.parquet", "ingest")]
    for folder in (layout.INGESTED, layout.SPLIT):
        kept += [text for name in ("train", "test") for text in read_examples(folder / f"{name}.parquet").text]
    for value in VALUES:
        assert value not in told
        assert any(value in text for text in kept) is not redact


def test_counts_stand_in_the_report_by_file(workspace: Path) -> None:
    lay(train=rows(VALUES), test=rows(VALUES[:1]), unlabelled=b"text\nnothing here\nwrite to a@example.org\n")
    metrics = ingest.run(params(SCAN))
    scan = read_report(layout.INGESTED).personal_data
    assert scan is not None
    assert scan.redacted is False
    assert scan.national_numbers == ("DE",)
    assert {name: (file.texts, file.texts_with_any) for name, file in scan.files.items()} == {
        "train": (36, 20),
        "test": (20, 4),
        "unlabelled": (2, 1),
    }
    assert scan.files["train"].kinds["card"] == {"texts": 4, "hits": 4}
    assert scan.files["train"].kinds["national_id"] == {"texts": 0, "hits": 0}
    assert metrics["email_hits"] == 4 + 4 + 1
    lay(train=rows(VALUES))
    ingest.run(params(None))
    assert read_report(layout.INGESTED).personal_data is None
    assert "personal_data" not in (layout.INGESTED / "report.json").read_text()


def test_texts_that_redaction_makes_equal_are_duplicates(workspace: Path) -> None:
    plain = [f"{topic} {n} is {label} thing I want,{label}" for n, topic in enumerate(TOPICS) for label in "ab"]
    alike = [f"reach me under user{n}@example.org please,a" for n in range(20)]
    lay(train="\n".join(["text,label", *plain, *alike]).encode())
    for redact, dropped in ((False, 0), (True, 19)):
        asked = params(SCAN | {"redact": redact})
        ingest.run(asked)
        assert split.run(asked)["dropped_exact_duplicates"] == dropped


def test_a_class_that_redaction_leaves_one_text_is_refused(workspace: Path) -> None:
    lay(train=b"text,label\na@example.org,a\nb@example.org,a\none,b\ntwo,b\n")
    with pytest.raises(InputError, match="the class 'a' whose rows all hold the same text"):
        ingest.run(params(SCAN | {"redact": True}))
    ingest.run(params(SCAN))


@pytest.mark.parametrize("content", ["{},a\n{},b\n", "text,label\nx,{}\ny,{}\n", "text,label\nx,a\ny,a\nz,b\nw,{}\n"])
def test_no_error_quotes_a_value(content: str, workspace: Path) -> None:
    lay(train=content.replace("{}", VALUES[0]).encode())
    with pytest.raises(InputError) as caught:
        ingest.run(params(SCAN))
    assert VALUES[0] not in str(caught.value)
    assert "[EMAIL]" in str(caught.value)
    assert caught.value.__suppress_context__, "the quoting one would stand in a traceback"


def test_a_declaration_of_none_is_refused_before_anything_is_written(workspace: Path) -> None:
    lay(train=rows(VALUES))
    with pytest.raises(InputError, match=r"personal-data-found: .* found email 4, ") as caught:
        ingest.run(params(SCAN, policy="stop", personal_data="none"))
    assert caught.value.exit_code == 2
    assert not layout.INGESTED.exists()
    ingest.run(params(SCAN, policy="off", personal_data="none"))
    lay(train=rows([]))
    ingest.run(params(SCAN, policy="stop", personal_data="none"))
