"""Which source computed a result: the modules of Stillroom that a process has loaded."""

import hashlib
import sys
from pathlib import Path

from stillroom.files import sha256_file


def code_digest() -> str:
    """sha256 over the name and content of every module of Stillroom loaded so far."""
    files = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "stillroom"}
    lines = [f"{name}\0{sha256_file(Path(path))}\n" for name, path in sorted(files.items()) if path]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
