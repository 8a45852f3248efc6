"""`stillroom ui`: the web interfaces of MLflow and Prefect on loopback, behind one password.

A service that the environment names already (MLFLOW_TRACKING_URI or PREFECT_API_URL with http) is pointed at,
not started a second time. Run as a module, this is the parent of a server that must not outlive it.
"""

import contextlib
import hashlib
import json
import logging
import os
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stillroom import layout
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.files import read_json
from stillroom.parent import die_with_parent
from stillroom.pipeline.process import end_group

HOST = "127.0.0.1"
USER = "admin"
MLFLOW_PORT = 5000
PREFECT_PORT = 4200
_READY_S = 120.0
_POLL_S = 0.2
_LOG_TAIL = 5

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Interfaces:
    """Where the interfaces answer. credentials: the file with user and password, None without a password."""

    mlflow_url: str
    prefect_url: str
    credentials: Path | None


@dataclass(frozen=True)
class _Service:
    name: str
    url: str
    health: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)


def serve(
    ready: Callable[[Interfaces], None],
    *,
    mlflow_port: int = MLFLOW_PORT,
    prefect_port: int = PREFECT_PORT,
    password: bool = True,
) -> None:
    """Start both interfaces, call `ready` once both answer, and stop them cleanly at SIGINT or SIGTERM.

    A port that is taken gives way to a free one. Call it from the main thread. Raises StillroomError when a
    server ends by itself, with the last lines of its log.
    """

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with interfaces(mlflow_port=mlflow_port, prefect_port=prefect_port, password=password) as running:
            ready(running.addresses)
            while True:
                running.check()
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        log.info("ui: stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Running:
    """Started servers and where they answer."""

    addresses: Interfaces
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    logs: Path

    def check(self) -> None:
        """Raise StillroomError if a server has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                path = self.logs / f"{name}.log"
                tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:]
                told = " | ".join(line.strip() for line in tail if line.strip())
                raise StillroomError(f"{name} ended with {process.returncode}; see {path}: {told}")


@contextlib.contextmanager
def interfaces(
    *, mlflow_port: int = MLFLOW_PORT, prefect_port: int = PREFECT_PORT, password: bool = True
) -> Iterator[Running]:
    """Both interfaces for as long as the context lasts; entered once both answer."""
    folder = layout.state() / "ui"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    credentials = folder / "credentials.json" if password else None
    secret = _credentials(credentials) if credentials else None
    services = [_mlflow(mlflow_port, folder, secret), _prefect(prefect_port, secret)]
    addresses = Interfaces(services[0].url, services[1].url, credentials)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    running = Running(addresses, processes, folder)
    try:
        for service in services:
            if service.command:
                processes[service.name] = _start(service, folder)
        _wait(services, running)
        yield running
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes.values():
            end_group(process.pid, process)
            process.wait()


def _mlflow(port: int, folder: Path, secret: Mapping[str, str] | None) -> _Service:
    from stillroom.registry.tracking import artifacts_root, quieten, redacted, tracking_uri

    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        return _Service("mlflow", redacted(uri), "", (), {})
    quieten()
    port = _free_port(port)
    url = f"http://{HOST}:{port}"
    command = [
        *("mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--artifacts-destination", str(artifacts_root())),
        *("--allowed-hosts", f"{HOST}:{port},localhost:{port}"),
    ]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if secret is not None:
        command += ["--app-name", "basic-auth"]
        users = folder / f"users-{hashlib.sha256(secret['password'].encode()).hexdigest()[:12]}.db"
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_auth_settings(folder / "basic_auth.ini", users)),
            "MLFLOW_AUTH_ADMIN_PASSWORD": secret["password"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secret["secret_key"],
        }
    return _Service("mlflow", url, f"{url}/health", command, environment)


def _auth_settings(path: Path, users: Path) -> Path:
    """MLflow's basic-auth file: no permission by default, and a password is hashed once a minute, not always.

    Without the cache every request costs 185 ms of PBKDF2. The password itself travels in the environment.
    """
    lines = [
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = sqlite:///{users}",
        f"admin_username = {USER}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access = false",
        "auth_cache_ttl_seconds = 60",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _prefect(port: int, secret: Mapping[str, str] | None) -> _Service:
    configured = os.environ.get("PREFECT_API_URL", "")
    if configured.startswith(("http://", "https://")):
        return _Service("prefect", configured.rstrip("/").removesuffix("/api"), "", (), {})
    port = _free_port(port)
    url = f"http://{HOST}:{port}"
    environment = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
    }
    if secret is not None:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = f"{USER}:{secret['password']}"
    command = ("prefect", "server", "start", "--host", HOST, "--port", str(port))
    return _Service("prefect", url, f"{url}/api/health", command, environment)


def _credentials(path: Path) -> Mapping[str, str]:
    """User, password and cookie key, made once and readable by their owner only."""
    if not path.exists():
        made = {"user": USER, "password": secrets.token_urlsafe(24), "secret_key": secrets.token_hex(32)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump(made, stream, indent=2)
        try:
            os.link(temporary, path)
        except FileExistsError:
            log.debug("%s: another process was first", path)
        finally:
            temporary.unlink()
    if path.stat().st_mode & 0o077:
        raise InputError(f"{path}: others may read it; run `chmod 600 {path}`, or delete it for a new password")
    found = read_json(path)
    if not isinstance(found, dict) or not {"password", "secret_key"} <= found.keys():
        raise InputError(f"{path}: holds no password; delete it, and a new one is made")
    return {name: str(value) for name, value in found.items()}


def _free_port(wanted: int) -> int:
    """The wanted port if it is free, else one that the system chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TryAgain(f"{HOST}: no port is free; try again")


def _start(service: _Service, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "stillroom.ui", str(os.getpid()), *service.command]
    environment = {**os.environ, **service.environment}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    if not service.environment.get("MLFLOW_TRACKING_URI", "x"):
        del environment["MLFLOW_TRACKING_URI"]
    with (folder / f"{service.name}.log").open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def _wait(services: Sequence[_Service], running: Running) -> None:
    from urllib.error import URLError
    from urllib.request import urlopen

    deadline = time.monotonic() + _READY_S
    for service in services:
        while service.health:
            running.check()
            try:
                urlopen(service.health, timeout=5).close()
                break
            except (URLError, OSError) as error:
                if time.monotonic() > deadline:
                    told = f"{service.name} does not answer at {service.url} within {_READY_S:.0f} s"
                    raise TryAgain(f"{told}; see {running.logs / f'{service.name}.log'}") from error
            time.sleep(_POLL_S)


def _be_server(parent: int, module: str, arguments: Sequence[str]) -> None:
    """Replace this process by `python -m MODULE`, which ends when the one that asked for it does."""
    die_with_parent(signal.SIGTERM, parent)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _be_server(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
