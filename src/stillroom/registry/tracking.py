"""The one place that sets up MLflow: which store, how it is reached, and what its failures mean.

Everything goes through an MlflowClient bound to one URI. The fluent API keeps its state per thread, so that a
run begun in one Prefect task is lost in the next, and autologging stores models twice; neither is used.
"""

import errno
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stillroom import layout
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.files import NO_SPACE

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
_PROBE_S = 3.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DRIVER_LIMITS = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "mysqldb": ("connect_timeout",),
    "mysqlconnector": ("connection_timeout",),
    "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "pyodbc": ("timeout",),
    "pymssql": ("login_timeout",),
}
"""What the drivers call the seconds that opening a connection may take; by itself it may take minutes, or forever."""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "ABORTED"}
_FORBIDDEN = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
_DAMAGED = ("not a database", "malformed")
_REFUSED = re.compile(r"authentication failed|Access denied for user|database \".*\" does not exist|Unknown database")
_TWICE = re.compile(r"duplicate key|UNIQUE constraint failed|Duplicate entry")
_ATTEMPTS = 3
_LATER = "; nothing is lost, the next run records it"
_GLOBAL_URI = threading.Lock()


@dataclass(frozen=True)
class Tracker:
    """An open connection to one tracking store, which is the model registry too."""

    uri: str
    client: "MlflowClient"

    @property
    def name(self) -> str:
        """The URI as it may be shown."""
        return redacted(self.uri)


def tracking_uri() -> str:
    """The store in use: MLFLOW_TRACKING_URI, or else the SQLite file in the state folder."""
    return os.environ.get(URI_VARIABLE) or f"sqlite:///{layout.state() / 'mlflow.db'}"


def artifacts_root() -> Path:
    """Where artefacts go when no server stands between: a folder in the state folder."""
    return layout.state() / "mlartifacts"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, or None for every other store."""
    if not re.match(r"sqlite(\+\w+)?:///", uri):
        return None
    return Path(uri.partition(":///")[2].partition("?")[0]).absolute()


def redacted(text: str) -> str:
    """The text without the passwords of the URIs in it."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)((?:password|token|secret)=)[^&\s]+", r"\1***", text)


def without_credentials(url: str) -> str:
    """The URL as urllib can open it: no user, no password, no slash at the end."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def connect() -> Tracker:
    """Open the store in use; a new SQLite store is created.

    Raises TryAgain within seconds when it is down or locked, InputError when it can never work: a damaged
    database, an unknown kind of URI, refused credentials.
    """
    uri = tracking_uri()
    probe(uri)
    quieten()
    with translated(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return Tracker(uri, client)


def check_before_run() -> None:
    """Ask at once what a run would be told at its end; a store in the state folder that is not made yet is fine.

    Raises InputError for a SQLite file that is missing, locked or damaged, TryAgain for a server that is down,
    which may be up again by then.
    """
    uri = tracking_uri()
    path = sqlite_file(uri)
    if path is not None and not path.exists():
        if path.parent == layout.state():
            return
        raise InputError(f"{uri}: no such database; make it with `mlflow db upgrade {uri}`, or change {URI_VARIABLE}")
    try:
        probe(uri)
    except TryAgain as error:
        told = str(error).removesuffix(_LATER)
        if path is None:
            raise TryAgain(told) from error
        raise InputError(f"{told}; end that process, or change {URI_VARIABLE}") from error


def quieten() -> None:
    """Before mlflow is imported: no telemetry, no unpickling, bounded retries, no chatter; set values win."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def as_global(uri: str) -> Iterator[None]:
    """Make `uri` mlflow's process-wide default for a moment.

    A SQL registry resolves `models:/ID` through the global URI instead of its own client's (a TODO in
    sqlalchemy_store.create_model_version, mlflow 3.17).
    """
    import mlflow

    with _GLOBAL_URI:
        before = os.environ.get(URI_VARIABLE)
        mlflow.set_tracking_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)
            if before is not None:
                os.environ[URI_VARIABLE] = before


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database or its artefact store raise into the exceptions of Stillroom."""
    try:
        yield
    except StillroomError:
        raise
    except Exception as error:
        known = _in_words(uri, error)
        if known is None:
            raise
        raise known from error


def insist(uri: str, write: Callable[[], object]) -> None:
    """Write what another may be writing too: MLflow looks for a row and then inserts it, and of two that do so at once
    the second fails, though the row is there to be updated by then."""
    for attempt in range(_ATTEMPTS):
        try:
            with translated(uri):
                write()
            return
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or not _TWICE.search(str(error)):
                raise


def error_code(error: Exception) -> str:
    """MLflow's name for what went wrong, such as RESOURCE_DOES_NOT_EXIST; empty for other exceptions."""
    return str(getattr(error, "error_code", ""))


