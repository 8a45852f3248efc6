"""The champion: moved with proof only, recorded first, and in step again after crashes and moves by hand."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import GateRefused, InputError, TryAgain
from stillroom.export.package import relist
from stillroom.files import read_json, write_json
from stillroom.registry import ledger, promotion, proof, register, runs, tracking, versions
from stillroom.registry.ledger import Entry
from stillroom.storage import Folder
from tests.fault.proxy import ALWAYS, serving
from tests.registry.conftest import cut_off, flip_a_byte, replace_by_another

MakeRelease = Callable[..., Path]


def entries() -> list[Entry]:
    return ledger.read("toy", ledger.default_store())


def champion(tracker: tracking.Tracker) -> int | None:
    return versions.model(tracker, "toy").champion


def move_by_hand(tracker: tracking.Tracker, version: int) -> None:
    tracker.client.set_registered_model_alias("toy", "champion", str(version))


def package_of(tracker: tracking.Tracker, version: int) -> Path:
    """The package folder of a version in the artefact store."""
    root = tracker.client.get_model_version_download_uri("toy", str(version))
    return Path(root.removeprefix("file://")) / "artifacts/package"


def test_promotion_writes_an_entry_and_moves_the_alias(registered: tracking.Tracker) -> None:
    entry = promotion.promote("toy", 1, "ada", "first", tracker=registered)
    version = versions.get(registered, "toy", 1)
    assert version is not None
    assert champion(registered) == 1
    assert entries() == [entry]
    assert (entry.sequence, entry.from_version, entry.to_version) == (1, None, 1)
    assert (entry.actor, entry.reason) == ("ada", "first")
    assert version.holds(entry.package_digest, entry.gate_report_sha256)
    second = promotion.promote("toy", 2, "ada", "second", tracker=registered)
    assert (second.from_version, second.to_version, champion(registered)) == (1, 2, 2)


def test_promoting_the_champion_again_changes_nothing(registered: tracking.Tracker) -> None:
    first = promotion.promote("toy", 1, "ada", "first", tracker=registered)
    assert promotion.promote("toy", 1, "bob", "again", tracker=registered) == first
    assert len(entries()) == 1


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("ada", " ")])
def test_promotion_needs_actor_and_reason(registered: tracking.Tracker, actor: str, reason: str) -> None:
    with pytest.raises(InputError, match="give both"):
        promotion.promote("toy", 1, actor, reason, tracker=registered)
    assert (entries(), champion(registered)) == ([], None)


def test_failed_version_is_refused(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    with pytest.raises(GateRefused, match="verdict is FAIL"):
        promotion.promote("toy", 3, "ada", "please", tracker=registered)
    assert (len(entries()), champion(registered)) == (1, 1)


@pytest.mark.parametrize("model", ["toy", "unheard-of"])
def test_unknown_version_is_wrong_input(registered: tracking.Tracker, model: str) -> None:
    with pytest.raises(InputError, match="has no version 99"):
        promotion.promote(model, 99, "ada", "why", tracker=registered)


def rewrite_the_verdict(folder: Path, other: Path) -> None:
    report = read_json(folder / "gate.json")
    write_json(folder / "gate.json", report | {"reasons": ["rewritten"]})
    relist(folder, read_json(folder / "stillroom.json"))


def drop_the_gate_report(folder: Path, other: Path) -> None:
    (folder / "gate.json").unlink()
    relist(folder, read_json(folder / "stillroom.json"))


def remove_everything(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "tamper",
    [
        replace_by_another,
        flip_a_byte,
        rewrite_the_verdict,
        drop_the_gate_report,
        remove_everything,
    ],
)
def test_package_changed_in_the_artefact_store_is_refused(
    registered: tracking.Tracker, tamper: Callable[[Path, Path], None]
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    tamper(package_of(registered, 2), package_of(registered, 4))
    with pytest.raises(GateRefused, match="toy version 2"):
        promotion.promote("toy", 2, "ada", "why", tracker=registered)
    assert (len(entries()), champion(registered)) == (1, 1)


def test_tag_that_says_pass_is_no_proof(registered: tracking.Tracker) -> None:
    registered.client.set_model_version_tag("toy", "3", versions.VERDICT_TAG, "PASS")
    with pytest.raises(GateRefused, match="verdict is FAIL"):
        promotion.promote("toy", 3, "mallory", "tags lie", tracker=registered)


def test_pass_for_another_package_is_refused(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease
) -> None:
    folder = make_release("borrowed", verdict="FAIL")
    release = register.read_release(folder, "borrowed")
    write_json(folder / "gate.json", {"verdict": "PASS", "package_digest": "of another package"})
    manifest = relist(folder, read_json(folder / "stillroom.json"))
    forged = register.Release("borrowed", folder, manifest, release.gate, manifest["files"]["gate.json"])
    assert register.register(tracker, "toy", forged, run, (), {}) == 1
    with pytest.raises(GateRefused, match="about package of another package"):
        promotion.promote("toy", 1, "mallory", "why", tracker=tracker)


def test_rollback_steps_back_again_and_again(registered: tracking.Tracker) -> None:
    for version in (1, 2, 4):
        promotion.promote("toy", version, "ada", "better", tracker=registered)
    assert promotion.rollback("toy", "ada", "slow in production", tracker=registered).to_version == 2
    entry = promotion.rollback("toy", "ada", "still slow", tracker=registered)
    assert (entry.from_version, entry.to_version, entry.reason) == (2, 1, "still slow")
    assert champion(registered) == 1
    with pytest.raises(InputError, match="nothing to roll back to"):
        promotion.rollback("toy", "ada", "once more", tracker=registered)
    promotion.promote("toy", 4, "ada", "repaired", tracker=registered)
    assert promotion.rollback("toy", "ada", "no", tracker=registered).to_version == 1


def test_rollback_to_a_given_version_needs_its_proof(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    with pytest.raises(GateRefused):
        promotion.rollback("toy", "ada", "why", version=3, tracker=registered)
    assert promotion.rollback("toy", "ada", "why", version=4, tracker=registered).to_version == 4


def test_exception_between_entry_and_alias_is_healed(
    registered: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)

    with cut_off(monkeypatch, promotion, "_project"):
        promotion.promote("toy", 2, "ada", "second", tracker=registered)
    assert (len(entries()), champion(registered)) == (2, 1)
    with caplog.at_level(logging.WARNING, logger="stillroom"):
        done = promotion.reconcile("toy", tracker=registered)
    assert (done.outcome, done.champion, champion(registered)) == ("healed", 2, 2)
    assert "cut short" in caplog.text
    assert promotion.reconcile("toy", tracker=registered).outcome == "in step"
    assert len(entries()) == 2


def test_promotion_after_a_crash_heals_first(registered: tracking.Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "_project", lambda *_: None)
        promotion.promote("toy", 1, "ada", "lost", tracker=registered)
    entry = promotion.promote("toy", 2, "ada", "second", tracker=registered)
    assert (entry.sequence, entry.from_version, champion(registered)) == (2, 1, 2)


def test_lost_entry_is_tried_again(registered: tracking.Tracker) -> None:
    root = Path(ledger.default_store().where)

    class Late(Folder):
        """Another machine writes an entry just before ours."""

        lost = 0

        def create(self, name: str, content: bytes) -> bool:
            if not self.lost:
                self.lost += 1
                proof = promotion.prove(registered, "toy", 2)
                other = Folder(root)
                assert promotion._append("toy", other, ledger.read("toy", other), proof, "other", "first")
            return super().create(name, content)

    entry = promotion.promote("toy", 1, "ada", "why", tracker=registered, store=Late(root))
    assert [(each.actor, each.to_version) for each in entries()] == [("other", 2), ("ada", 1)]
    assert (entry.sequence, entry.from_version, champion(registered)) == (2, 2, 1)


def test_a_ledger_in_a_store_that_ignores_conditions_is_refused_before_its_first_entry(
    registered: tracking.Tracker, s3: tuple[Any, str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = s3
    monkeypatch.setenv(ledger.LEDGER_VARIABLE, f"s3://{bucket}/ledger")
    with serving(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fail("ignore the condition", ALWAYS, method="PUT")
        with pytest.raises(InputError, match="the server ignores If-None-Match"):
            promotion.promote("toy", 1, "ada", "first", tracker=registered)
        move_by_hand(registered, 2)
        with pytest.raises(InputError, match="the server ignores If-None-Match"):
            promotion.reconcile("toy", tracker=registered)
        assert client.list_objects_v2(Bucket=bucket).get("KeyCount") == 0
        proxy.heal()
        assert promotion.promote("toy", 1, "ada", "first", tracker=registered).to_version == 1
        assert [(entry.sequence, entry.to_version) for entry in entries()] == [(1, 2), (2, 1)]


@pytest.mark.parametrize("times", [1, 3])
def test_alias_that_another_machine_inserts_at_the_same_moment_is_set_again(
    registered: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What two first promotions at once meet in MLflow on PostgreSQL: a look for the row, an insert that is late."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    set_alias, failures = registered.client.set_registered_model_alias, []

    def late(*args: str) -> None:
        if len(failures) < times:
            failures.append(args)
            told = 'duplicate key value violates unique constraint "registered_model_alias_pk"'
            raise MlflowException(told, error_code=BAD_REQUEST)
        set_alias(*args)

    monkeypatch.setattr(registered.client, "set_registered_model_alias", late)
    if times == 1:
        assert promotion.promote("toy", 1, "ada", "first", tracker=registered).sequence == 1
        assert champion(registered) == 1
        return
    with pytest.raises(TryAgain, match="duplicate key"):
        promotion.promote("toy", 1, "ada", "first", tracker=registered)
    assert promotion.reconcile("toy", tracker=registered).outcome == "healed"


def test_move_by_hand_to_a_version_that_passed_is_adopted(
    registered: tracking.Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    move_by_hand(registered, 2)
    done = promotion.reconcile("toy", tracker=registered)
    assert (done.outcome, champion(registered)) == ("adopted", 2)
    last = entries()[-1]
    assert (last.actor, last.from_version, last.to_version) == ("mlflow-ui", 1, 2)
    assert "by hand" in caplog.text


def test_move_by_hand_to_a_failed_version_is_undone(
    registered: tracking.Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    move_by_hand(registered, 3)
    done = promotion.reconcile("toy", tracker=registered)
    assert (done.outcome, champion(registered), len(entries())) == ("moved back", 1, 1)
    refused = versions.get(registered, "toy", 3)
    assert refused is not None
    assert "verdict is FAIL" in refused.tags[versions.REFUSED_TAG]
    assert "refused" in caplog.text


def test_move_by_hand_to_a_tampered_package_is_undone(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    flip_a_byte(package_of(registered, 2), Path())
    move_by_hand(registered, 2)
    assert promotion.reconcile("toy", tracker=registered).outcome == "moved back"
    assert champion(registered) == 1


def test_alias_removed_by_hand_is_put_back(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    registered.client.delete_registered_model_alias("toy", "champion")
    assert promotion.reconcile("toy", tracker=registered).outcome == "moved back"
    assert (champion(registered), len(entries())) == (1, 1)


@pytest.mark.parametrize(("version", "outcome", "after"), [(2, "adopted", 2), (3, "moved back", None)])
def test_alias_set_by_hand_before_any_promotion(
    registered: tracking.Tracker, version: int, outcome: str, after: int | None
) -> None:
    move_by_hand(registered, version)
    assert promotion.reconcile("toy", tracker=registered).outcome == outcome
    assert champion(registered) == after
    assert len(entries()) == (1 if after else 0)


def test_deleted_champion_leaves_no_champion_until_the_next(
    registered: tracking.Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    registered.client.delete_model_version("toy", "1")
    assert promotion.reconcile("toy", tracker=registered).outcome == "unresolved"
    assert "not in the registry" in caplog.text
    assert promotion.promote("toy", 2, "ada", "next", tracker=registered).sequence == 2
    assert champion(registered) == 2


def test_rebuilt_registry_finds_its_champion_under_another_number(
    registered: tracking.Tracker, run: runs.Run, tmp_path: Path
) -> None:
    promotion.promote("toy", 2, "ada", "first", tracker=registered)
    registered.client.delete_registered_model("toy")
    for number, name in enumerate(("4", "1", "2"), start=1):
        release = register.read_release(tmp_path / "releases" / name, "static")
        assert register.register(registered, "toy", release, run, (), {}) == number
    done = promotion.reconcile("toy", tracker=registered)
    assert (done.outcome, champion(registered)) == ("rebuilt", 3)
    assert [(entry.from_version, entry.to_version) for entry in entries()] == [(None, 2), (2, 3)]
    assert promotion.reconcile("toy", tracker=registered).outcome == "in step"


def rebuild(tracker: tracking.Tracker, run: runs.Run, releases: Path, *names: str) -> None:
    """Delete the model and register these releases of it as versions 1, 2, …"""
    tracker.client.delete_registered_model("toy")
    for number, name in enumerate(names, start=1):
        release = register.read_release(releases / name, "static")
        assert register.register(tracker, "toy", release, run, (), {}) == number


def test_another_package_under_the_champion_s_number_is_promoted(
    registered: tracking.Tracker, run: runs.Run, tmp_path: Path
) -> None:
    first = promotion.promote("toy", 1, "ada", "first", tracker=registered)
    rebuild(registered, run, tmp_path / "releases", "2")
    entry = promotion.promote("toy", 1, "bob", "another", tracker=registered)
    assert (entry.sequence, entry.actor, champion(registered)) == (2, "bob", 1)
    assert entry.evidence != first.evidence
    assert promotion.reconcile("toy", tracker=registered).outcome == "in step"
    assert promotion.promote("toy", 1, "eve", "again", tracker=registered) == entry


def test_rollback_in_a_rebuilt_registry_goes_to_the_package_before(
    registered: tracking.Tracker, run: runs.Run, tmp_path: Path
) -> None:
    first = promotion.promote("toy", 1, "ada", "first", tracker=registered)
    promotion.promote("toy", 4, "ada", "better", tracker=registered)
    rebuild(registered, run, tmp_path / "releases", "4", "1")
    assert promotion.reconcile("toy", tracker=registered).outcome == "rebuilt"
    entry = promotion.rollback("toy", "ada", "slow", tracker=registered)
    assert (entry.from_version, entry.to_version, entry.evidence) == (1, 2, first.evidence)
    assert champion(registered) == 2
    with pytest.raises(InputError, match="nothing to roll back to"):
        promotion.rollback("toy", "ada", "once more", tracker=registered)


def test_rollback_to_what_the_registry_has_no_more_is_wrong_input(
    registered: tracking.Tracker, run: runs.Run, tmp_path: Path
) -> None:
    for version in (1, 4):
        promotion.promote("toy", version, "ada", "why", tracker=registered)
    rebuild(registered, run, tmp_path / "releases", "2", "4")
    with pytest.raises(InputError, match="what entry 1 promoted is not in the registry; name a version"):
        promotion.rollback("toy", "ada", "slow", tracker=registered)


def foreign(tracker: tracking.Tracker, source: str, **tags: str) -> int:
    """A version that nothing of Stillroom made; its number."""
    store = tracker.client._get_registry_client().store
    from mlflow.entities.model_registry import ModelVersionTag

    listed = [ModelVersionTag(name.replace("_", "."), value) for name, value in tags.items()]
    return int(store.create_model_version("toy", source, tags=listed).version)


@pytest.mark.parametrize("source", ["runs:/0123456789abcdef0123456789abcdef/model", "nowhere://x/y", "file:///x"])
def test_move_by_hand_to_a_version_of_others_is_undone(registered: tracking.Tracker, source: str) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    number = foreign(registered, source)
    with pytest.raises(GateRefused, match=f"toy version {number}: was not registered by Stillroom"):
        promotion.promote("toy", number, "ada", "why", tracker=registered)
    move_by_hand(registered, number)
    assert promotion.reconcile("toy", tracker=registered).outcome == "moved back"
    assert (champion(registered), len(entries())) == (1, 1)


def test_version_whose_files_mlflow_does_not_know_is_refused(registered: tracking.Tracker) -> None:
    number = foreign(registered, "runs:/0123456789abcdef0123456789abcdef/model", package_manifest_sha256="0" * 64)
    with pytest.raises(GateRefused, match=f"toy version {number}: MLflow does not know its files"):
        promotion.promote("toy", number, "ada", "why", tracker=registered)


def test_version_of_others_under_the_champion_s_number_blocks_nothing(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    registered.client.delete_registered_model("toy")
    registered.client.create_registered_model("toy")
    move_by_hand(registered, foreign(registered, "nowhere://x/y"))
    assert promotion.reconcile("toy", tracker=registered).outcome == "moved back"
    assert champion(registered) is None


@pytest.mark.parametrize("trouble", [InputError("needs the Python module boto3"), TryAgain("the store is down")])
def test_good_move_by_hand_whose_package_cannot_be_asked_for_is_left_alone(
    registered: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    move_by_hand(registered, 2)
    fetch = proof.fetch

    def fetch_first(tracker: tracking.Tracker, model: str, version: int, scratch: Path) -> Path:
        if version == 2:
            raise trouble
        return fetch(tracker, model, version, scratch)

    with monkeypatch.context() as patched:
        patched.setattr(proof, "fetch", fetch_first)
        for act in (
            lambda: promotion.reconcile("toy", tracker=registered),
            lambda: promotion.promote("toy", 2, "ada", "why", tracker=registered),
        ):
            with pytest.raises(type(trouble), match=str(trouble)):
                act()
    second = versions.get(registered, "toy", 2)
    assert second is not None
    assert versions.REFUSED_TAG not in second.tags
    assert champion(registered) == 2
    assert promotion.reconcile("toy", tracker=registered).outcome == "adopted"


def test_nothing_to_reconcile(tracker: tracking.Tracker) -> None:
    assert promotion.reconcile("toy", tracker=tracker) == promotion.Reconciled("in step", None)


def edit_the_last_entry(root: Path, **changes: object) -> None:
    """Change an entry that no other follows, in the form in which it was written."""
    path = root / "toy/00000002.json"
    path.write_bytes(ledger.encoded(dataclasses.replace(entries()[-1], **changes)))  # type: ignore[arg-type]


TAMPERED: dict[str, Callable[[Path], None]] = {
    "last one removed": lambda root: (root / "toy/00000002.json").unlink(),
    "all removed": shutil.rmtree,
    **{
        f"{field} of the last one edited": lambda root, field=field, value=value: edit_the_last_entry(  # type: ignore[misc]
            root, **{field: value}
        )
        for field, value in {
            "to_version": 4,
            "actor": "mallory",
            "reason": "another",
            "gate_report_sha256": "0" * 64,
            "package_digest": "0" * 64,
            "time": "2000-01-01T00:00:00+00:00",
        }.items()
    },
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_end_of_the_ledger_that_the_alias_followed_cannot_be_changed(
    registered: tracking.Tracker, tampered: str
) -> None:
    for version in (1, 2):
        promotion.promote("toy", version, "ada", "why", tracker=registered)
    root = Path(ledger.default_store().where)
    kept = shutil.copytree(root, root.parent / "backup")
    TAMPERED[tampered](root)
    for act in (
        lambda: promotion.reconcile("toy", tracker=registered),
        lambda: promotion.promote("toy", 4, "ada", "why", tracker=registered),
    ):
        with pytest.raises(InputError, match=r"ledger toy/00000002\.json: (missing|changed) in .* set it to [012]$"):
            act()
    assert champion(registered) == 2
    shutil.copytree(kept, root, dirs_exist_ok=True)
    assert promotion.reconcile("toy", tracker=registered).outcome == "in step"


def test_tag_from_before_digests_were_kept_is_completed(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "why", tracker=registered)
    registered.client.set_registered_model_tag("toy", versions.APPLIED_TAG, "1")
    assert promotion.reconcile("toy", tracker=registered).outcome == "in step"
    assert versions.model(registered, "toy").applied.sha256 == ledger.digest(entries()[0])
