"""SIGKILL between every two steps of a promotion and its kin: the champion stays legal, and one pass heals the rest.

A step is what may change something: a call of the MLflow client or of the ledger's storage that does not read, or a
line of the function that creates a file.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillroom import layout
from stillroom.registry import ledger, promotion, tracking, versions
from stillroom.storage import Storage, open_storage
from tests.registry.conftest import OTHERS_WARNINGS

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(w) for w in OTHERS_WARNINGS)]

VICTIMS = """
import json, os, signal, sys
from pathlib import Path
from mlflow import MlflowClient  # once, before the forks
from stillroom import files
from stillroom.registry import ledger, promotion, tracking
from stillroom.storage import open_storage
action, root = sys.argv[1], Path(sys.argv[2])
promotion._SETTLE_S = 0


class Steps:
    '''Counts steps, and kills this process before the one that is its last.'''

    def __init__(self, last, told):
        self.left, self.told = last, told

    def take(self, name):
        self.left -= 1
        if not self.left:
            self.told.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, object_):
        class Counted:
            def __getattr__(_, name):
                found = getattr(object_, name)
                reads = name.startswith(("get_", "search_", "list_", "names", "read", "where"))
                return found if reads else lambda *a, **k: self.take(name) or found(*a, **k)

        return Counted()

    def trace(self, frame, event, argument):
        if frame.f_code is files.create_file.__code__:
            if event == "line":
                self.take(f"create_file:{frame.f_lineno - frame.f_code.co_firstlineno}")
            return self.trace


def act(copy, address, last):
    os.environ.update(STILLROOM_STATE=str(copy), MLFLOW_TRACKING_URI=f"sqlite:///{copy / 'mlflow.db'}")
    steps, tracker = Steps(last, copy / "step"), tracking.connect()
    counted = dict(tracker=tracking.Tracker(tracker.uri, steps.around(tracker.client)),
                   store=steps.around(open_storage(address)))
    sys.settrace(steps.trace)
    if action == "promote":
        promotion.promote("toy", 4, "ada", "killed", **counted)
    elif action == "rollback":
        promotion.rollback("toy", "ada", "killed", **counted)
    else:
        promotion.reconcile("toy", **counted)


for last, (copy, address) in enumerate(json.loads(sys.stdin.read()), start=1):
    child = os.fork()
    if child == 0:
        act(Path(copy), address, last)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
    if code != -signal.SIGKILL:
        break
"""
MOST = 30
"""More steps than any action has."""
FAILED = 3
"""The version that did not pass."""


@dataclass(frozen=True)
class Case:
    """What is killed. before: what is done by hand first; champion, length: alias and ledger once it is done;
    outcomes: what a pass after the kill may say."""

    action: str
    champion: int
    length: int
    outcomes: tuple[str, ...]
    before: Callable[[Any], None] = lambda client: None


CASES = (
    Case("promote", 4, 3, ("in step", "healed")),
    Case("rollback", 1, 3, ("in step", "healed")),
    Case(
        "adopt", 4, 3, ("in step", "adopted"), lambda client: client.set_registered_model_alias("toy", "champion", "4")
    ),
    Case(
        "move back",
        2,
        2,
        ("in step", "moved back"),
        lambda client: client.set_registered_model_alias("toy", "champion", "3"),
    ),
    Case(
        "put back",
        2,
        2,
        ("in step", "moved back"),
        lambda client: client.delete_registered_model_alias("toy", "champion"),
    ),
)


def copies(root: Path, place: str) -> list[tuple[str, str]]:
    """A registry and a ledger for every victim, as they stood before."""
    source, made = open_storage(place), []
    for number in range(1, MOST + 1):
        copy, address = root / f"copy-{number}", f"{place}-{number}"
        copy.mkdir()
        shutil.copyfile(layout.state() / "mlflow.db", copy / "mlflow.db")
        target = open_storage(address)
        assert all(target.create(name, source.read(name)) for name in source.names())
        made.append((str(copy), address))
    return made


@pytest.mark.parametrize(
    ("kind", "case"),
    [*(("folder", case) for case in CASES), *(("bucket", case) for case in CASES[:2])],
    ids=lambda value: value if isinstance(value, str) else value.action,
)
def test_a_kill_before_any_step_leaves_a_legal_champion_and_is_healed(
    kind: str,
    case: Case,
    registered: tracking.Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    place = f"{tmp_path}/ledger" if kind == "folder" else f"s3://{request.getfixturevalue('s3')[1]}/ledger"
    store = open_storage(place)
    for version in (1, 2):
        promotion.promote("toy", version, "ada", "first", tracker=registered, store=store)
    case.before(registered.client)
    found = versions.model(registered, "toy").champion
    made = copies(tmp_path, place)
    victims = subprocess.run(
        [sys.executable, "-c", VICTIMS, case.action, str(tmp_path)],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
        env=dict(os.environ),
    )
    codes = [int(code) for code in victims.stdout.split()]
    assert codes[-1] == 0, victims.stderr
    assert set(codes[:-1]) == {-signal.SIGKILL}
    monkeypatch.setattr(promotion, "_SETTLE_S", 0)
    outcomes = set()
    for copy, address in made[: len(codes)]:
        monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{copy}/mlflow.db")
        outcomes.add(healed(case, found, open_storage(address)))
    assert outcomes == set(case.outcomes)
    steps = [path.read_text() for copy, _ in made if (path := Path(copy) / "step").exists()]
    assert len(steps) == len(codes) - 1
    assert {"create_file:10", "create"} & set(steps) or case.length == 2
    print(kind, case.action, steps)


def healed(case: Case, found: int | None, store: Storage) -> str:
    """What the first pass over one victim's registry says, checked before and after and by a promotion that follows."""
    tracker = tracking.connect()
    champion = versions.model(tracker, "toy").champion
    assert champion in (found, case.champion)
    if champion not in (None, FAILED):
        assert promotion.prove(tracker, "toy", champion).version == champion
    first, second = (promotion.reconcile("toy", tracker=tracker, store=store) for _ in range(2))
    chain = ledger.read("toy", store)
    assert second == promotion.Reconciled("in step", first.champion)
    assert first.champion == versions.model(tracker, "toy").champion == chain[-1].to_version
    assert (first.champion, len(chain)) in ((2, 2), (case.champion, case.length))
    other = 4 if chain[-1].to_version == 1 else 1
    following = promotion.promote("toy", other, "ada", "next", tracker=tracker, store=store)
    assert (following.sequence, versions.model(tracker, "toy").champion) == (len(chain) + 1, other)
    return first.outcome
