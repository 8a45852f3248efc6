"""The story in words: every entry on one line, and the reason why a version is live or is not."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError
from stillroom.registry import ledger, promotion, register, runs, story, tracking, versions
from stillroom.registry.story import Why

MakeRelease = Callable[..., Path]
HIGH = {"required": True, "because": "governance.ai_act is high", "four_eyes": True}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A day passes between any two entries."""
    times = iter(f"2026-01-{day:02d}T08:00:00+00:00" for day in range(1, 29))
    real = ledger.append
    monkeypatch.setattr(ledger, "append", lambda *a, **k: real(*a, **(k | {"time": next(times)})))
    return iter(())


def why(tracker: tracking.Tracker, version: int | None = None) -> Why:
    """Ask, and see that asking changes nothing."""

    def picture() -> Any:
        found = [versions.get(tracker, "toy", number) for number in range(1, 6)]
        return versions.model(tracker, "toy"), found, ledger.read("toy", ledger.default_store())

    before = picture()
    found = story.why("toy", version, tracker=tracker)
    assert picture() == before
    assert all("\n" not in line for line in found.told)
    return found


def told(tracker: tracking.Tracker, version: int | None = None) -> str:
    return "\n".join(why(tracker, version).told)


def lose_packages(state: Path) -> None:
    for manifest in list((state / "mlartifacts").rglob("stillroom.json")):
        shutil.rmtree(manifest.parent)


@pytest.mark.usefixtures("clock")
def test_history_tells_every_entry_on_a_line(registered: tracking.Tracker, run: runs.Run, tmp_path: Path) -> None:
    assert story.history("toy") == []
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    promotion.promote("toy", 2, "bob", "better\n   by \x1b[31mfar", tracker=registered)
    promotion.rollback("toy", "ada", "slow", tracker=registered)
    registered.client.set_registered_model_alias("toy", "champion", "4")
    promotion.reconcile("toy", tracker=registered)
    registered.client.delete_registered_model("toy")
    release = register.read_release(tmp_path / "releases" / "4", "static")
    register.register(registered, "toy", release, run, (), {})
    promotion.reconcile("toy", tracker=registered)
    steps = story.history("toy")
    assert [step.kind for step in steps] == ["first", "replaced", "returned", "replaced", "renumbered"]
    assert [step.told for step in steps] == [
        "   1  2026-01-01 08:00:00 UTC  version 1 became the first champion (ada: first)",
        "   2  2026-01-02 08:00:00 UTC  version 2 replaced version 1 (bob: better by [31mfar)",
        "   3  2026-01-03 08:00:00 UTC  version 1 came back in place of version 2 (ada: slow)",
        "   4  2026-01-04 08:00:00 UTC  version 4 replaced version 1 (mlflow-ui: the alias was moved by hand)",
        "   5  2026-01-05 08:00:00 UTC  version 4 goes by the number 1 from here "
        "(stillroom: the registry was rebuilt: version 4 is version 1 now)",
    ]
    assert story.as_json(steps[1])["reason"] == "better\n   by \x1b[31mfar"
    found = why(registered)
    assert (found.version, found.state, found.entry) == (1, "champion", steps[3].entry)


