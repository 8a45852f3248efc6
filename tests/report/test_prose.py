"""A card on the page: its metadata as they are, its text as HTML that brings nothing of its own."""

from stillroom.report.prose import prose, split

CARD = """---
license: other
name: <b>
---

# static

<script>alert(1)</script> ![picture](https://example.org/x.png) [run](javascript:alert(1))

| a | b |
| --- | --- |
| 1 | 2 |

## Limits

| c |
| --- |
| 3 |
"""


def test_metadata_come_first_and_headings_below_those_of_the_page() -> None:
    told = prose(CARD, "static")
    assert told.startswith("<pre><code>license: other\nname: &lt;b&gt;</code></pre>\n")
    assert "<h3>static</h3>" in told
    assert "<h4>Limits</h4>" in told


def test_nothing_in_a_card_is_fetched_or_run() -> None:
    told = prose(CARD, "static")
    assert "<script" not in told
    assert "<img" not in told
    assert 'href="javascript' not in told


def test_tables_scroll_in_boxes_with_names_of_their_own() -> None:
    told = prose(CARD, 'a"b')
    for number in (1, 2):
        assert f'tabindex="0" role="group" aria-label="Table {number} of the card of a&#34;b">\n<table>' in told
    assert told.count("</table></div>") == 2


def test_a_card_without_metadata_is_all_text() -> None:
    assert split("# a\n---\n") == ("", "# a\n---\n")
    assert split("---\na: 1\n---\n\n# b\n") == ("a: 1", "# b\n")
