"""A Prefect server and the programs around it, as processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
_START_S = 120.0


def environment(home: Path, api: str | None = None) -> dict[str, str]:
    """The environment of a person who has this checkout installed and, maybe, a server configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "STILLROOM_"))}
    kept |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    return kept | ({"PREFECT_API_URL": api} if api else {})


@contextmanager
def running(command: list[str], cwd: Path, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own, ended with everything that it started."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=stream, stderr=subprocess.STDOUT, process_group=0)
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(timeout=15)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
            process.wait()


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A local server on a free port with its database in `home`; yields the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    api = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, home, environment(home), home / "server.log") as process:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with urlopen(f"{api}/health", timeout=2):
                    break
            except (URLError, OSError):
                assert process.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, (home / "server.log").read_text()
                time.sleep(0.2)
        yield api
