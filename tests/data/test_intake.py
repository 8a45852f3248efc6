"""The bad input that a run must refuse: one clear line, exit code 2, nothing written."""

import codecs
from pathlib import Path

import pytest

from stillroom.data.cases import Cases
from stillroom.data.intake import Ingested, take_in
from stillroom.errors import InputError
from stillroom.params import DataParams
from stillroom.personal_data_params import PersonalDataParams

GOOD = b"text,label\none card,a\ntwo cards,a\none app,b\ntwo apps,b\n"
DATA = DataParams(source="rows.csv")

BAD: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "is empty"),
    "only white space": (b"\n \n", "is empty"),
    "header only": (b"text,label\n", "has no rows"),
    "wrong column": (b"texts,label\nx,a\n", "no column 'text' (data.text); did you mean 'texts'?"),
    "missing column": (b"text\nx\n", "no column 'label' (data.label); it has 'text'"),
    "mixed encodings": (
        GOOD + "caf\u00e9,a\n".encode() + b"caf\xe9,b\n",
        "line 7: not UTF-8, while line 6 is",
    ),
    "byte-order mark in the midst": (GOOD + codecs.BOM_UTF8 + GOOD, "line 6: begins with a byte-order mark"),
    "unbalanced quotes": (
        GOOD + b'"never closed,a\n',
        "line 6: unexpected end of data; a quote is not balanced",
    ),
    "labels are floats": (b"text,label\nx,0.1\ny,0.2\nz,0.1\n", "line 2: the label is the float 0.1"),
    "one class only": (b"text,label\nx,a\ny,a\n", "one class only, 'a'"),
    "a class with a single row": (GOOD + b"three,lonely\n", "the class 'lonely' with a single row"),
    "all rows duplicates": (b"text,label\nx,a\nx,b\nx,a\nx,b\n", "all 4 rows hold the same text"),
    "an empty text": (GOOD + b",a\n", "line 6: the text is empty"),
    "a text of spaces": (GOOD + b"   ,a\n", "line 6: the text is only spaces"),
    "a 10 MB text": (GOOD + b"x" * (10 << 20) + b",a\n", "line 6: the text has 10,485,760 characters"),
    "NUL bytes": (GOOD + b"bro\0ken,a\n", "line 6: holds a NUL byte"),
    "an empty label": (GOOD + b"three,\n", "line 6: the label is empty"),
    "too many fields": (GOOD + b"three, four,a\n", "line 6: has 3 fields, the header has 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_training_rows_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, told = BAD[name]
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        take_in({"train": ("rows.csv", path)}, DATA)
    assert told in str(caught.value)
    assert str(caught.value).startswith("rows.csv: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_unknown_in_train_are_refused(split: str, tmp_path: Path) -> None:
    train, other = tmp_path / "train.csv", tmp_path / "other.csv"
    train.write_bytes(GOOD)
    other.write_bytes(b"text,label\nthree,c\n")
    with pytest.raises(InputError, match=r"other\.csv: label 'c' \(1 rows\) is unknown in the training rows"):
        take_in({"train": ("rows.csv", train), split: ("other.csv", other)}, DATA)


def test_rows_are_numbered_through_all_files_and_described(tmp_path: Path) -> None:
    files = {}
    for split in ("test", "validation", "train"):
        path = tmp_path / f"{split}.csv"
        path.write_bytes(GOOD)
        files[split] = (path.name, path)
    ingested = take_in(files, DATA)
    assert {split: rows.row for split, rows in ingested.examples.items()} == {
        "train": [0, 1, 2, 3],
        "validation": [4, 5, 6, 7],
        "test": [8, 9, 10, 11],
    }
    assert ingested.files["test"] == {
        "format": "csv",
        "encoding": "utf-8",
        "rows": 4,
        "characters": {"min": 7, "median": 8.0, "max": 9},
        "labels": {"a": 2, "b": 2},
    }


def test_nearly_equal_labels_and_absent_classes_are_findings(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\n1,Card arrival\n2,Card arrival\n3,card_arrival \n4,card_arrival \n5,b\n6,b\n")
    test.write_text("text,label\n7,Card arrival\n8,card_arrival \n")
    ingested = take_in({"train": ("train.csv", train), "test": ("test.csv", test)}, DATA)
    assert ingested.findings == [
        "labels 'Card arrival' (2 rows) and 'card_arrival ' (2 rows) have nearly the same name",
        "test: has no row of 1 labels: 'b'",
    ]


def with_unlabelled(folder: Path, content: bytes) -> Ingested:
    train, own = folder / "train.csv", folder / "own.csv"
    train.write_bytes(GOOD)
    own.write_bytes(content)
    return take_in({"train": ("train.csv", train), "unlabelled": ("own.csv", own)}, DATA)


@pytest.mark.parametrize("content", [b"text\nthree\n four\n", b"label,text\n0.5,three\nunknown, four\n"])
def test_unlabelled_texts_are_taken_without_a_look_at_labels(tmp_path: Path, content: bytes) -> None:
    ingested = with_unlabelled(tmp_path, content)
    assert ingested.unlabelled == ["three", " four"]
    assert set(ingested.examples) == {"train"}
    assert ingested.findings == []
    assert ingested.files["unlabelled"] == {
        "format": "csv",
        "encoding": "utf-8",
        "rows": 2,
        "characters": {"min": 5, "median": 5.0, "max": 5},
        "findings": [],
    }


def test_a_finding_on_unlabelled_texts_stays_with_their_file(tmp_path: Path) -> None:
    ingested = with_unlabelled(tmp_path, "text\nun café noir\n".encode("cp1252"))
    assert ingested.findings == []
    (finding,) = ingested.files["unlabelled"]["findings"]
    assert "not UTF-8" in finding


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"text\n", "has no rows"),
        (b"label\na\n", "no column 'text' (data.text); it has 'label'"),
        (b'text\nthree\n""\n', "line 3: the text is empty"),
        (b"text\n" + b"x" * 100_001, "line 2: the text has 100,001 characters; data.max_chars allows 100,000"),
    ],
)
def test_bad_unlabelled_texts_are_refused_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(InputError) as caught:
        with_unlabelled(tmp_path, content)
    assert str(caught.value).startswith("own.csv: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def with_cases(folder: Path, content: str, name: str = "own.csv") -> Ingested:
    train, own = folder / "train.csv", folder / name
    train.write_bytes(GOOD)
    own.write_text(content)
    return take_in({"train": ("train.csv", train), "cases": (name, own)}, DATA)


def test_cases_stand_beside_the_rows_with_their_places_and_labels(tmp_path: Path) -> None:
    ingested = with_cases(tmp_path, 'label,text\na,"one\ncard"\nb,one app\n')  # the second is a training row too
    assert ingested.cases == Cases(["line 2", "line 4"], ["one\ncard", "one app"], ["a", "b"])
    assert set(ingested.examples) == {"train"}
    assert (ingested.files["cases"]["rows"], ingested.files["cases"]["findings"]) == (2, [])


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [("own.csv", "text,level\nfour,9\n", "line 2"), ("own.jsonl", '\n{"text": "four"}\n', "line 2")],
)
def test_cases_without_a_column_of_labels_are_the_teacher_s(
    tmp_path: Path, name: str, content: str, place: str
) -> None:
    ingested = with_cases(tmp_path, content, name)
    assert ingested.cases == Cases([place], ["four"], None)
    (finding,) = ingested.files["cases"]["findings"]
    assert finding == "no column 'label': what must not change is the teacher's answer"


