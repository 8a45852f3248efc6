"""Two versions in the registry: one that a second person may promote, one that nobody may."""

from pathlib import Path

from stillroom.registry import register, runs, tracking, versions
from tests.registry.conftest import write_release


def register_two(folder: Path) -> tracking.Tracker:
    """Version 1 passed and needs a second person beside ada, version 2 failed. folder: for what is registered."""
    tracker = tracking.connect()
    experiment = runs.experiment(tracker, "toy")
    run = runs.find_or_create(tracker, experiment, {"kind": "test"}, name="test", start_ms=1, tags={})
    asked = {"required": True, "because": "governance.ai_act is high", "four_eyes": True}
    for number, verdict in enumerate(("PASS", "FAIL"), start=1):
        place = folder / f"release-{number}"
        write_release(place, folder / "scratch", bias=number, verdict=verdict, lower=0.98, approval=asked)
        release = register.read_release(place, "static")
        register.register(tracker, "stillroom", release, run, (), {versions.AUTHOR_TAG: "ada"})
    return tracker
