"""Processes that end with the one that started them, on Linux; elsewhere they end at their own pace."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Ask the kernel for a signal when the parent ends; exit if it is gone already (parent: its process id).

    To be called by the child: it needs no code between fork and exec in a parent with threads. The parent is the
    thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)
