import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.delimited import read_csv, read_tab, read_tsv
from stillroom.errors import InputError

FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=8))
def test_whatever_a_csv_writer_quotes_is_read_back(rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert read_csv(stream.getvalue(), "rows.csv").rows == [list(row) for row in rows]


def test_lines_are_those_on_which_a_row_begins() -> None:
    records = read_csv('text,label\n"two\nlines",a\n\nplain,b\n', "rows.csv")
    assert (records.lines, len(records.rows)) == ([2, 5], 2)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('text,label\nfine,a\n"never closed,b\nnext,a\n', 3),
        ('text,label\n"closed" too early,b\n', 2),
        ('text,label\n"swallows,a\nthe "next",b\n', 2),
    ],
)
def test_unbalanced_quotes_are_refused_where_the_row_begins(content: str, line: int) -> None:
    with pytest.raises(InputError, match=rf"rows\.csv: line {line}: .*a quote is not balanced"):
        read_csv(content, "rows.csv")


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="line 3: has 3 fields, the header has 2"):
        read_csv("text,label\na,b\nhello, you,b\n", "rows.csv")


def test_a_field_longer_than_the_csv_modules_limit_is_read_and_the_limit_stays() -> None:
    before = csv.field_size_limit()
    assert len(read_csv(f"text,label\n{'x' * 200_000},a\n", "rows.csv").rows[0][0]) == 200_000
    assert csv.field_size_limit() == before


def test_tsv_with_quotes_as_a_spreadsheet_writes_them() -> None:
    records = read_tsv('text\tlabel\n"says ""no"" twice"\ta\n"two\nlines"\tb\n', "rows.tsv")
    assert records.rows == [['says "no" twice', "a"], ["two\nlines", "b"]]
    assert not records.findings


@pytest.mark.parametrize("text", ['"no, never', '"unbalanced" start', '"'])
def test_tsv_without_quoting_keeps_quotes_as_text(text: str) -> None:
    records = read_tsv(f"text\tlabel\n{text}\ta\nother\tb\n", "rows.tsv")
    assert records.rows == [[text, "a"], ["other", "b"]]
    assert records.findings == ["quotes are read as plain text"]


def test_tsv_whose_quotes_would_swallow_rows_keeps_every_row() -> None:
    records = read_tsv('text\tlabel\n"one\t1\ntwo"\t0\n', "rows.tsv")
    assert records.rows == [['"one', "1"], ['two"', "0"]]


ORANGE = 'Category\tText\nd\tstring\nclass\t\nearn\tprofit rose\nacq\tit said "buy"\n'


def test_oranges_three_header_rows_are_no_examples() -> None:
    records = read_tab(ORANGE, "rows.tab")
    assert records.header == ["Category", "Text"]
    assert records.rows == [["earn", "profit rose"], ["acq", 'it said "buy"']]
    assert records.lines == [4, 5]


def test_orange_lists_the_values_of_a_discrete_column() -> None:
    records = read_tab("Category\tText\nearn acq\tstring\nclass\tmeta\nearn\tprofit rose\n", "rows.tab")
    assert records.rows == [["earn", "profit rose"]]


@pytest.mark.parametrize("first", ["d\tsome words here", "earn\td", "c\ts"])
def test_a_plain_tab_file_loses_no_row_to_the_header_rows(first: str) -> None:
    records = read_tab(f"Category\tText\n{first}\nearn\tprofit rose again\nacq\tbought\n", "rows.tab")
    assert len(records.rows) == 3


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x85", "\x1e"])
def test_only_newlines_end_a_line(separator: str) -> None:
    assert read_tab(f"text\tlabel\none{separator}text\ta\n", "rows.tab").rows == [[f"one{separator}text", "a"]]