def _in_words(uri: str, error: Exception) -> StillroomError | None:
    told = redacted(" ".join(str(error).split()))[:300]
    where = redacted(uri)
    if _is_damage(error):
        return InputError(f"{where}: the database is damaged ({told}); move it away, the next run fills a new one")
    if "out-of-date database schema" in str(error):
        return InputError(f"{where}: written by another version of MLflow; back it up, then run `mlflow db upgrade`")
    if isinstance(error, ModuleNotFoundError):
        return InputError(f"{where}: needs the Python module {error.name}; install it beside Stillroom")
    code = error_code(error)
    if code in _FORBIDDEN or re.search(r"error code 40[13]\b", str(error)):
        return InputError(
            f"{where}: refused the credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if _REFUSED.search(str(error)):
        return InputError(f"{where}: the database refuses user, password or its name ({told}); change {URI_VARIABLE}")
    family = type(error).__module__.partition(".")[0]
    if (
        code in _TRANSIENT
        or _TWICE.search(str(error))
        or family in ("requests", "urllib3", "botocore", "boto3", "sqlalchemy", "sqlite3")
    ):
        return TryAgain(f"{where}: MLflow cannot be used now ({told}){_LATER}")
    if isinstance(error, OSError) and error.errno in (errno.EIO, *NO_SPACE):
        return TryAgain(f"{artifacts_root()}: cannot be written now ({told}); free some space and run again")
    return None


def _is_damage(error: BaseException | None) -> bool:
    while error is not None:
        original = getattr(error, "orig", error)
        if isinstance(original, sqlite3.DatabaseError) and any(sign in str(original) for sign in _DAMAGED):
            return True
        error = error.__cause__ or error.__context__
    return False


def probe(uri: str) -> None:
    """Find out in seconds, without MLflow, what its own retries need minutes for; raises like `connect`."""
    scheme = _scheme(uri)
    if scheme == "sqlite":
        _probe_sqlite(uri)
    elif scheme in ("http", "https"):
        _probe_http(uri)
    elif scheme in _PORTS:
        _probe_port(uri, _PORTS[scheme])
    else:
        raise InputError(
            f"{URI_VARIABLE} is {redacted(uri)!r}; give http(s)://HOST, sqlite:///FILE or postgresql://…, "
            "or leave it unset"
        )


def _scheme(uri: str) -> str:
    """The kind of store without its driver; empty where no server can be at such an address."""
    try:
        parts = urlsplit(uri)
        addressed = parts.port != 0 and (parts.hostname or not parts.scheme.startswith("http"))
    except ValueError:  # a port that is no number
        return ""
    return parts.scheme.partition("+")[0] if addressed else ""


def _probe_sqlite(uri: str) -> None:
    path = sqlite_file(uri)
    if path is None:
        raise InputError(f"{URI_VARIABLE} is {uri!r}; a SQLite store is written sqlite:///FILE")
    if path.parent == layout.state():
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_dir():
        raise InputError(f"{uri}: no such folder {path.parent}; create it or change {URI_VARIABLE}")
    try:
        connection = sqlite3.connect(path, timeout=_PROBE_S, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise TryAgain(f"{uri}: the database is locked by another process{_LATER}") from error
        raise InputError(f"{uri}: cannot be used as a database ({error}); change {URI_VARIABLE}") from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{uri}: the database is damaged ({error}); move it away, the next run fills a new one"
        ) from error


def _probe_http(uri: str) -> None:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(f"{without_credentials(uri)}/health"), timeout=_PROBE_S).close()
    except HTTPError as error:
        error.close()
        if error.code >= 500:
            raise TryAgain(f"{redacted(uri)}: MLflow answers {error.code}{_LATER}") from error
    except (URLError, OSError, HTTPException) as error:
        reason: Any = getattr(error, "reason", error)
        raise TryAgain(f"{redacted(uri)}: MLflow is not to be reached ({reason}){_LATER}") from error


def _probe_port(uri: str, default: int) -> None:
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or default), _PROBE_S).close()
    except OSError as error:
        raise TryAgain(f"{redacted(uri)}: the database is not to be reached ({error}){_LATER}") from error
    with translated(uri):
        from sqlalchemy import NullPool, create_engine, make_url

        url = make_url(uri)
        limits = [name for name in _DRIVER_LIMITS.get(url.get_dialect().driver, ()) if name not in url.query]
        limited = dict.fromkeys(limits, round(_PROBE_S))
        create_engine(url, poolclass=NullPool, connect_args=limited).connect().close()
