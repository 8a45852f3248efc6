"""Child processes in groups of their own, which end with their owner on every path.

A group is registered before its first line is read, and killed from whichever thread calls `end_all`: under
Prefect only the flow's main thread hears a cancellation, never the thread that waits for the child.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from stillroom.pipeline.output import Output

GRACE_S = 10.0
_TICK_S = 0.2
_DRAIN_S = 1.0
_CHUNK = 1 << 16


class ProcessGroups:
    """The living children of one owner."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        self.ended = False

    def run(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        output: Output,
        tick: Callable[[], None] = lambda: None,
    ) -> int:
        """Run a command to its end and return its exit code (negative: the signal); `tick` comes every 0.2 s.

        When the command ends, whatever it left in its group is ended too: an orphaned stage would hold the
        pipe, and write beside its successor.
        """
        process = self._start(command, cwd, environment)
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                _pump(process, selector, output, tick)
            return process.wait()
        finally:
            end_group(process.pid, process)
            process.stdout.close()
            with self._lock:
                self._groups.discard(process.pid)
            output.close()
            tick()

    def _start(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self.ended:
                raise InterruptedError("the owner of this process group has ended")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                process_group=0,
            )
            self._groups.add(process.pid)
        return process

    def end_all(self, grace_s: float = GRACE_S) -> None:
        """End every living group and start none again; returns when all are gone."""
        with self._lock:
            self.ended = True
            groups = list(self._groups)
        for group in groups:
            _signal(group, signal.SIGTERM)
        for group in groups:
            end_group(group, None, grace_s)


def _pump(
    process: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    output: Output,
    tick: Callable[[], None],
) -> None:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline: float | None = None
    ticked = time.monotonic()
    while deadline is None or time.monotonic() < deadline:
        if selector.select(_TICK_S if deadline is None else 0.02):
            data = os.read(descriptor, _CHUNK)
            if not data:
                return
            output.feed(data)
        if time.monotonic() - ticked >= _TICK_S:
            tick()
            ticked = time.monotonic()
        if deadline is None and process.poll() is not None:
            _signal(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _DRAIN_S


def members(group: int) -> list[int]:
    """Living processes of a group; a zombie that nobody reaps is not living."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.info["pid"]) == group:
                found.append(process.info["pid"])
    return found


def end_group(group: int, leader: subprocess.Popen[bytes] | None, grace_s: float = GRACE_S) -> None:
    """SIGTERM a group, wait `grace_s` for it, then SIGKILL; returns at once where nothing is left of it."""
    if not _signal(group, signal.SIGTERM):
        return
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        if leader is not None:
            leader.poll()
        if not members(group):
            return
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
