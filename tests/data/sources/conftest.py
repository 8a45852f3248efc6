"""Real servers on loopback for the sources: a package folder for pip, HTTPS and a small hub."""

import datetime
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

MakeWheel = Callable[..., Path]


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWheel:
    """Write a wheel into a folder that is all that pip may look at."""
    index = tmp_path / "index"
    index.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def make(
        files: dict[str, bytes], name: str = "some_rows", version: str = "1.0", links: tuple[str, ...] = ()
    ) -> Path:
        path = index / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in files.items():
                entry = zipfile.ZipInfo(member)
                entry.external_attr = (0o120777 if member in links else 0o100644) << 16
                archive.writestr(entry, content)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    return make


@dataclass
class Site:
    """A web server: what it answers by path, and what it was asked."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


def _site_handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            site.asked.append(path)
            if path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[path])
                self.end_headers()
                return
            content = site.pages.get(path)
            self.send_response(site.statuses.get(path, 404 if content is None else 200))
            content = content or b""
            self.send_header("Content-Length", str(len(content) + (10 if path in site.cut_off else 0)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An https:// server whose certificate the environment trusts."""
    certificate, key = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    served = Site("")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _site_handler(served))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    served.url = f"https://127.0.0.1:{server.server_port}"
    yield from _serve(server, served)


def _serve(server: http.server.ThreadingHTTPServer, served: Any) -> Iterator[Any]:
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that refuses us is a test
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "site.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "site.key").write_bytes(private)
    return folder / "site.pem", folder / "site.key"


@dataclass
class Hub:
    """A hub of one repository: its files at the commit that its branch names."""

    url: str
    prefix: str
    commit: str
    files: dict[str, bytes]
    status: int = 200
    asked: list[str] = field(default_factory=list)


def _hub_handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            kind, _, rest = path.removeprefix("/api/").partition(f"{hub.prefix}/")
            if hub.status != 200:
                self._answer(hub.status, b"")
            elif not rest:
                self._answer(404, b"", error="RepoNotFound")
            elif path.startswith("/api/") and rest.startswith("revision/"):
                self._info(rest.removeprefix("revision/"), kind.strip("/"))
            else:
                revision, _, name = rest.removeprefix("resolve/").partition("/")
                if revision != hub.commit or name not in hub.files:
                    self._answer(404, b"", error="EntryNotFound")
                else:
                    self._answer(200, hub.files[name])

        def _info(self, revision: str, kind: str) -> None:
            if revision not in ("main", hub.commit):
                self._answer(404, b"", error="RevisionNotFound")
                return
            siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
            self._answer(200, json.dumps({"id": hub.prefix, "sha": hub.commit, "siblings": siblings}).encode())

        def _answer(self, status: int, content: bytes, error: str | None = None) -> None:
            self.send_response(status)
            if error:
                self.send_header("X-Error-Code", error)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub("", "owner/name", "c" * 40, {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _hub_handler(served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    yield from _serve(server, served)
