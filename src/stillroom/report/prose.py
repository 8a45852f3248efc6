"""A model card's Markdown as a part of the page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it.token import Token

_LEVELS_DOWN = 2
"""By how much headings go down, since the page has a first and a second level of its own."""


def prose(card: str, name: str) -> Markup:
    """HTML of a card; its metadata block comes first, as it is. Tags in the text are shown, and pictures are not, so
    that nothing is fetched. name: the student's, for those who hear the page."""
    from markdown_it import MarkdownIt

    metadata, text = split(card)
    parser: Any = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens: Sequence[Token] = parser.parse(text)
    tables = 0
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1:]) + _LEVELS_DOWN}"
        elif token.type == "table_open":
            tables += 1
            token.meta["label"] = f"Table {tables} of the card of {name}"
    told = parser.renderer.render(tokens, parser.options, {})
    return Markup("<pre><code>{}</code></pre>\n").format(metadata) + Markup(told)


def split(card: str) -> tuple[str, str]:
    """The metadata block of a card, without its fences, and the text below it."""
    if not card.startswith("---\n"):
        return "", card
    metadata, _, text = card.removeprefix("---\n").partition("\n---\n")
    return metadata, text.lstrip("\n")


def _table_open(_: object, tokens: "Sequence[Token]", index: int, *rest: object) -> str:
    told = Markup('<div class="scroll" tabindex="0" role="group" aria-label="{}">\n<table>\n')
    return str(told.format(tokens[index].meta["label"]))
