"""Figures in the form that people read, the same in every table, plot and page."""

import re
from collections.abc import Mapping
from pathlib import PurePath

GAP = "\u00a0"
_MARKED = re.compile(r"[\\`*&\[\]<>|~]|(?<!\w)_|_(?!\w)|^[#+-]")
_NUMBERED = re.compile(r"^(\d{1,9})(?=[.)](?: |$))")


def count(value: float) -> str:
    """A number of parameters or rows: 22.7 M, 812 k, 940."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{GAP}{unit}"
    return f"{value:.0f}"


def size(value_bytes: float) -> str:
    """A size in decimal units: 90.9 MB."""
    for unit_bytes, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value_bytes >= unit_bytes:
            return f"{value_bytes / unit_bytes:.3g}{GAP}{unit}"
    return f"{value_bytes:.0f}{GAP}B"


def milliseconds(value: float) -> str:
    """A latency: 42.1 ms, 0.083 ms."""
    return f"{value:.3g}{GAP}ms" if value < 100 else f"{value:,.0f}{GAP}ms"


def duration(value_s: float) -> str:
    """A time that something took: 4.2 s, 51.1 min, 3.5 h."""
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if value_s >= unit_s:
            return f"{value_s / unit_s:.1f}{GAP}{unit}"
    return f"{value_s:.3g}{GAP}s"


def times(value: float) -> str:
    """A speed-up: 530 ×, 4.2 ×."""
    return f"{value:,.0f}{GAP}×" if value >= 100 else f"{value:.2g}{GAP}×"


def percent(value: float) -> str:
    """A share: 98.4 %, 0.05 %."""
    return f"{100 * value:.1f}{GAP}%" if value >= 0.01 else f"{100 * value:.2g}{GAP}%"


def quality(value: float) -> str:
    """A metric between 0 and 1."""
    return f"{value:.4f}"


def interval(found: Mapping[str, float]) -> str:
    """What was measured, with its bounds: 0.9912 [0.9871, 0.9940]."""
    return f"{quality(found['point'])} [{quality(found['lower'])},{GAP}{quality(found['upper'])}]"


def metric(name: str) -> str:
    """A metric's name: macro-F1 for macro_f1."""
    return {"macro_f1": "macro-F1", "ece": "ECE"}.get(name, name)


def address(uri: str) -> str:
    """Where something came from, fit to be published: no folder of this machine, no password, no token."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return PurePath(uri).name
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        host, path = host.rpartition("@")[2], path.partition("?")[0]
    return f"{scheme}://{host}{slash}{path}"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in a table or as an entry of a list too."""
    return _NUMBERED.sub(r"\1\\", _MARKED.sub(r"\\\g<0>", " ".join(text.split())))
