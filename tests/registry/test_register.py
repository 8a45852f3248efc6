"""Versions: one per package and gate report, with everything that proves it in its tags."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.registry import register, runs, tracking, versions

MakeRelease = Callable[..., Path]


def test_same_release_keeps_its_version(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease, state: Path
) -> None:
    release = register.read_release(make_release("a"), "a")
    first = register.register(tracker, "toy", release, run, (), {})
    again = register.register(tracker, "toy", register.read_release(make_release("copy"), "a"), run, (), {})
    assert (first, again) == (1, 1)
    assert len(list((state / "mlartifacts/models").iterdir())) == 1


def test_another_gate_report_makes_another_version(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease
) -> None:
    strict = register.read_release(make_release("strict", verdict="FAIL"), "a")
    loose = register.read_release(make_release("loose", verdict="PASS"), "a")
    assert strict.digest == loose.digest
    assert [register.register(tracker, "toy", each, run, (), {}) for each in (strict, loose)] == [1, 2]


def test_version_says_what_it_is(tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease) -> None:
    release = register.read_release(make_release("a", lower=0.9731), "a")
    number = register.register(tracker, "toy", release, run, (), {"stillroom.run": "r"})
    version = versions.get(tracker, "toy", number)
    assert version is not None
    assert version.run_id == run.run_id
    told = dict(version.tags)
    assert int(told.pop("size_bytes")) > 0
    assert len(told.pop(versions.MANIFEST_TAG)) == 64
    assert told == {
        "gate.verdict": "PASS",
        "gate.sha256": release.gate_sha256,
        "package.digest": release.digest,
        "retention.accuracy.point": "0.99",
        "retention.accuracy.lower": "0.9731",
        "retention.accuracy.upper": "1",
        "student": "a",
        "family": "static",
        "quantisation": "dynamic_int8",
        "params": "10",
        "data.sha256": "d" * 64,
        "teacher.sha256": "t" * 64,
        "cache.sha256": "c" * 64,
        "code.sha256": "e" * 64,
        "lock.sha256": "f" * 64,
        "stillroom.run": "r",
    }
    assert tracker.client.get_model_version("toy", str(number)).description == "# a\n"


def test_long_card_is_cut(tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease) -> None:
    from stillroom.export.package import relist

    folder = make_release("a")
    (folder / "MODEL_CARD.md").write_text("x" * 6000, encoding="utf-8")
    relist(folder, read_json(folder / "stillroom.json"))
    number = register.register(tracker, "toy", register.read_release(folder, "a"), run, (), {})
    description = tracker.client.get_model_version("toy", str(number)).description
    assert len(description) == 5000
    assert description.endswith("…")


def test_a_card_that_tells_more_of_the_same_package_becomes_the_description(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillroom.export.package import relist

    first = register.read_release(make_release("before"), "a")
    number = register.register(tracker, "toy", first, run, (), {})
    tags = tracker.client.get_model_version("toy", str(number)).tags
    folder = make_release("after")
    card = "---\nlicense: other\n---\n\n# a\n\n| owner | letters |\n---\n"
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    relist(folder, read_json(folder / "stillroom.json"))
    again = register.read_release(folder, "a")
    assert register.register(tracker, "toy", again, run, (), {}) == number
    version = tracker.client.get_model_version("toy", str(number))
    assert version.description == "# a\n\n| owner | letters |\n---\n"
    assert version.tags == tags, "what was registered stays what it was"
    monkeypatch.setattr(tracker.client, "update_model_version", None)
    assert register.register(tracker, "toy", again, run, (), {}) == number


def test_figures_of_the_run_stand_on_the_model_page_and_are_not_doubled(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease
) -> None:
    points = [runs.Point("accuracy", 0.9)]
    runs.log(tracker, run, points=points)
    register.register(tracker, "toy", register.read_release(make_release("a"), "a"), run, points, {})
    assert len(tracker.client.get_metric_history(run.run_id, "accuracy")) == 1
    [model] = tracker.client.search_logged_models([run.experiment_id])
    assert [(metric.key, metric.value) for metric in model.metrics] == [("accuracy", 0.9)]
    assert model.source_run_id == run.run_id
    assert str(model.status) == "READY"


def test_half_logged_model_is_marked_failed_and_no_version(
    tracker: tracking.Tracker, run: runs.Run, make_release: MakeRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracker.client, "log_model_artifacts", full)
    release = register.read_release(make_release("a"), "a")
    with pytest.raises(tracking.TryAgain, match="free some space"):
        register.register(tracker, "toy", release, run, (), {})
    [model] = tracker.client.search_logged_models([run.experiment_id])
    assert str(model.status) == "FAILED"
    assert versions.find(tracker, "toy", release.digest, release.gate_sha256) is None
    monkeypatch.undo()


@pytest.mark.parametrize("damage", ["model.onnx", "gate.json", "stillroom.json"])
def test_damaged_release_is_refused(make_release: MakeRelease, damage: str) -> None:
    folder = make_release("a")
    with (folder / damage).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match=damage):
        register.read_release(folder, "a")


def test_gate_report_about_another_package_is_refused(make_release: MakeRelease) -> None:
    from stillroom.export.package import relist

    folder = make_release("a")
    write_json(folder / "gate.json", {"verdict": "PASS", "package_digest": "another"})
    relist(folder, read_json(folder / "stillroom.json"))
    with pytest.raises(InputError, match="about package another"):
        register.read_release(folder, "a")


def test_challenger_is_the_selected_or_the_closest(make_release: MakeRelease) -> None:
    made = {
        "near": ("INCONCLUSIVE", 0.95),
        "nearer": ("INCONCLUSIVE", 0.96),
        "failed": ("FAIL", 0.965),
        "passed": ("PASS", 0.98),
    }
    releases = [
        register.read_release(make_release(name, verdict=verdict, lower=lower), name)
        for name, (verdict, lower) in made.items()
    ]

    def chosen(selected: str | None, among: list[register.Release]) -> str | None:
        found = register.challenger(among, selected)
        return found.student if found else None

    assert chosen("passed", releases) == "passed"
    assert chosen(None, releases[:3]) == "nearer"
    assert chosen(None, releases[2:3]) == "failed"
    assert chosen(None, []) is None