def test_a_label_that_the_first_line_alone_lacks_is_missing_there_not_the_teacher_s(tmp_path: Path) -> None:
    lines = '{"text": "four"}\n{"text": "five", "label": "a"}\n'
    with pytest.raises(InputError, match=r"own\.jsonl: line 1: has no column 'label' \(data\.label\)"):
        with_cases(tmp_path, lines, "own.jsonl")


def test_cases_are_scanned_and_redacted_as_rows_are(tmp_path: Path) -> None:
    scan = PersonalDataParams(kinds=("email",), redact=True)
    train, own = tmp_path / "train.csv", tmp_path / "own.csv"
    train.write_bytes(GOOD)
    own.write_text("text,label\nwrite to a@example.org,a\n")
    given = {"train": ("train.csv", train), "cases": ("own.csv", own)}
    found = take_in(given, DATA.model_copy(update={"personal_data_scan": scan}))
    assert found.cases.text == ["write to [EMAIL]"]
    assert found.personal_data is not None
    assert found.personal_data.files["cases"].kinds == {"email": {"texts": 1, "hits": 1}}


def test_a_list_of_labels_is_demanded_as_a_whole(tmp_path: Path) -> None:
    data = DATA.model_copy(update={"problem_type": "multi_label"})
    train, own = tmp_path / "train.csv", tmp_path / "own.csv"
    train.write_bytes(GOOD)
    own.write_text("text,label\nthree,b;a\nfour,\n")
    cases = take_in({"train": ("train.csv", train), "cases": ("own.csv", own)}, data).cases
    assert cases.label == [("a", "b"), ()]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "own.csv: is empty"),
        ("text,label\n", "own.csv: has no rows"),
        ("words,label\nx,a\n", "own.csv: has no column 'text' (data.text)"),
        ("text,Label\nx,a\n", "own.csv: has the column 'Label' and no 'label' (data.label); rename it, or drop it"),
        ("text,label\nx,a\ny,c\n", "own.csv: label 'c' (1 rows) is unknown in the training rows"),
        ("text,label\nx,a\n,b\n", "own.csv: line 3: the text is empty"),
        ("text,label\nx,a\ny,b\nx,b\n", "own.csv: line 4: has the text of line 2 and another label"),
    ],
)
def test_bad_cases_are_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        with_cases(tmp_path, content)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
