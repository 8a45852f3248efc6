"""A proxy in front of an S3 server that does to its answers what networks, servers and other writers do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ALWAYS = 1 << 30
_REFUSALS = {
    "internal error": (500, "InternalError"),
    "slow down": (503, "SlowDown"),
    "too many requests": (429, "TooManyRequests"),
    "not implemented": (501, "NotImplemented"),
    "forbidden": (403, "AccessDenied"),
    "no such bucket": (404, "NoSuchBucket"),
    "no such key": (404, "NoSuchKey"),
    "not allowed": (405, "MethodNotAllowed"),
    "conflict": (409, "ConditionalRequestConflict"),
}


@dataclass
class Answer:
    """What the server said, as the proxy may change it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


@dataclass
class Request:
    """What the client asked; `path` holds the query."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path holds `path`; the first `after` go through."""

    kind: str
    times: int = 1
    method: str = ""
    path: str = ""
    after: int = 0
    before: Callable[[Request], object] = lambda request: None

    def takes(self, request: Request) -> bool:
        if self.times <= 0 or self.method not in ("", request.method) or self.path not in request.path:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """Faults to come, in order of preference, and the requests so far."""

    url: str
    upstream: tuple[str, int]
    pieces_s: float = 0.02
    faults: list[Fault] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, times: int = 1, **which: Any) -> None:
        self.faults.append(Fault(kind, times, **which))

    def heal(self) -> None:
        self.faults.clear()

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.asked)

    def next_fault(self, request: Request) -> Fault | None:
        with self.lock:
            self.asked.append(request)
            return next((fault for fault in self.faults if fault.takes(request)), None)

    def forward(self, request: Request) -> Answer:
        connection = HTTPConnection(*self.upstream, timeout=30)
        try:
            connection.request(request.method, request.path, request.body or None, request.headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()


@contextmanager
def serving(upstream: str) -> Iterator[Proxy]:
    parts = urlsplit(upstream)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy("", (parts.hostname, parts.port))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that hangs up is a test
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("connection", "expect")}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            fault = proxy.next_fault(request)
            if fault is None:
                self.send(proxy.forward(request))
                return
            fault.before(request)
            self.hurt(fault.kind, request)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def hurt(self, kind: str, request: Request) -> None:
            if kind in _REFUSALS:
                status, code = _REFUSALS[kind]
                told = f"<Error><Code>{code}</Code><Message>{kind}</Message></Error>".encode()
                self.send(Answer(status, [("Content-Type", "application/xml")], told))
            elif kind == "go through":
                self.send(proxy.forward(request))
            elif kind == "ignore the condition":
                kept = {key: value for key, value in request.headers.items() if key.lower() != "if-none-match"}
                self.send(proxy.forward(Request(request.method, request.path, kept, request.body)))
            elif kind == "hang":
                proxy.over.wait()
                self.close_connection = True
            elif kind == "lose the answer":
                proxy.forward(request)
                self.close_connection = True
            elif kind == "refuse to talk":
                self.close_connection = True
            else:
                self.spoil(kind, proxy.forward(request))

        def spoil(self, kind: str, answer: Answer) -> None:
            half = answer.body[: len(answer.body) // 2]
            if kind == "close":
                self.send(answer, half)
                self.close_connection = True
            elif kind == "stall":
                self.send(answer, half)
                proxy.over.wait()
                self.close_connection = True
            elif kind == "truncate":
                answer.body = half
                self.send(answer)
            elif kind == "empty":
                answer.body = b""
                self.send(answer)
            elif kind == "flip":
                answer.body = bytes([answer.body[0] ^ 1]) + answer.body[1:]
                self.send(answer)
            elif kind == "drip":
                self.send(answer, b"")
                for start in range(0, len(answer.body), 1 + len(answer.body) // 8):
                    proxy.over.wait(proxy.pieces_s)
                    self.wfile.write(answer.body[start : start + 1 + len(answer.body) // 8])
                    self.wfile.flush()
            else:
                raise AssertionError(kind)

        def send(self, answer: Answer, body: bytes | None = None) -> None:
            """Send the answer, or its headers and another body."""
            length = answer.header("Content-Length") if self.command == "HEAD" else str(len(answer.body))
            self.send_response(answer.status)
            for key, value in answer.headers:
                if key.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                    self.send_header(key, value)
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body if body is None else body)
            self.wfile.flush()

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
