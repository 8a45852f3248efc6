"""Folding: when two texts count as the same, and of which words a text consists."""

import re
import unicodedata

_WORDS = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
"""Words of letters, digits and underscores; Chinese characters and Japanese kana stand for themselves."""


def folded(text: str) -> str:
    """The text by which exact duplicates are told: Unicode NFC, white space as one space, none at the ends.

    Case is kept: `US` and `us` may be two classes, and a cased teacher reads them differently. Texts that
    differ in case or punctuation only are near duplicates.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """The words of a text, case folded, punctuation dropped."""
    return _WORDS.findall(unicodedata.normalize("NFC", text).casefold())
