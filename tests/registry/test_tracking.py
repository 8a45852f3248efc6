"""The tracking store: chosen, opened, and quick to say in one line why it cannot be used."""

import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.registry import tracking

BOUND_S = 15.0


@contextmanager
def server(status: int) -> Iterator[str]:
    """An HTTP server that is healthy and answers everything else with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else status)
            self.end_headers()
            self.wfile.write(b"no")

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://someone:hunter2@127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def refusal(kind: type[Exception]) -> str:
    """The one line with which connect() refuses, in bounded time."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        tracking.connect()
    assert time.monotonic() - began < BOUND_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_default_is_in_the_state_folder_and_the_environment_wins(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri() == f"sqlite:///{state}/mlflow.db"
    monkeypatch.setenv(tracking.URI_VARIABLE, "http://tracker:5000")
    assert tracking.tracking_uri() == "http://tracker:5000"


def test_opens_the_store(state: Path) -> None:
    assert tracking.connect().client.search_experiments(max_results=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pa:ss@host:5000/x", "http://user:***@host:5000/x"),
        ("postgresql://user:p@ss@host/db", "postgresql://user:***@host/db"),
        ("postgresql://host/db?user=a&password=secret&x=1", "postgresql://host/db?user=a&password=***&x=1"),
        ("failed: http://user:pass@host refused", "failed: http://user:***@host refused"),
        ("sqlite:////state/mlflow.db", "sqlite:////state/mlflow.db"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert tracking.redacted(text) == shown


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("sqlite:///b.db?timeout=1", Path("b.db").absolute()),
        ("sqlite+pysqlite:////a/b.db", Path("/a/b.db")),
        ("postgresql://host/db", None),
    ],
)
def test_file_of_a_sqlite_uri(uri: str, file: Path | None) -> None:
    assert tracking.sqlite_file(uri) == file


def test_locked_database_is_tried_again(state: Path) -> None:
    holder = sqlite3.connect(state / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked" in refusal(TryAgain)
        with pytest.raises(InputError, match="locked by another process; end that process"):
            tracking.check_before_run()
    finally:
        holder.close()
    tracking.connect()


def test_damaged_database_is_wrong_input_and_left_alone(state: Path) -> None:
    path = state / "mlflow.db"
    path.write_bytes(b"this is not a database" * 400)
    before = path.read_bytes()
    told = refusal(InputError)
    assert "damaged" in told
    assert str(path) in told
    with pytest.raises(InputError, match="damaged"):
        tracking.check_before_run()
    assert path.read_bytes() == before


def test_damage_deep_in_the_database_is_wrong_input(state: Path) -> None:
    path = state / "mlflow.db"
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert "damaged" in refusal(InputError)


def test_missing_folder_is_wrong_input_and_not_created(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{tmp_path}/no/such/mlflow.db")
    assert "no such folder" in refusal(InputError)
    assert not (tmp_path / "no").exists()


def test_folder_in_place_of_the_database_is_wrong_input(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{tmp_path}")
    assert "cannot be used" in refusal(InputError)


@pytest.mark.parametrize(
    "uri",
    [
        "./mlruns",
        "file:///mlruns",
        "ftp://host/x",
        "sqlite://",
        "http:/host:5000",
        "http://host:port",
        "postgresql://someone:hun/ter2@host/db",
    ],
)
def test_uri_that_can_never_work_is_wrong_input(state: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv(tracking.URI_VARIABLE, uri)
    told = refusal(InputError)
    assert tracking.URI_VARIABLE in told
    assert "ter2" not in told
    with pytest.raises(InputError, match=tracking.URI_VARIABLE):
        tracking.check_before_run()


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "mysql+pymysql"])
def test_server_that_is_down_is_tried_again(state: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        monkeypatch.setenv(tracking.URI_VARIABLE, f"{scheme}://someone:hunter2@127.0.0.1:{port}/db")
        told = refusal(TryAgain)
        with pytest.raises(TryAgain) as early:
            tracking.check_before_run()
    assert f"{scheme}://someone:***@127.0.0.1:{port}" in told
    assert "hunter2" not in told
    assert told == f"{early.value}; nothing is lost, the next run records it"


def test_server_that_never_answers_is_tried_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(tracking.URI_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}")
        refusal(TryAgain)


def test_database_that_accepts_and_never_answers_is_tried_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv(tracking.URI_VARIABLE, f"postgresql://someone:hunter2@127.0.0.1:{port}/db")
        assert "hunter2" not in refusal(TryAgain)


def test_a_store_that_is_not_made_yet_is_in_the_state_folder(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "mlflow.db").unlink()
    tracking.check_before_run()
    assert not (state / "mlflow.db").exists()
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(InputError, match="no such database"):
        tracking.check_before_run()


def test_refused_credentials_are_wrong_input(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(401) as uri:
        monkeypatch.setenv(tracking.URI_VARIABLE, uri)
        told = refusal(InputError)
    assert "credentials" in told
    assert "hunter2" not in told


def test_failing_server_is_tried_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(503) as uri:
        monkeypatch.setenv(tracking.URI_VARIABLE, uri)
        assert "hunter2" not in refusal(TryAgain)


def test_settings_of_the_user_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    tracking.quieten()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize("before", [None, "http://tracker:5000"])
def test_global_uri_is_given_back(state: Path, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    import mlflow

    if before:
        monkeypatch.setenv(tracking.URI_VARIABLE, before)
    with tracking.as_global("sqlite:////elsewhere.db"):
        assert mlflow.get_tracking_uri() == "sqlite:////elsewhere.db"
    assert os.environ.get(tracking.URI_VARIABLE) == before


def test_other_exceptions_pass_unchanged() -> None:
    with pytest.raises(KeyError), tracking.translated("sqlite:///x.db"):
        raise KeyError("a defect")


def test_a_database_whose_driver_is_missing_is_wrong_input(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv(tracking.URI_VARIABLE, f"mysql://someone:hunter2@127.0.0.1:{listening.getsockname()[1]}/db")
        assert "needs the Python module MySQLdb; install it" in refusal(InputError)
