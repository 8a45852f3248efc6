"""`stillroom ui`: both interfaces up behind a password, and gone without a trace."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from stillroom import layout, ui
from stillroom.errors import InputError, StillroomError

SERVE = """
import json, sys
from stillroom import ui
def ready(found):
    told = [found.mlflow_url, found.prefect_url, str(found.credentials) if found.credentials else None]
    print(json.dumps(told), flush=True)
ui.serve(ready, mlflow_port=0, prefect_port=0, password=sys.argv[1] == "password")
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder and a Prefect home of the test's own, and no services in the environment."""
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "state"


def status(url: str, password: str | None = None) -> int:
    """HTTP status of a URL, asked with or without the password."""
    request = Request(url)
    if password:
        token = base64.b64encode(f"{ui.USER}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urlopen(request, timeout=30) as response:
            return int(response.status)
    except HTTPError as error:
        error.close()
        return error.code


@pytest.fixture
def serving(state: Path) -> Iterator["subprocess.Popen[str]"]:
    """`stillroom ui` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "password"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=30)
    if process.stdout:
        process.stdout.close()


def addresses(process: "subprocess.Popen[str]") -> list[str]:
    """What the process says once both interfaces answer."""
    assert process.stdout is not None
    told: list[str] = json.loads(process.stdout.readline())
    return told


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interfaces_need_the_password_and_end_together(
    serving: "subprocess.Popen[str]", state: Path, how: signal.Signals
) -> None:
    mlflow_url, prefect_url, credentials = addresses(serving)
    assert mlflow_url.startswith("http://127.0.0.1:")
    assert prefect_url.startswith("http://127.0.0.1:")
    path = Path(credentials)
    assert path.stat().st_mode & 0o777 == 0o600
    password = json.loads(path.read_text())["password"]
    asked = (
        f"{mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0",
        f"{mlflow_url}/",
        f"{prefect_url}/api/admin/version",
    )
    for url in asked:
        assert [status(url), status(url, "password1234"), status(url, password)] == [401, 401, 200]
    servers = psutil.Process(serving.pid).children(recursive=True)
    assert servers
    assert not any(password in " ".join(server.cmdline()) for server in servers)
    listening = [c for server in servers for c in server.net_connections() if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    serving.send_signal(how)
    code = serving.wait(timeout=30)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(servers, timeout=20 if how == signal.SIGKILL else 1)
    assert alive == []
    logs = (state / "ui/mlflow.log").read_text() + (state / "ui/prefect.log").read_text()
    assert password not in logs


def test_password_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = ui._credentials(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(made["password"]) >= 20
    assert ui._credentials(path) == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.json"]


def test_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    ui._credentials(path)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        ui._credentials(path)


@pytest.mark.parametrize("content", ["[]", "{}", "nothing"])
def test_broken_credentials_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="credentials"):
        ui._credentials(path)


def test_services_of_the_environment_are_pointed_at(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    with ui.interfaces() as running:
        assert running.addresses.mlflow_url == "http://me:***@mlflow:5000"
        assert running.addresses.prefect_url == "http://prefect:4200"
        assert not running.processes


@pytest.mark.serial
def test_server_that_cannot_start_is_told_with_its_log(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    state.mkdir()
    (state / "mlflow.db").write_bytes(b"no database" * 1000)
    began = time.monotonic()
    with pytest.raises(StillroomError, match=r"mlflow ended with \d+; see .*mlflow.log"), ui.interfaces():
        pass
    assert time.monotonic() - began < 60


def test_port_that_is_taken_gives_way(state: Path) -> None:
    import socket

    with socket.create_server((ui.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert ui._free_port(port) not in (0, port)
    assert ui._free_port(port) == port
