"""Which source computed a result: the modules of Stillroom that a process has loaded."""

import hashlib
import sys
from pathlib import Path

from stillroom.files import sha256_file


def code_digest() -> str:
    """sha256 over the name and content of every module of Stillroom loaded so far."""
    lines = [
        f"{name}\0{sha256_file(Path(module.__file__))}\n"
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] == "stillroom" and getattr(module, "__file__", None)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
