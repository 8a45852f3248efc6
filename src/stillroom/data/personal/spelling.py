"""Spelling: digits of any script, wide letters, odd spaces and hyphens as ASCII, and where they stood in the text."""

import functools
import sys
import unicodedata
from collections.abc import Mapping

_LIKE_SPACE, _LIKE_HYPHEN, _UNSEEN = "Zs", "Pd", "Cf"
_WIDE = range(0xFF01, 0xFF5F)
"""ASCII once more, as wide as Chinese characters."""


@functools.cache
def _plain() -> Mapping[int, str]:
    """Each character beyond ASCII that has a plain spelling; the empty one, if it cannot be seen."""
    told: dict[int, str] = {}
    for code in range(0x80, sys.maxunicode + 1):
        kind = unicodedata.category(chr(code))
        if kind == "Nd":
            told[code] = str(unicodedata.decimal(chr(code)))
        elif code in _WIDE:
            told[code] = chr(code - 0xFEE0)
        elif kind == _LIKE_SPACE:
            told[code] = " "
        elif kind == _LIKE_HYPHEN or code == 0x2212:  # the sign for minus
            told[code] = "-"
        elif kind == _UNSEEN:
            told[code] = ""
    return told


def plain(text: str) -> tuple[str, list[int] | None]:
    """The text in plain spelling and the place of each of its characters in `text`; None where all kept theirs."""
    if text.isascii():
        return text, None
    spelt = text.translate(_plain())
    if len(spelt) == len(text):
        return spelt, None
    return spelt, [at for at, character in enumerate(text) if _plain().get(ord(character)) != ""]
