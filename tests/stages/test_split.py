import shutil
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.examples import Examples, write_examples
from stillroom.data.manifest import DataSource, FileSource, IngestReport
from stillroom.data.splits import read_snapshot, read_split
from stillroom.errors import InputError
from stillroom.files import file_digests, write_json
from stillroom.params import Params
from stillroom.stages import split

SOURCE = FileSource(uri="rows.csv", sha256="0" * 64, file="train.csv")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ingested(unlabelled: bool = False, **splits: int) -> None:
    layout.INGESTED.mkdir(parents=True)
    first = 0
    for name, count in splits.items():
        texts = [f"{name} {'card' if n % 2 else 'app'} sentence about subject number{n} only" for n in range(count)]
        labels = ["card" if n % 2 else "app" for n in range(count)]
        write_examples(Examples(list(range(first, first + count)), texts, labels), layout.INGESTED / f"{name}.parquet")
        first += count
    source = DataSource(
        train=SOURCE, test=SOURCE if "test" in splits else None, unlabelled=SOURCE if unlabelled else None
    )
    report = IngestReport(source=source, files={}, findings=("from ingest",))
    write_json(layout.INGESTED / "report.json", report.model_dump(mode="json"))


def params(seed: int = 0) -> Params:
    return Params.model_validate(
        {
            "data": {"source": "rows.csv"},
            "teacher": {"source": "teacher"},
            "students": {"static": {"family": "static"}},
            "seed": seed,
        }
    )


def test_three_splits_and_a_manifest_are_written(workspace: Path) -> None:
    ingested(train=100)
    metrics = split.run(params())
    manifest = read_snapshot(layout.SPLIT)
    assert manifest.rows == {"train": 70, "validation": 10, "test": 20}
    assert manifest.label_counts["validation"] == {"app": 5, "card": 5}
    assert manifest.findings == ("from ingest",)
    assert metrics == {
        "train_rows": 70.0,
        "validation_rows": 10.0,
        "test_rows": 20.0,
        "dropped_exact_duplicates": 0.0,
        "dropped_conflicting_labels": 0.0,
        "findings": 1.0,
    }
    rows = [read_split(layout.SPLIT, name) for name in ("train", "validation", "test")]
    assert sorted(int(row) for one in rows for row in one.row) == list(range(100))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(workspace: Path) -> None:
    ingested(train=100)
    digests = []
    for seed in (0, 0, 1):
        split.run(params(seed))
        digests.append(file_digests(layout.SPLIT))
    assert digests[0] == digests[1] != digests[2]


def test_unlabelled_rows_leave_no_trace_on_which_a_teacher_would_be_trained_again(workspace: Path) -> None:
    digests = []
    for unlabelled in (False, True):
        ingested(unlabelled, train=100)
        split.run(params())
        digests.append(file_digests(layout.SPLIT))
        shutil.rmtree(layout.INGESTED)
    assert digests[0] == digests[1]


def test_a_given_test_file_is_kept_whatever_the_seed(workspace: Path) -> None:
    ingested(train=40, test=10)
    for seed in (0, 1):
        split.run(params(seed))
        assert read_split(layout.SPLIT, "test").row.tolist() == list(range(40, 50))


def test_nothing_is_written_when_a_split_cannot_be_cut(workspace: Path) -> None:
    ingested(train=2)
    with pytest.raises(InputError, match="no validation rows can be cut"):
        split.run(params())
    assert not layout.SPLIT.exists()


def test_a_missing_ingest_says_so(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json: no such file"):
        split.run(params())
