"""Promotions of one model by several machines at once: processes with a lock each, one registry, one ledger."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stillroom.registry import ledger, promotion, tracking, versions
from stillroom.storage import open_storage

RACE = """
import json, os, sys
from pathlib import Path
from mlflow import MlflowClient  # once, before the fork
from stillroom.errors import GateRefused, TryAgain
from stillroom.registry import ledger, promotion, tracking
from stillroom.storage import open_storage
place, racers, wins, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
PASSED, FAILED = (1, 2, 4), 3


class Watched:
    '''A storage that notes which names were created, and reads each entry once: none changes in this test.'''

    def __init__(self, store):
        self.store, self.where, self.created, self.known = store, store.where, [], {}

    def names(self, below=""):
        return self.store.names(below)

    def read(self, name):
        if name not in self.known:
            self.known[name] = self.store.read(name)
        return self.known[name]

    def create(self, name, content):
        created = self.store.create(name, content)
        if created:
            self.created.append(name)
        return created


def race(number):
    os.environ["STILLROOM_STATE"] = str(root / f"machine-{number}")  # a lock of its own, as on another machine
    store, told = Watched(open_storage(place)), {"won": 0, "later": 0, "refused": 0, "same": 0}
    tracker = tracking.connect()
    turn = number
    while told["won"] < wins:
        turn += 1
        before = len(store.created)
        version = FAILED if turn % 6 == 0 else PASSED[turn % 3]
        try:
            entry = promotion.promote("toy", version, f"racer-{number}", f"turn {turn}", tracker=tracker, store=store)
            assert version != FAILED
            told["won" if entry.reason == f"turn {turn}" and len(store.created) > before else "same"] += 1
        except GateRefused:
            assert version == FAILED
            told["refused"] += 1
        except TryAgain:
            told["later"] += 1
    return told | {"created": store.created}


children = []
for number in range(racers):
    child = os.fork()
    if child == 0:
        (root / f"{number}.json").write_text(json.dumps(race(number)))
        os._exit(0)
    children.append(child)
failed = [child for child in children if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
sys.exit(len(failed))
"""


def race(tracker: tracking.Tracker, place: str, scratch: Path, *, racers: int, wins: int, within_s: float) -> None:
    """Let every racer win so many promotions of versions that passed, and check all that must hold of the ledger.

    place: the address of the ledger, which the environment names too, as it names the registry.
    """
    command = [sys.executable, "-c", RACE, place, str(racers), str(wins), str(scratch)]
    process = subprocess.Popen(command, env=dict(os.environ))
    try:
        seen = watch(tracker, process, within_s)
    finally:
        process.kill()
    assert process.wait() == 0
    told: list[dict[str, Any]] = [json.loads((scratch / f"{n}.json").read_text()) for n in range(racers)]
    chain = ledger.read("toy", open_storage(place))
    assert [entry.sequence for entry in chain] == list(range(1, racers * wins + 1))
    created = [name for one in told for name in one["created"]]
    assert sorted(created) == [ledger.entry_name("toy", entry.sequence) for entry in chain]
    assert [one["won"] for one in told] == [wins] * racers
    assert {entry.actor for entry in chain} == {f"racer-{number}" for number in range(racers)}
    assert sum(one["refused"] for one in told) > 0
    assert all(entry.from_version != entry.to_version and entry.to_version in (1, 2, 4) for entry in chain)
    assert len(set(seen)) > 1
    assert versions.model(tracker, "toy").champion == chain[-1].to_version
    assert promotion.reconcile("toy", tracker=tracker).outcome == "in step"


def watch(tracker: tracking.Tracker, race: "subprocess.Popen[bytes]", within_s: float) -> list[int]:
    """Where the alias stood until the race was over; each time it must be a version that passed."""
    deadline, seen = time.monotonic() + within_s, []
    while race.poll() is None:
        assert time.monotonic() < deadline, "the race does not end"
        champion = versions.model(tracker, "toy").champion
        if champion is not None:
            version = versions.get(tracker, "toy", champion)
            assert version is not None
            assert version.tags[versions.VERDICT_TAG] == "PASS"
            seen.append(champion)
        time.sleep(0.05)
    return seen