@pytest.mark.usefixtures("clock")
def test_the_champion_is_live_because_of_its_entry(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    promotion.promote("toy", 2, "bob", "better", tracker=registered)
    found = why(registered)
    assert (found.version, found.live, found.state, found.problem) == (2, True, "champion", None)
    assert found.told[0] == (
        "toy version 2 is live because bob made it champion at 2026-01-02 08:00:00 UTC (ledger entry 2): better"
    )
    assert "the gate said PASS" in found.told
    assert "  retention of accuracy 0.9900, bounds 0.9800 to 1.0000" in found.told
    assert any(line.startswith("its proof holds") for line in found.told)
    assert found.entry is not None
    assert found.package_digest == found.entry.package_digest
    assert any(found.package_digest in line for line in found.told)


@pytest.mark.usefixtures("clock")
def test_one_that_was_champion_is_told_with_its_end(registered: tracking.Tracker) -> None:
    for version, actor in ((1, "ada"), (2, "bob"), (1, "eve"), (4, "ada")):
        promotion.promote("toy", version, actor, f"for {version}", tracker=registered)
    found = why(registered, 1)
    assert (found.live, found.state) == (False, "replaced")
    assert found.told[0] == (
        "toy version 1 is not live because version 4 took its place at 2026-01-04 08:00:00 UTC (ledger entry 4, "
        "ada: for 4); before, eve made it champion at 2026-01-03 08:00:00 UTC (ledger entry 3): for 1"
    )


def test_one_that_did_not_pass_is_told_with_its_reasons(registered: tracking.Tracker) -> None:
    found = why(registered, 3)
    assert (found.live, found.state, found.problem) == (False, "not passed", None)
    assert "its gate verdict is FAIL; only PASS is promoted" in found.told[0]
    assert "  as the test wants it" in found.told
    assert "package and report are in the artefact store as they were registered" in found.told


def test_one_that_passed_and_was_never_made_champion(registered: tracking.Tracker) -> None:
    assert why(registered, 4).state == "passed"
    registered.client.set_registered_model_alias("toy", "champion", "3")
    promotion.reconcile("toy", tracker=registered)
    assert "made champion by hand since, and refused: toy version 3: its gate verdict is FAIL" in told(registered, 3)


def test_one_that_waits_for_approval_and_one_that_was_refused_it(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease
) -> None:
    for number in (1, 2):
        release = register.read_release(make_release(str(number), bias=number, approval=HIGH), "static")
        register.register(tracker, "toy", release, run, (), {versions.AUTHOR_TAG: "ada"})
    found = why(tracker, 1)
    assert found.state == "waits for approval"
    assert (
        "not live because it passed and waits for a person's approval (governance.ai_act is high): stillroom promote 1"
        in found.told[0]
    )
    assert "approved by nobody yet; author ada" in told(tracker, 1)
    tracker.client.set_registered_model_alias("toy", "champion", "2")
    promotion.reconcile("toy", tracker=tracker)
    found = why(tracker, 2)
    assert found.state == "refused"
    assert "made champion by hand and refused: toy version 2: needs a person's approval" in found.told[0]
    promotion.promote("toy", 2, "bob", "looked at it", tracker=tracker)
    assert why(tracker).state == "champion"
    assert "by another than its author (governance.ai_act is high): approved by bob; author ada" in told(tracker)


def test_a_champion_whose_package_was_damaged_is_live_without_its_proof(
    registered: tracking.Tracker, state: Path
) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    lose_packages(state)
    found = why(registered)
    assert (found.live, found.state) == (True, "champion")
    assert found.problem is not None
    assert "its tags say PASS" in found.told
    assert "  retention of accuracy 0.9900, bounds 0.9800 to 1.0000" in found.told
    assert f"its proof does not hold now: {found.problem}" in found.told
    assert why(registered, 4).state == "damaged"


@pytest.mark.usefixtures("clock")
def test_a_champion_that_was_withdrawn_is_told_as_damaged(registered: tracking.Tracker, state: Path) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    shutil.copytree(state / "mlartifacts", state / "kept")
    lose_packages(state)
    assert promotion.reconcile("toy", tracker=registered).outcome == "damaged"
    found = why(registered)
    assert (found.version, found.live, found.state) == (1, False, "damaged")
    assert found.told[0] == (
        "toy version 1 is not live because its proof does not hold now; there is no champion until its package is "
        "restored or another version is promoted; before, ada made it champion at 2026-01-01 08:00:00 UTC "
        "(ledger entry 1): first"
    )
    assert found.told[-1].startswith("it was found damaged, and the alias champion was taken from it: version 1 is dam")
    assert "by hand" not in told(registered)
    shutil.copytree(state / "kept", state / "mlartifacts", dirs_exist_ok=True)
    promotion.promote("toy", 2, "bob", "next", tracker=registered)
    assert why(registered, 1).state == "replaced"
    assert "by hand" not in told(registered, 1)


def test_tags_that_are_no_numbers_are_left_out(registered: tracking.Tracker, state: Path) -> None:
    registered.client.set_model_version_tag("toy", "1", "retention.accuracy.lower", "much")
    lose_packages(state)
    assert "  retention of accuracy 0.9900, bounds ? to 1.0000" in why(registered, 1).told


def test_an_alias_out_of_step_is_told_on_both_sides(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    registered.client.set_registered_model_alias("toy", "champion", "2")
    moved, left = why(registered), why(registered, 1)
    assert (moved.version, moved.live, moved.state) == (2, True, "out of step")
    assert "moved here past the ledger, whose last entry is 1" in moved.told[0]
    assert (left.live, left.state) == (False, "out of step")
    assert "not live because the alias champion stands at version 2, though ada made it champion" in left.told[0]
    registered.client.delete_registered_model_alias("toy", "champion")
    assert "the alias champion is gone, though ada made it champion" in why(registered).told[0]


def test_what_is_not_there_is_wrong_input(registered: tracking.Tracker) -> None:
    with pytest.raises(InputError, match="toy: has no champion in sqlite"):
        why(registered)
    with pytest.raises(InputError, match="toy: has no version 9 in sqlite"):
        why(registered, 9)


def test_a_ledger_that_does_not_hold_together_tells_nothing(registered: tracking.Tracker, state: Path) -> None:
    for version in (1, 2):
        promotion.promote("toy", version, "ada", "why", tracker=registered)
    path = state / "ledger/toy/00000001.json"
    path.write_text(path.read_text().replace("ada", "eve"))
    for ask in (lambda: story.history("toy"), lambda: story.why("toy", tracker=registered)):
        with pytest.raises(InputError, match=r"ledger toy/00000002\.json: does not follow from entry 1"):
            ask()
