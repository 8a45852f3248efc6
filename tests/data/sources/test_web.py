import hashlib
from pathlib import Path

import pytest

from stillroom.data.sources.fetching import fetch
from stillroom.errors import InputError, TryAgain

ROWS = b"text,label\n" + b"some text,a\n" * 1000
DIGEST = hashlib.sha256(ROWS).hexdigest()


def stored(state: Path) -> list[Path]:
    return [path for path in state.rglob("*.csv") if path.is_file()]


def test_a_file_is_fetched_once(site, state: Path) -> None:
    site.pages["/rows.csv"] = ROWS
    site.redirects["/latest.csv"] = "/rows.csv"
    first = fetch(f"{site.url}/latest.csv?download=1", DIGEST, "data.source")
    assert first.read_bytes() == ROWS
    assert first.name == "latest.csv"
    assert fetch(f"{site.url}/latest.csv?download=1", DIGEST, "data.source") == first
    assert site.asked == ["/latest.csv", "/rows.csv"]


def test_a_digest_is_demanded_before_anything_is_asked(site, state: Path) -> None:
    with pytest.raises(InputError, match="an https:// source needs its sha256"):
        fetch(f"{site.url}/rows.csv", None, "data.source")
    assert site.asked == []


def test_another_digest_leaves_nothing(site, state: Path) -> None:
    site.pages["/rows.csv"] = ROWS + b"more"
    with pytest.raises(InputError, match="the source changed, or the digest is of another"):
        fetch(f"{site.url}/rows.csv", DIGEST, "data.source")
    assert stored(state) == []


@pytest.mark.parametrize(("status", "error"), [(404, InputError), (403, InputError), (503, TryAgain), (429, TryAgain)])
def test_refusals_are_final_and_overload_is_not(site, state: Path, status: int, error: type[Exception]) -> None:
    site.statuses["/rows.csv"] = status
    with pytest.raises(error, match=f"data.source: {site.url}/rows.csv: the server answers {status}"):
        fetch(f"{site.url}/rows.csv?key=hunter2", DIGEST, "data.source")


def test_a_transfer_that_breaks_off_may_be_tried_again(site, state: Path) -> None:
    site.pages["/rows.csv"] = ROWS
    site.cut_off.add("/rows.csv")
    with pytest.raises(TryAgain, match="broke off"):
        fetch(f"{site.url}/rows.csv", DIGEST, "data.source")
    assert stored(state) == []


def test_redirects_away_from_https_are_refused(site, state: Path) -> None:
    site.redirects["/rows.csv"] = "http://127.0.0.1:9/rows.csv"
    with pytest.raises(InputError, match="redirects away from https"):
        fetch(f"{site.url}/rows.csv", DIGEST, "data.source")


def test_an_untrusted_certificate_is_told(site, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(InputError, match="its certificate is not trusted"):
        fetch(f"{site.url}/rows.csv", DIGEST, "data.source")


@pytest.mark.parametrize("url", ["https://127.0.0.1:9/rows.csv", "https://no-such-host.invalid/rows.csv"])
def test_no_network_is_wrong_input(state: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=f"data.source: {url}: no network") as caught:
        fetch(url, DIGEST, "data.source")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_no_space_is_told_before_anything_is_written(site, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/rows.csv"] = ROWS
    monkeypatch.setattr("stillroom.data.sources.disk.free_bytes", lambda folder: 100)
    with pytest.raises(InputError, match=r"needs 12\.0 kB, but the disk of .* has 100 B free"):
        fetch(f"{site.url}/rows.csv", DIGEST, "data.source")
    assert stored(state) == []
