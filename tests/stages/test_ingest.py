import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.cases import FILE, read_cases
from stillroom.data.examples import read_examples
from stillroom.data.grown import read_texts
from stillroom.data.manifest import read_report
from stillroom.errors import InputError
from stillroom.files import file_digests, sha256_file, write_json
from stillroom.params import Params
from stillroom.stages import ingest

ROWS = "text,label\none card,a\ntwo cards,a\none app,b\ntwo apps,b\n"
PARAMS = {
    "data": {"source": "rows.csv"},
    "teacher": {"source": "teacher"},
    "students": {"static": {"family": "static"}},
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(**files: str) -> None:
    record: dict[str, object] = {"train": None, "test": None, "validation": None, "licence": "CC0-1.0"}
    layout.SOURCE_DATA.mkdir(parents=True, exist_ok=True)
    for split, content in files.items():
        path = layout.SOURCE_DATA / f"{split}.csv"
        path.write_text(content)
        record[split] = {"uri": f"given/{split}.csv", "sha256": sha256_file(path), "file": path.name}
    write_json(layout.SOURCE_DATA / "source.json", record)


def params(**data: object) -> Params:
    return Params.model_validate({**PARAMS, "data": {"source": "rows.csv", **data}})


def test_checked_rows_are_written_with_a_report(workspace: Path) -> None:
    lay(train=ROWS, test="text,label\nthree apps,b\n")
    metrics = ingest.run(params())
    assert metrics == {"train_rows": 4.0, "test_rows": 1.0, "labels": 2.0, "findings": 1.0}
    assert read_examples(layout.INGESTED / "train.parquet").text == [
        "one card",
        "two cards",
        "one app",
        "two apps",
    ]
    assert read_examples(layout.INGESTED / "test.parquet").row == [4]
    report = json.loads((layout.INGESTED / "report.json").read_text())
    assert report["source"]["licence"] == "CC0-1.0"
    assert report["files"]["train"]["labels"] == {"a": 2, "b": 2}
    assert report["findings"] == ["test: has no row of 1 labels: 'a'"]


def test_unlabelled_texts_have_a_file_and_a_count_of_their_own(workspace: Path) -> None:
    lay(train=ROWS, unlabelled="text\nthree cards\nthree apps\n")
    assert ingest.run(params(unlabelled="own.csv"))["unlabelled_rows"] == 2.0
    assert read_texts(layout.INGESTED / "unlabelled.parquet", "ingest") == ["three cards", "three apps"]
    report = read_report(layout.INGESTED)
    assert report.source.unlabelled is not None
    assert report.source.unlabelled.uri == "given/unlabelled.csv"


def test_cases_have_a_file_that_says_too_that_there_are_none(workspace: Path) -> None:
    lay(train=ROWS)
    ingest.run(params())
    assert len(read_cases(layout.INGESTED / FILE)) == 0
    lay(train=ROWS, cases="text,label\nthree cards,a\n")
    assert ingest.run(params(cases="own.csv"))["cases_rows"] == 1.0
    assert read_cases(layout.INGESTED / FILE).label == ["a"]
    assert read_report(layout.INGESTED).source.labelled().cases is None


def test_the_same_input_gives_the_same_bytes(workspace: Path) -> None:
    lay(train=ROWS)
    ingest.run(params())
    first = file_digests(layout.INGESTED)
    ingest.run(params())
    assert file_digests(layout.INGESTED) == first


def test_bad_rows_write_nothing_and_name_the_file_as_it_was_given(workspace: Path) -> None:
    lay(train=ROWS + ",a\n")
    with pytest.raises(InputError, match=r"^given/train\.csv: line 6: the text is empty"):
        ingest.run(params())
    assert not layout.INGESTED.exists()


def test_a_missing_or_foreign_record_is_refused(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"source\.json: no such file"):
        ingest.run(params())
    write_json(layout.SOURCE_DATA / "source.json", {"train": 3})
    with pytest.raises(InputError, match="not a record of sources"):
        ingest.run(params())


def test_the_command_ends_with_exit_code_2_and_one_line(workspace: Path) -> None:
    lay(train="text,label\nx,a\ny,a\n")
    (workspace / "params.yaml").write_text(json.dumps(PARAMS))
    command = [sys.executable, "-m", "stillroom.stages", "ingest"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "given/train.csv: has one class only, 'a'" in ended.stderr
    assert not layout.INGESTED.exists()
