import re
from typing import Any

import pytest

from stillroom.data.checks import check_classes, check_known_labels, check_rows
from stillroom.data.examples import Examples
from stillroom.data.reading import Table
from stillroom.errors import InputError


def table(texts: list[Any], labels: list[Any]) -> Table:
    return Table("rows.csv", texts, labels, range(2, len(texts) + 2), "line", "utf-8")


def examples(*pairs: tuple[str, str]) -> Examples:
    return Examples(list(range(len(pairs))), [text for text, _ in pairs], [label for _, label in pairs])


def test_rows_are_numbered_from_where_the_file_before_ended() -> None:
    assert check_rows(table(["one", "two"], ["a", "b"]), 100, first_row=7).row == [7, 8]


@pytest.mark.parametrize("text", ["", " ", "\t \n", "\u00a0\u2003", "\u200b\u200d\ufeff", "\x07"])
def test_texts_without_a_visible_character_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"rows\.csv: line 3: the text is (empty|only spaces)"):
        check_rows(table(["fine", text], ["a", "b"]), 100, 0)


@pytest.mark.parametrize("text", ["?", "👍", "ok\u200b", "中"])
def test_texts_with_a_visible_character_are_kept_as_they_are(text: str) -> None:
    assert check_rows(table([text], ["a"]), 100, 0).text == [text]


def test_a_text_of_ten_megabytes_is_refused() -> None:
    with pytest.raises(InputError, match=r"line 2: the text has 10,485,760 characters; data\.max_chars allows 100,000"):
        check_rows(table(["x" * (10 << 20)], ["a"]), 100_000, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is missing"),
        (3, "type int"),
        (b"bytes", "type bytes"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
    ],
)
def test_texts_that_are_no_text_are_refused(text: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"line 2: the text .*{told}"):
        check_rows(table([text], ["a"]), 100, 0)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ("  ", "is empty"),
        (0.5, "is the float 0.5"),
        (1.0, "is the float 1.0"),
        (float("nan"), "is the float nan"),
        (["a"], "type list"),
        ("\ud800", "surrogate"),
    ],
)
def test_labels_that_are_no_name_are_refused(label: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"line 3: the label .*{told}"):
        check_rows(table(["x", "y"], ["a", label]), 100, 0)


@pytest.mark.parametrize("labels", [["0.5", "1"], ["1", "2e3", "3"], ["nan", "1"], [" 1.0", "2"]])
def test_a_column_of_floats_is_refused(labels: list[str]) -> None:
    with pytest.raises(InputError, match="the label is the float"):
        check_rows(table(["x"] * len(labels), labels), 100, 0)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1], ["0", "1"]),
        (["0", "1"], ["0", "1"]),
        ([True, False], ["true", "false"]),
        (["1.5", "two"], ["1.5", "two"]),
        (["-1", "+1"], ["-1", "+1"]),
    ],
)
def test_whole_numbers_and_truth_values_are_names(labels: list[Any], names: list[str]) -> None:
    assert check_rows(table(["x", "y"], labels), 100, 0).label == names


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([("x", "a"), ("y", "a")], "one class only, 'a'"),
        ([("x", "a"), ("y", "a"), ("z", "lonely")], "the class 'lonely' with a single row"),
        ([("same", "a"), ("same ", "b"), ("same", "a"), ("same", "b")], "all 4 rows hold the same text"),
        (
            [("x", "a"), ("y", "a"), ("z", "b"), (" z", "b")],
            "the class 'b' whose rows all hold the same text",
        ),
    ],
)
def test_classes_that_cannot_teach_are_refused(pairs: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_classes(examples(*pairs), "rows.csv")


def test_many_single_classes_are_counted_and_a_few_named() -> None:
    pairs = [(f"text {number}", f"label{number:02}") for number in range(20)]
    with pytest.raises(InputError, match=r"20 classes \('label00', .*'label04' and 15 more\) with a single row"):
        check_classes(examples(*pairs), "rows.csv")


def test_unknown_labels_name_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=r"label 'Card arival' \(2 rows\) is unknown .* did you mean 'card_arrival'\?"):
        check_known_labels(examples(("x", "Card arival"), ("y", "Card arival")), ["card_arrival", "b"], "test.csv")


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("b;a", ("a", "b")),
        (" b ; a ", ("a", "b")),
        (["b", "a"], ("a", "b")),
        (["b;c", " a "], ("a", "b;c")),
        (["a b", 3, True], ("3", "a b", "true")),
        ("", ()),
        ("  ", ()),
        (None, ()),
        ([], ()),
        (7, ("7",)),
    ],
)
def test_a_row_may_have_any_number_of_labels(cell: Any, names: tuple[str, ...]) -> None:
    assert check_rows(table(["text"], [cell]), 100, 0, separator=";").label == [names]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("a;;b", "'a;;b' has nothing before, after or between separators (';'); repair the cell"),
        ("a;", "'a;' has nothing before, after or between"),
        (["a", " "], "the label is empty"),
        ([["a"]], "a label among others is a value of type list, not a name"),
        (["a", None], "the label is missing"),
        (["a", 0.5], "the label is the float 0.5"),
        ([" a", "a"], "has the label 'a' twice"),
        ("a;b;a", "has the label 'a' twice"),
        ({"a": 1}, "a value of type dict"),
    ],
)
def test_labels_that_are_no_names_are_refused_with_their_place(cell: Any, told: str) -> None:
    with pytest.raises(InputError, match="line 3: .*" + re.escape(told)):
        check_rows(table(["one", "two"], ["a", cell]), 100, 0, separator=";")


@pytest.mark.parametrize("cells", [["0.5;1.5", "1"], ["0.25", ""], [["1", "0.5"], []]])
def test_measures_are_no_classes_however_many_stand_in_a_cell(cells: list[Any]) -> None:
    with pytest.raises(
        InputError, match=r"line 2: the label is the float 0\.25|line 2: the label is the float [01]\.5"
    ):
        check_rows(table(["one", "two"], cells), 100, 0, separator=";")


def test_a_list_of_labels_needs_to_be_asked_for() -> None:
    with pytest.raises(InputError, match=r"type list, not a name; .*set data\.problem_type to multi_label"):
        check_rows(table(["one"], [["a", "b"]]), 100, 0)


def test_classes_of_rows_with_several_labels_are_counted_by_name() -> None:
    rows = Examples([0, 1, 2], ["one", "two", "three"], [("a", "b"), ("a", "b"), ()])
    check_classes(rows, "rows.csv")
    check_known_labels(rows, ["a", "b"], "rows.csv")
    with pytest.raises(InputError, match="label 'b' \\(2 rows\\) is unknown"):
        check_known_labels(rows, ["a"], "rows.csv")
    with pytest.raises(InputError, match="has the class 'c' with a single row"):
        check_classes(Examples([0, 1, 2], ["one", "two", "three"], [("a", "c"), ("a", "b"), ("b",)]), "rows.csv")
    with pytest.raises(InputError, match="no row has a label"):
        check_classes(Examples([0, 1], ["one", "two"], [(), ()]), "rows.csv")
