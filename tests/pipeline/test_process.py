"""Children end with their owner."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from stillroom.pipeline.output import Output
from stillroom.pipeline.process import ProcessGroups, end_group, members

NEST = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has), waiting up to 5 s for it."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def run(groups: ProcessGroups, code: str, lines: list[str]) -> int:
    output = Output(lines.append, {})
    return groups.run([sys.executable, "-c", code], Path.cwd(), dict(os.environ), output)


def test_the_exit_code_and_the_lines_come_back() -> None:
    lines: list[str] = []
    assert run(ProcessGroups(), "import sys; print('one'); print('two', file=sys.stderr); sys.exit(7)", lines) == 7
    assert sorted(lines) == ["one", "two"]
    assert run(ProcessGroups(), "import os; os.kill(os.getpid(), 9)", lines) == -signal.SIGKILL


def test_an_orphan_that_holds_the_pipe_is_ended() -> None:
    lines: list[str] = []
    started = time.monotonic()
    assert run(ProcessGroups(), NEST, lines) == 0
    assert time.monotonic() - started < 10
    assert gone(int(lines[0]))


def test_another_thread_can_end_all_and_nothing_starts_after_it() -> None:
    groups, lines, codes = ProcessGroups(), [], []  # type: ProcessGroups, list[str], list[int]
    worker = threading.Thread(target=lambda: codes.append(run(groups, NEST + "time.sleep(60)", lines)))
    worker.start()
    while not lines:
        time.sleep(0.02)
    groups.end_all()
    worker.join(timeout=10)
    assert not worker.is_alive()
    assert codes == [-signal.SIGTERM]
    assert gone(int(lines[0]))
    with pytest.raises(InterruptedError):
        run(groups, "pass", lines)


def test_a_group_that_ignores_sigterm_is_killed() -> None:
    groups, lines, codes = ProcessGroups(), [], []  # type: ProcessGroups, list[str], list[int]
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    worker = threading.Thread(target=lambda: codes.append(run(groups, code, lines)))
    worker.start()
    while not lines:
        time.sleep(0.02)
    groups.end_all(grace_s=0.3)
    worker.join(timeout=10)
    assert codes == [-signal.SIGKILL]


def test_ticks_come_while_the_child_is_silent() -> None:
    ticks: list[float] = []
    output = Output(lambda line: None, {})
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    ProcessGroups().run(command, Path.cwd(), dict(os.environ), output, lambda: ticks.append(time.monotonic()))
    assert len(ticks) >= 3


def test_a_group_without_members_is_empty() -> None:
    process = psutil.Popen([sys.executable, "-c", "pass"], process_group=0)
    process.wait()
    assert members(process.pid) == []
    end_group(process.pid, None)
