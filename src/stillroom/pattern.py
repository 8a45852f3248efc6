"""Regular expressions that people give: what compiles, and within limits of time and memory.

The package regex unrolls repeats, so that repeats inside repeats grow without bound: `(?:(?:a+)+)+…` doubles at every
level, `(?:(?:a{1000}){1000}){1000}` asks for a billion nodes. Whether an expression is one of those shows when it is
compiled, so that is tried in a process that the kernel ends.
"""

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

COMPILE_SECONDS = 2
COMPILE_BYTES = 512 << 20
_SHOWN = 60
_TRY = f"""
import resource, sys
import regex
resource.setrlimit(resource.RLIMIT_CPU, ({COMPILE_SECONDS}, {COMPILE_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({COMPILE_BYTES}, {COMPILE_BYTES}))
try:
    regex.compile(sys.stdin.buffer.read().decode("utf-8", "surrogatepass"))
except regex.error:
    pass
"""


@functools.lru_cache
def compiled(pattern: str) -> "regex.Pattern[str]":
    """Compile an expression; raises ValueError, in one line, for what does not compile or takes too much to."""
    import regex

    shown = pattern if len(pattern) <= _SHOWN else pattern[: _SHOWN - 1] + "…"
    tried = subprocess.run(
        [sys.executable, "-P", "-c", _TRY],
        input=pattern.encode("utf-8", "surrogatepass"),
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        raise ValueError(
            f"{shown!r} takes more than {COMPILE_SECONDS} s or {COMPILE_BYTES >> 20} MB to compile, or nests too "
            "deeply; write it without repeats inside repeats"
        )
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{shown!r} does not compile: {error.msg} at character {error.pos}") from error
