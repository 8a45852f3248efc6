"""What the ledger's champion is compared with: its package, its tags, and none but its own."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.files import read_json, sha256_file, write_json
from stillroom.registry import ledger, promotion, standing, tracking, versions


def package_of(tracker: tracking.Tracker, version: int) -> Path:
    root = tracker.client.get_model_version_download_uri("toy", str(version))
    return Path(root.removeprefix("file://")) / "artifacts/package"


def edit(tracker: tracking.Tracker, version: int, **tags: str) -> None:
    for name, value in tags.items():
        tracker.client.set_model_version_tag("toy", str(version), name.replace("_", "."), value)


@pytest.fixture
def champion(registered: tracking.Tracker) -> tracking.Tracker:
    """The registry of four versions, with version 1 as champion."""
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    return registered


def test_a_damaged_champion_never_gets_its_alias_back_on_the_way_to_the_next(
    champion: tracking.Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(package_of(champion, 1))
    assert promotion.reconcile("toy", tracker=champion).outcome == "damaged"
    moves: list[str] = []
    set_alias = champion.client.set_registered_model_alias
    monkeypatch.setattr(champion.client, "set_registered_model_alias", lambda *a: moves.append(a[-1]) or set_alias(*a))
    assert promotion.promote("toy", 2, "ada", "next", tracker=champion).from_version == 1
    assert moves == ["2"]


def store_of(state: Path) -> Path:
    return state / "mlartifacts"


@pytest.mark.parametrize("mount_point", [True, False])
def test_a_store_that_is_out_of_reach_is_no_flaw(champion: tracking.Tracker, state: Path, mount_point: bool) -> None:
    kept = store_of(state).rename(state / "unmounted")
    if mount_point:
        store_of(state).mkdir()
    before = versions.get(champion, "toy", 1)
    with pytest.raises(TryAgain, match="toy version 1: the artefact store lists nothing at"):
        promotion.reconcile("toy", tracker=champion)
    assert (versions.model(champion, "toy").champion, versions.get(champion, "toy", 1)) == (1, before)
    if mount_point:
        store_of(state).rmdir()
    kept.rename(store_of(state))
    assert promotion.reconcile("toy", tracker=champion).outcome == "in step"


@pytest.mark.parametrize("reads", ["mlflow.artifacts.list_artifacts", "stillroom.export.runtime.sha256_file"])
def test_a_disk_that_fails_while_it_is_read_is_no_flaw(
    champion: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(reads, fail)
        with pytest.raises(TryAgain, match=r"toy version 1: .*Permission denied"):
            promotion.reconcile("toy", tracker=champion)
    assert promotion.reconcile("toy", tracker=champion).outcome == "in step"


def test_a_package_of_a_later_stillroom_is_no_flaw_where_it_is_what_was_registered(
    champion: tracking.Tracker,
) -> None:
    manifest = package_of(champion, 1) / "stillroom.json"
    write_json(manifest, read_json(manifest) | {"format": 2})
    champion.client.set_model_version_tag("toy", "1", versions.MANIFEST_TAG, sha256_file(manifest))
    with pytest.raises(InputError, match="format is 2; this runtime reads 1; update Stillroom here"):
        promotion.reconcile("toy", tracker=champion)
    assert versions.model(champion, "toy").champion == 1
    champion.client.set_model_version_tag("toy", "1", versions.MANIFEST_TAG, "0" * 64)
    assert promotion.reconcile("toy", tracker=champion).outcome == "damaged"


@pytest.mark.parametrize("trouble", [TryAgain("the store is down"), InputError("refused the credentials")])
def test_a_package_that_cannot_be_asked_for_is_no_flaw(
    champion: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def fetch(*_: object) -> Any:
        raise trouble

    with monkeypatch.context() as patched:
        patched.setattr(standing, "fetch", fetch)
        with pytest.raises(type(trouble), match=str(trouble)):
            promotion.reconcile("toy", tracker=champion)
    assert versions.model(champion, "toy").champion == 1
    assert promotion.reconcile("toy", tracker=champion).outcome == "in step"


def test_a_champion_and_its_twin_that_lost_their_tags_are_told_apart_by_their_packages(
    champion: tracking.Tracker,
) -> None:
    first = versions.get(champion, "toy", 1)
    assert first is not None
    genuine = {name: first.tags[name] for name in (versions.DIGEST_TAG, versions.GATE_TAG)}
    for name, value in genuine.items():
        champion.client.set_model_version_tag("toy", "3", name, value)
    edit(champion, 1, package_digest="f" * 64, gate_sha256="f" * 64)
    [last] = ledger.read("toy", ledger.default_store())
    assert standing.home(champion, "toy", last) == 1
    shutil.rmtree(package_of(champion, 1))
    assert standing.home(champion, "toy", last) is None


def test_a_champion_whose_tags_and_package_are_both_another_s_is_withdrawn(champion: tracking.Tracker) -> None:
    shutil.rmtree(package_of(champion, 1))
    shutil.copytree(package_of(champion, 3), package_of(champion, 1))
    third = versions.get(champion, "toy", 3)
    assert third is not None
    for name in (versions.DIGEST_TAG, versions.GATE_TAG, versions.MANIFEST_TAG):
        champion.client.set_model_version_tag("toy", "1", name, third.tags[name])
    assert promotion.reconcile("toy", tracker=champion).outcome == "moved back"
    assert versions.model(champion, "toy").champion is None
    assert promotion.reconcile("toy", tracker=champion).outcome == "unresolved"


def test_a_version_deleted_while_its_alias_was_looked_at_is_met(
    champion: tracking.Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = versions.get

    def delete_first(tracker: tracking.Tracker, name: str, number: int) -> Any:
        monkeypatch.setattr(versions, "get", get)
        champion.client.delete_model_version("toy", "1")
        return get(tracker, name, number)

    monkeypatch.setattr(versions, "get", delete_first)
    assert promotion.reconcile("toy", tracker=champion).champion is None
    assert promotion.reconcile("toy", tracker=champion).outcome == "unresolved"
