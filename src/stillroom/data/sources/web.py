"""https://: one file, streamed, with the certificate checked; its sha256 is checked by the caller."""

import http.client
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from stillroom.data.sources.address import WebFile, shown
from stillroom.data.sources.disk import MAX_SOURCE_BYTES, RESERVE_BYTES, ensure_free, free_bytes, in_words
from stillroom.errors import InputError, TryAgain
from stillroom.events import progress

_TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https:// only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise InputError(f"{shown(req.full_url)}: redirects away from https://; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(address: WebFile, scratch: Path, what: str) -> Path:
    """Stream the file to `scratch`; proxies and SSL_CERT_FILE of the environment apply."""
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(_SecureRedirects, urllib.request.HTTPSHandler(context=context))
    where = f"{what}: {shown(address.uri)}"
    path = Path(tempfile.mkdtemp(dir=scratch)) / _safe_name(address.name)
    try:
        with opener.open(address.uri, timeout=_TIMEOUT_S) as response:
            _stream(response, path, where)
    except urllib.error.HTTPError as error:
        told = f"{where}: the server answers {error.code} {error.reason}"
        error.close()
        if error.code in _TRANSIENT:
            raise TryAgain(f"{told}; try again later") from error
        raise InputError(told) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{where}: its certificate is not trusted ({error.reason.verify_message}); set SSL_CERT_FILE"
            ) from error
        raise InputError(f"{where}: no network: {error.reason}") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise TryAgain(f"{where}: the transfer broke off ({type(error).__name__}); try again") from error
    return path


def _stream(response: Any, path: Path, where: str) -> None:
    declared = response.headers.get("Content-Length")
    expected = int(declared) if declared and declared.isdigit() else None
    if expected is not None:
        ensure_free(path.parent, expected, where)
    limit = expected if expected is not None else min(MAX_SOURCE_BYTES, free_bytes(path.parent) - RESERVE_BYTES)
    received = 0
    with path.open("xb") as sink, progress(f"fetch {path.name}", expected or limit) as advance:
        while piece := response.read(_CHUNK):
            received += len(piece)
            if received > limit:
                raise InputError(f"{where}: sends more than {in_words(limit)}; refused")
            sink.write(piece)
            advance(len(piece))
    if expected is not None and received < expected:
        raise TryAgain(f"{where}: the transfer broke off at {in_words(received)} of {in_words(expected)}; try again")


def _safe_name(name: str) -> str:
    return name if name not in (".", "..") and "/" not in name and "\0" not in name else "download"
