import os
import threading
import time
from pathlib import Path

import pytest

from stillroom.data.sources import store as store_module
from stillroom.data.sources.listing import read_listing
from stillroom.data.sources.store import Store
from stillroom.errors import InputError, TryAgain
from stillroom.files import tree_digest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sources")


def put(store: Store, content: str = "rows") -> tuple[Path, str]:
    with store.scratch() as scratch:
        path = scratch / "rows.csv"
        path.write_text(content)
        stored = store.admit(path, read_listing(path))
        return stored.path, stored.listing.digest


def test_what_is_admitted_is_found_under_its_digest(store: Store) -> None:
    path, digest = put(store)
    assert path == store.root / digest / "rows.csv"
    found = store.find(digest)
    assert found is not None
    assert found.path == path
    assert store.find("0" * 64) is None
    assert put(store) == (path, digest)


def test_damaged_content_is_not_found_and_is_replaced(store: Store) -> None:
    path, digest = put(store)
    path.write_text("swor")
    assert store.find(digest) is None
    assert put(store)[0].read_text() == "rows"


def test_scratch_is_gone_afterwards_and_old_leavings_are_swept(store: Store) -> None:
    left = store.root / ".fetch-killed"
    left.mkdir(parents=True)
    os.utime(left, (time.time() - 2 * 24 * 3600,) * 2)
    fresh = store.root / ".fetch-busy"
    fresh.mkdir()
    with store.scratch() as scratch:
        (scratch / "half").write_text("x")
    assert [path.name for path in store.root.iterdir()] == [".fetch-busy"]


def test_located_folders_are_found_while_they_keep_their_content(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = tree_digest(folder)
    store.locate(folder, digest)
    found = store.find(digest)
    assert found is not None
    assert found.path == folder
    (folder / "config.json").write_text('{"a": 1}')
    assert store.find(digest) is None


def test_addresses_are_recalled_and_damage_is_forgotten(store: Store) -> None:
    store.remember("s3://bucket/rows.csv", "0" * 64, "etag")
    assert store.recall("s3://bucket/rows.csv")["version"] == "etag"
    assert store.recall("s3://bucket/other.csv") == {}
    next(iter((store.root / "index").glob("*.json"))).write_text("half")
    assert store.recall("s3://bucket/rows.csv") == {}


def test_an_address_is_fetched_by_one_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WAIT_S", 0.05)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store.fetching("s3://bucket/rows.csv"):
            holding.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(10)
        with (
            pytest.raises(TryAgain, match="another run has been fetching"),
            store.fetching("s3://bucket/rows.csv"),
        ):
            pass
        with store.fetching("s3://bucket/other.csv"):
            pass
    finally:
        release.set()
        thread.join()


def test_a_state_folder_that_cannot_be_made_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(InputError, match=r"not writable .* set STILLROOM_STATE"),
        Store(tmp_path / "file").scratch(),
    ):
        pass
