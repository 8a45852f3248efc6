"""Approval: nobody but a named person moves the champion where the gate report asks for one."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import GateRefused
from stillroom.export.package import relist
from stillroom.files import read_json, write_json
from stillroom.gate.approval import Approval
from stillroom.registry import approval, ledger, promotion, register, runs, tracking, versions
from stillroom.registry.ledger import Entry
from stillroom.registry.proof import Proof
from stillroom.storage import Folder
from tests.registry.conftest import cut_off

MakeRelease = Callable[..., Path]
HIGH = {"required": True, "because": "governance.ai_act is high", "four_eyes": False}
EYES = {"required": True, "because": "gate.four_eyes is true", "four_eyes": True}


def entries() -> list[Entry]:
    return ledger.read("toy", ledger.default_store())


def champion(tracker: tracking.Tracker) -> int | None:
    return versions.model(tracker, "toy").champion


def tags(tracker: tracking.Tracker, version: int) -> dict[str, str]:
    found = versions.get(tracker, "toy", version)
    assert found is not None
    return dict(found.tags)


def move_by_hand(tracker: tracking.Tracker, version: int, approver: str | None = None) -> str:
    """Move the alias, with the tag if an approver is given, and let it be met."""
    if approver is not None:
        tracker.client.set_model_version_tag("toy", str(version), versions.APPROVER_TAG, approver)
    tracker.client.set_registered_model_alias("toy", "champion", str(version))
    return promotion.reconcile("toy", tracker=tracker).outcome


@pytest.fixture
def guarded(tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease) -> tracking.Tracker:
    """Versions of `toy` that passed: 1 needs nobody, 2 a person, 3 and 4 four eyes, where 4 has no author."""
    asked = ({}, HIGH, EYES, EYES)
    for number, what in enumerate(asked, start=1):
        folder = make_release(str(number), bias=number / 10, approval=what)
        author = {versions.AUTHOR_TAG: " Ada "} if number != 4 else {}
        assert register.register(tracker, "toy", register.read_release(folder, "static"), run, (), author) == number
    return tracker


def refused(tracker: tracking.Tracker, version: int, actor: str) -> str:
    """What a promotion that is refused says; nothing has changed by it."""
    before = (entries(), champion(tracker), tags(tracker, version))
    with pytest.raises(GateRefused) as error:
        promotion.promote("toy", version, actor, "why", tracker=tracker)
    assert (entries(), champion(tracker), tags(tracker, version)) == before
    return str(error.value)


@pytest.mark.parametrize("nobody", [approval.RUN, approval.ITSELF, approval.BY_HAND, " MLflow-UI "])
def test_what_runs_by_itself_approves_nothing(guarded: tracking.Tracker, nobody: str) -> None:
    told = refused(guarded, 2, nobody)
    assert "toy version 2: needs a person's approval (governance.ai_act is high)" in told
    assert f"{nobody.strip()} is no person" in told
    assert promotion.promote("toy", 1, nobody, "it asks for nobody", tracker=guarded).actor == nobody


def test_the_actor_of_a_promotion_is_the_approver_and_is_told_at_the_version(guarded: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=guarded)
    assert versions.APPROVER_TAG not in tags(guarded, 1)
    entry = promotion.promote("toy", 2, " bob ", "looked at it", tracker=guarded)
    assert (entry.actor, champion(guarded)) == (" bob ", 2)
    assert tags(guarded, 2)[versions.APPROVER_TAG] == "bob"


@pytest.mark.parametrize("approver", ["Ada", "ada", "  ADA\t"])
def test_four_eyes_are_not_the_author_twice(guarded: tracking.Tracker, approver: str) -> None:
    assert "by another than its author Ada" in refused(guarded, 3, approver)


def test_four_eyes_need_an_author_that_is_known(guarded: tracking.Tracker) -> None:
    assert "who is not known (it has no tag author)" in refused(guarded, 4, "bob")
    assert promotion.promote("toy", 3, "bob", "looked at it", tracker=guarded).to_version == 3


def test_rollback_asks_for_the_same(guarded: tracking.Tracker) -> None:
    promotion.promote("toy", 3, "bob", "good", tracker=guarded)
    promotion.promote("toy", 1, "ada", "better", tracker=guarded)
    before = entries()
    with pytest.raises(GateRefused, match="by another than its author"):
        promotion.rollback("toy", "ada", "slow", tracker=guarded)
    with pytest.raises(GateRefused, match="is no person"):
        promotion.rollback("toy", approval.RUN, "slow", version=2, tracker=guarded)
    assert (entries(), champion(guarded)) == (before, 1)
    assert promotion.rollback("toy", "bob", "slow", tracker=guarded).to_version == 3


@pytest.mark.parametrize(
    ("version", "approver", "outcome"),
    [
        (2, None, "moved back"),
        (2, "  ", "moved back"),
        (2, "stillroom run", "moved back"),
        (2, "bob", "adopted"),
        (3, "ada", "moved back"),
        (3, " bob ", "adopted"),
        (4, "bob", "moved back"),
    ],
)
def test_a_move_by_hand_needs_the_tag(
    guarded: tracking.Tracker, version: int, approver: str | None, outcome: str
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=guarded)
    assert move_by_hand(guarded, version, approver) == outcome
    if outcome == "adopted":
        last = entries()[-1]
        assert (last.actor, last.to_version, champion(guarded)) == ("mlflow-ui", version, version)
        assert last.reason == "the alias was moved by hand, approved by bob (tag approval.by)"
    else:
        assert (len(entries()), champion(guarded)) == (1, 1)
        assert "needs a person's approval" in tags(guarded, version)[versions.REFUSED_TAG]


def test_a_version_that_was_refused_and_is_approved_is_refused_no_longer(guarded: tracking.Tracker) -> None:
    for approve in (lambda: promotion.promote("toy", 2, "bob", "ok", tracker=guarded), None):
        assert move_by_hand(guarded, 2 if approve else 3) == "moved back"
        if approve:
            approve()
        else:
            assert move_by_hand(guarded, 3, "bob") == "adopted"
        assert versions.REFUSED_TAG not in tags(guarded, champion(guarded) or 0)


def test_an_entry_that_was_written_is_healed_without_a_second_approval(
    guarded: tracking.Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=guarded)

    with cut_off(monkeypatch, promotion, "_project"):
        promotion.promote("toy", 2, "bob", "second", tracker=guarded)
    done = promotion.reconcile("toy", tracker=guarded)
    assert (done.outcome, champion(guarded), len(entries())) == ("healed", 2, 2)


@pytest.mark.parametrize("first", [None, 1])
def test_a_promotion_of_another_machine_is_not_taken_for_a_move_by_hand(
    guarded: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, first: int | None
) -> None:
    """It has moved the alias, and not told of the approval yet; the ledger was read just before its entry."""
    if first:
        promotion.promote("toy", first, "ada", "first", tracker=guarded)
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "_mark_applied", lambda *_: None)
        patched.setattr(approval, "sign", lambda *_: None)
        promotion.promote("toy", 2, "bob", "looked at it", tracker=guarded)
    before = tags(guarded, 2)

    class Stale(Folder):
        """Gives the ledger without its last entry, once."""

        reads = 0

        def names(self, prefix: str = "") -> Any:
            self.reads += 1
            found = list(super().names(prefix))
            return found[:-1] if self.reads == 1 else found

    store = Stale(Path(ledger.default_store().where))
    assert promotion.reconcile("toy", tracker=guarded, store=store).outcome == "in step"
    assert (champion(guarded), tags(guarded, 2)) == (2, before)


@pytest.mark.parametrize(("again", "told"), [("bob", "bob"), ("eve", "bob")])
def test_an_approval_that_a_crash_kept_from_its_version_is_told_by_the_next_promotion(
    guarded: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, again: str, told: str
) -> None:
    with cut_off(monkeypatch, approval, "sign"):
        promotion.promote("toy", 3, "bob", "looked at it", tracker=guarded)
    assert (champion(guarded), versions.APPROVER_TAG in tags(guarded, 3)) == (3, False)
    for _ in range(2):
        promotion.promote("toy", 3, again, "again", tracker=guarded)
        assert (len(entries()), tags(guarded, 3)[versions.APPROVER_TAG]) == (1, told)


def test_an_edited_gate_report_lifts_nothing(guarded: tracking.Tracker) -> None:
    root = guarded.client.get_model_version_download_uri("toy", "2").removeprefix("file://")
    folder = Path(root) / "artifacts/package"
    report = read_json(folder / "gate.json")
    write_json(folder / "gate.json", {name: value for name, value in report.items() if name != "approval"})
    relist(folder, read_json(folder / "stillroom.json"))
    assert "was registered; register the package again" in refused(guarded, 2, approval.RUN)


@pytest.mark.parametrize("told", ["auto", {"required": "false"}, {"needed": False}])
def test_a_report_whose_approval_cannot_be_read_is_refused(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease, told: Any
) -> None:
    release = register.read_release(make_release("odd", approval=told), "static")
    assert register.register(tracker, "toy", release, run, (), {}) == 1
    assert "its gate report says of approval" in refused(tracker, 1, "bob")


def test_the_author_is_the_user_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(approval.AUTHOR_VARIABLE, raising=False)
    assert approval.author() == getpass.getuser()
    monkeypatch.setenv(approval.AUTHOR_VARIABLE, " Ada ")
    assert approval.author() == "Ada"
    monkeypatch.setenv(approval.AUTHOR_VARIABLE, "  ")

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert approval.author() == ""


def test_names_are_compared_whatever_their_script() -> None:
    proof = Proof(1, "d", "g", Approval(required=True, four_eyes=True), {versions.AUTHOR_TAG: "Jörg Strauß"})
    with pytest.raises(GateRefused):
        approval.agree("toy", proof, "JÖRG STRAUSS")
    approval.agree("toy", proof, "Jörn Strauß")
