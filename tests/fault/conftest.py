"""Fixtures of the faults: a published teacher, a registry of releases, and a proxy in front of the S3 server."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from stillroom import s3 as s3_module
from tests.cache.conftest import teacher as teacher
from tests.fault.proxy import Proxy, serving
from tests.registry.conftest import empty_store as empty_store
from tests.registry.conftest import make_release as make_release
from tests.registry.conftest import registered as registered
from tests.registry.conftest import run as run
from tests.registry.conftest import state as state
from tests.registry.conftest import tracker as tracker


@pytest.fixture
def proxy(s3: tuple[Any, str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between the bucket and its server; the waits between attempts are cut short, the attempts are real."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    monkeypatch.setattr(s3_module, "pause", lambda attempt: None)
    with serving(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
