"""Figures in words, and addresses that may be published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stillroom.report import words


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.count(22_713_216), "22.7 M"),
        (words.count(940), "940"),
        (words.size(90_868_376), "90.9 MB"),
        (words.size(1234), "1.23 kB"),
        (words.size(12), "12 B"),
        (words.milliseconds(0.0834), "0.0834 ms"),
        (words.milliseconds(1234.5), "1,234 ms"),
        (words.times(532.4), "532 ×"),
        (words.times(4.23), "4.2 ×"),
        (words.percent(0.984), "98.4 %"),
        (words.percent(0.0053), "0.53 %"),
        (words.duration(4.25), "4.25 s"),
        (words.duration(90), "1.5 min"),
        (words.duration(9000), "2.5 h"),
        (words.interval({"point": 0.99, "lower": 0.98, "upper": 1}), "0.9900 [0.9800, 1.0000]"),
        (words.metric("macro_f1"), "macro-F1"),
    ],
)
def test_figures(told: str, expected: str) -> None:
    assert told.replace(words.GAP, " ") == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/home/someone/clients/rows.csv", "rows.csv"),
        ("pypi://wheel==1.0/inside/rows.tab", "pypi://wheel==1.0/inside/rows.tab"),
        ("hf://owner/name@main", "hf://owner/name@main"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("https://user:secret@host/rows.csv?X-Signature=secret", "https://host/rows.csv"),
    ],
)
def test_addresses_tell_no_secrets(uri: str, expected: str) -> None:
    assert words.address(uri) == expected


@given(text=st.text(st.sampled_from("ab1 _*`[]()<>&|~!\\\\#;\n"), min_size=1))
def test_markdown_shows_plain_text_as_it_is(text: str) -> None:
    told = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(f"| x | y |\n| - | - |\n| z | {words.plain(text)} |")
    )
    shown = [token.children for token in told if token.type == "inline"][-1]
    assert shown is not None
    assert all(token.type == "text" for token in shown)
    assert "".join(token.content for token in shown) == " ".join(text.split())


@given(text=st.text(st.sampled_from("ab1 _*#+-=.)>~`:"), min_size=1).filter(str.strip))
def test_an_entry_of_a_list_is_neither_heading_nor_list(text: str) -> None:
    told = MarkdownIt("commonmark").parse(f"- {words.plain(text)}\n")
    assert [token.type for token in told if token.nesting == 1] == [
        "bullet_list_open",
        "list_item_open",
        "paragraph_open",
    ]
    (shown,) = (token.children for token in told if token.type == "inline")
    assert shown is not None
    assert "".join(token.content for token in shown) == " ".join(text.split())


def test_figures_and_words_need_no_marks() -> None:
    for told in ("1.5 of it", "3 rows", "a-b", "C# and C++"):
        assert words.plain(told) == told
    assert words.plain("1. heading") == "1\\. heading"
