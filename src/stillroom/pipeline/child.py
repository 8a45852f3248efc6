"""`python -m stillroom.pipeline.child PARENT ARGUMENT…`: be DVC, and die with the process that asked for it.

DVC outlives a killed parent, and a second copy of a stage would then start beside the first. Nor has it a handler for
SIGTERM; with this one it goes in order and frees the paths that it holds. SIGKILL would leave them to a process id
that DVC takes for a living one until init has reaped it.
"""

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from stillroom.parent import die_with_parent

_UNWIND_S = 10


def main(argv: Sequence[str]) -> None:
    """Replace this module by `python -m dvc`, unless the parent is gone already."""
    parent, *arguments = argv
    signal.signal(signal.SIGTERM, _end)
    die_with_parent(signal.SIGTERM, int(parent))
    sys.argv = ["dvc", *arguments]
    runpy.run_module("dvc", run_name="__main__", alter_sys=True)


def _end(number: int, frame: FrameType | None) -> None:
    """End the whole group, then let DVC unwind, so that it takes its entries out of its list of busy paths.

    The group, because between DVC and a stage stands a shell, and not every shell steps aside by exec.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(_UNWIND_S)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
