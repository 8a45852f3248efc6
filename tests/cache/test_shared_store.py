"""Stores of several machines with one shared storage, a folder or a bucket."""

import logging
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Thread

import pytest

from stillroom.cache.identity import StaleCache
from stillroom.cache.manifest import Manifest, Manifests
from stillroom.cache.store import Store
from stillroom.errors import TryAgain
from stillroom.storage import Folder, Storage, open_storage
from tests.cache.answers import FIELDS, add, entries, filled, holds, newest_manifest, read, texts


@dataclass(frozen=True)
class Site:
    """Machines below a folder that share a storage."""

    path: Path
    address: str

    def machine(self, name: str) -> Store:
        """The store of a machine, as a process that starts there sees it."""
        return filled(self.path / name, shared=self.address)

    @property
    def storage(self) -> Storage:
        return open_storage(f"{self.address}/{Store(self.path, FIELDS).teacher}")

    @property
    def shared(self) -> Manifest:
        return Manifests(self.storage).latest()

    def spoil(self, name: str, content: bytes) -> None:
        """Put other bytes in the place of a file of the shared storage."""
        source = self.path / "spoilt"
        source.write_bytes(content)
        self.storage.write(name, source)


@pytest.fixture(params=["folder", "bucket"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    if request.param == "folder":
        return Site(tmp_path, str(tmp_path / "shared"))
    _, bucket = request.getfixturevalue("s3")
    return Site(tmp_path, f"s3://{bucket}/cache")


def test_what_one_machine_adds_another_finds(site: Site) -> None:
    one = site.machine("one")
    add(one, *texts(3))
    other = site.machine("other")
    holds(read(other), 3)
    add(other, *texts(3, first=3))
    holds(read(one), 6)
    assert one.push() == other.push() == ()
    assert {shard.sha256 for shard in site.shared.shards} == {
        shard.sha256 for shard in Manifests(Folder(one.folder)).latest().shards
    }


def test_the_shared_storage_has_the_layout_of_a_store(site: Site) -> None:
    store = site.machine("one")
    add(store, *texts(3))
    here = {path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*") if path.is_file()}
    assert set(site.storage.names()) == here
    for name in here:
        assert site.storage.read(name) == (store.folder / name).read_bytes()


def test_a_store_that_was_filled_alone_is_sent_when_it_is_told_where(site: Site) -> None:
    filled(site.path / "one", texts(3), texts(2, first=3))
    assert len(site.machine("one").push()) == 2
    holds(read(site.machine("other")), 5)
    assert len(Store(site.path / "third", FIELDS, site.address).pull()) == 2
    assert site.machine("third").pull() == ()


def test_what_another_machine_has_is_not_computed_twice(site: Site) -> None:
    one, other = site.machine("one"), site.machine("other")
    add(one, *texts(4))
    read(other)
    add(other, *texts(6))
    assert [shard.entries for shard in site.shared.shards] == [4, 6], "who asked before that does not know of it"
    late = site.machine("late")
    add(late, *texts(8))
    holds(read(late), 8)


def test_machines_that_add_at_once_lose_nothing(site: Site) -> None:
    start = Barrier(4)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store = Store(site.path / str(number), FIELDS, site.address)
            start.wait(30)
            for first in range(12 * number, 12 * number + 12, 3):
                add(store, *texts(3, first))
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    holds(read(site.machine("last")), 48)


def test_a_shard_that_is_spoilt_or_lost_in_the_storage_costs_its_entries_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    one = site.machine("one")
    for first in (0, 3, 6):
        add(one, *texts(3, first))
    spoilt, lost, _ = site.shared.shards
    site.spoil(spoilt.name, site.storage.read(spoilt.name)[:-1] + b"\xff")
    site.storage.remove(lost.name)
    other = site.machine("other")
    with caplog.at_level(logging.WARNING, "stillroom"):
        holds(read(site.machine("other")), 3, first=6)
    assert [shard.entries for shard in site.shared.shards] == [3], "both are struck"
    add(other, *texts(6))
    holds(read(site.machine("third")), 9)
    holds(read(one), 9)


def test_a_spoilt_manifest_in_the_storage_is_made_again_from_the_shards(site: Site) -> None:
    one = site.machine("one")
    add(one, *texts(3))
    add(one, *texts(3, first=3))
    newest = site.storage.names("manifests")[-1]
    site.spoil(newest, site.storage.read(newest).replace(b'"entries": 3', b'"entries": 4'))
    holds(read(site.machine("other")), 6)
    assert sorted(shard.entries for shard in site.shared.shards) == [3, 3]


def test_a_manifest_that_is_spoilt_on_this_machine_is_made_again(site: Site) -> None:
    one = site.machine("one")
    add(one, *texts(3))
    newest_manifest(one.folder).write_bytes(b"{}")
    add(one, *texts(3, first=3))
    holds(read(site.machine("other")), 6)


def test_the_storage_of_another_teacher_is_refused(site: Site) -> None:
    other = Manifest(fingerprint=FIELDS | {"precision": "bf16"})
    assert Manifests(site.storage, Manifest(fingerprint=FIELDS)).change(lambda _: other) == other
    with pytest.raises(StaleCache, match="precision differs – the precision of the forward pass"):
        site.machine("one")


def test_merging_is_shared_and_not_undone(site: Site) -> None:
    one, other = site.machine("one"), site.machine("other")
    for first in range(0, 10, 2):
        add(one, *texts(2, first))
    holds(read(other), 10)
    one.compact(100)
    assert [shard.entries for shard in site.shared.shards] == [10]
    other.push()
    assert [shard.entries for shard in site.shared.shards] == [10], "what was merged is not sent once more"
    holds(read(other), 10)
    assert entries(other.folder) == [10]
    add(other, *texts(2, first=10))
    holds(read(site.machine("third")), 12)


def test_a_storage_that_is_not_to_be_had_loses_nothing_that_was_computed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = site.machine("one")

    def gone(*_: object) -> None:
        raise TryAgain("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(site.storage), "write", gone)
        with pytest.raises(TryAgain, match="the network is gone"):
            add(one, *texts(3))
    assert site.storage.names() == []
    holds(read(site.machine("one")), 3)
    site.machine("one").push()
    holds(read(site.machine("other")), 3)
