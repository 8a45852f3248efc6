import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillroom.data.reading import FORMATS, column_names, read_table
from stillroom.errors import InputError

PAIRS = [("my card, please", "a"), ('she said "no"', "b"), ("naïve café\u2028here", "a")]


def write(path: Path) -> Path:
    match path.suffix:
        case ".csv":
            path.write_text('text,label\n"my card, please",a\n"she said ""no""",b\nnaïve café\u2028here,a\n')
        case ".tsv":
            path.write_text('text\tlabel\nmy card, please\ta\n"she said ""no"""\tb\nnaïve café\u2028here\ta\n')
        case ".tab":
            path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in PAIRS))
        case ".jsonl":
            lines = [json.dumps({"id": 1, "text": text, "label": label}, ensure_ascii=False) for text, label in PAIRS]
            path.write_text("\n".join(lines))
        case ".parquet":
            pq.write_table(
                pa.table({"label": [label for _, label in PAIRS], "text": [text for text, _ in PAIRS]}), path
            )
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_columns(tmp_path: Path, suffix: str) -> None:
    table = read_table(write(tmp_path / f"rows{suffix}"), "text", "label", "rows")
    assert list(zip(table.texts, table.labels, strict=True)) == PAIRS
    assert len(table.places) == len(PAIRS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_texts_alone_need_no_labels(tmp_path: Path, suffix: str) -> None:
    table = read_table(write(tmp_path / f"rows{suffix}"), "text", None, "rows")
    assert list(table.texts) == [text for text, _ in PAIRS]
    assert not table.labels
    assert len(table.places) == len(PAIRS)
    with pytest.raises(InputError, match=r"has no column 'texts' \(data\.text\); did you mean 'text'\?"):
        read_table(tmp_path / f"rows{suffix}", "texts", None, "rows")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_column_names_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows{suffix}")
    with pytest.raises(InputError, match=r"has no column 'Labels' \(data\.label\); did you mean 'label'\?"):
        read_table(path, "text", "Labels", "rows")


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.touch()
    with pytest.raises(InputError, match="rows: is empty"):
        read_table(path, "text", "label", "rows")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".tab"])
def test_a_header_alone_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("text,label\n" if suffix == ".csv" else "text\tlabel\n")
    with pytest.raises(InputError, match="has no rows"):
        read_table(path, "text", "label", "rows")


def test_a_byte_order_mark_does_not_hide_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nhello there,a\n", encoding="utf-8-sig")
    assert read_table(path, "text", "label", "rows").texts == ["hello there"]


def test_another_encoding_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nle café est très éloigné de la forêt,a\noù est la clé,b\n", encoding="cp1252")
    table = read_table(path, "text", "label", "rows")
    assert table.encoding == "cp1252"
    assert "read as cp1252, not UTF-8; look whether 'le café est très" in table.findings[0]


@pytest.mark.parametrize(("content", "mark"), [("text;label\na;b\n", "';'"), ("text\tlabel\na\tb\n", r"'\\t'")])
def test_another_separator_is_named(tmp_path: Path, content: str, mark: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=f"its columns seem to be separated by {mark}"):
        read_table(path, "text", "label", "rows")


def test_two_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,text\na,b,c\n")
    with pytest.raises(InputError, match="has 2 columns named 'text'"):
        read_table(path, "text", "label", "rows")


def test_text_and_label_must_be_two_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name two columns"):
        read_table(write(tmp_path / "rows.csv"), "text", "text", "rows")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"text": "a", "label": "b"}\n{"text": "a",\n', "line 2: not JSON"),
        ('[{"text": "a", "label": "b"}]\n', "line 1: no JSON object"),
        ('{"text": "a", "label": "b"}\n\n{"text": "c"}\n', "line 3: has no column 'label'"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_broken_json_lines_name_their_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=told):
        read_table(path, "text", "label", "rows")


def test_names_of_columns_are_those_of_any_json_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"b": 1}\n{"a": 1, "b": 2}\n')
    assert column_names(path, "rows") == ["b", "a"]


def test_a_cut_off_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not readable as Parquet") as caught:
        read_table(path, "text", "label", "rows")
    assert "\n" not in str(caught.value)


def test_other_endings_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv, \.tsv, \.tab, \.jsonl, \.parquet"):
        read_table(tmp_path / "rows.xlsx", "text", "label", "rows.xlsx")
