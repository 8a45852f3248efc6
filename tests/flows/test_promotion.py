"""Promote, roll back and watch, as flows over the real registry."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import Absent, GateRefused, InputError
from stillroom.registry import ledger, promotion, tracking, versions
from stillroom.registry.ledger import Entry
from stillroom.registry.promotion import Reconciled
from tests.flows.registered import register_two
from tests.pipeline.project import Project

pytestmark = [
    pytest.mark.serial,
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server", "state"),
    # SQLAlchemy's, about the tables of Prefect and of MLflow when it sets them up side by side.
    pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture
def state(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with nothing in it."""
    folder = project.path / ".stillroom"
    monkeypatch.setenv("STILLROOM_STATE", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def ended(flow: Callable[..., Any], **parameters: Any) -> tuple[str | None, Any]:
    """The name of the flow run's final state, and its result or error."""
    state = flow(**parameters, return_state=True)
    return state.name, state.result(raise_on_failure=False)


def test_an_empty_registry_has_nothing_to_promote_or_to_go_back_to() -> None:
    from flows.promote import promote
    from flows.rollback import rollback

    name, error = ended(promote, version=1, reason="a test", actor="test")
    assert (name, type(error)) == ("Failed", Absent)
    assert "has no version 1" in str(error)
    name, error = ended(rollback, reason="a test", actor="test")
    assert (name, type(error)) == ("Failed", InputError)
    assert "nothing to roll back to" in str(error)


def test_a_version_without_proof_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.promote import promote
    from flows.rollback import rollback

    def refuse(*arguments: object) -> None:
        raise GateRefused("stillroom version 1: its gate verdict is FAIL; only PASS is promoted")

    monkeypatch.setattr(promotion, "promote", refuse)
    monkeypatch.setattr(promotion, "rollback", refuse)
    assert ended(promote, version=1, reason="a test", actor="test")[0] == "GateRefused"
    assert ended(rollback, version=1, reason="a test", actor="test")[0] == "GateRefused"


def test_the_sentinel_tells_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.sentinel import sentinel

    name, found = ended(sentinel)
    assert (name, found["outcome"], found["champion"]) == ("Completed", "in step", None)
    monkeypatch.setattr(promotion, "reconcile", lambda model: Reconciled("moved back", 2, f"{model}: was 3"))
    name, found = ended(sentinel)
    assert (name, found["outcome"], found["detail"]) == ("MovedBack", "moved back", "stillroom: was 3")


def entries() -> list[Entry]:
    return ledger.read("stillroom", ledger.default_store())


@pytest.fixture
def versions_of_two(state: Path, tmp_path: Path) -> tracking.Tracker:
    return register_two(tmp_path)


def message() -> str:
    """Name and message of the state in which the newest flow run is, by the server."""
    from prefect import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)[0]
    assert newest.state is not None
    assert newest.state.is_final()
    return f"{newest.state.name}: {newest.state.message}"


class Person(threading.Thread):
    """Somebody who waits for the form of a paused run and answers it, maybe wrongly at first."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.answers, self.refusals = answers, list[str]()
        self.schema: Any = None
        self.description = ""
        self._context = copy_context()

    def run(self) -> None:
        self._context.run(self._answer)

    def _answer(self) -> None:
        from httpx import HTTPStatusError
        from prefect import get_client
        from prefect.client.schemas.filters import FlowRunFilter
        from prefect.flow_runs import resume_flow_run
        from prefect.input.actions import read_flow_run_input

        paused = FlowRunFilter.model_validate({"state": {"name": {"any_": ["Paused"]}}})
        deadline = time.monotonic() + 60
        found: Any = None
        with get_client(sync_client=True) as client:
            while not self.description:
                assert time.monotonic() < deadline
                time.sleep(0.1)
                for found in client.read_flow_runs(flow_run_filter=paused):
                    keys = found.state.state_details.run_input_keyset
                    with suppress(HTTPStatusError):  # the form is put there a moment after the pause begins
                        self.schema = read_flow_run_input(keys["schema"], flow_run_id=found.id)
                        self.description = read_flow_run_input(keys["description"], flow_run_id=found.id)
        for answer in self.answers:
            try:
                resume_flow_run(found.id, run_input=answer)
            except Exception as error:
                self.refusals.append(str(error))


def asked_and_answered(monkeypatch: pytest.MonkeyPatch, person: Person, **parameters: Any) -> tuple[str | None, Any]:
    """The promote flow with `ask`, answered by a person."""
    from flows import approve
    from flows.promote import promote

    monkeypatch.setattr(approve, "POLL_S", 0.2)
    person.start()
    found = ended(
        promote, **{"version": 1, "reason": "for the fair", "actor": "ada", "ask": True, "wait_s": 60, **parameters}
    )
    person.join(timeout=60)
    return found


@pytest.mark.usefixtures("versions_of_two")
def test_the_form_s_approver_promotes_and_stands_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [{"approver": "bob", "approve": True}, {"approver": " ", "reason": "so", "approve": True}]
    person = Person(*wrong, {"approver": "bob", "reason": "looked at it", "approve": True})
    name, entry = asked_and_answered(monkeypatch, person)
    assert (name, entry["to_version"], entry["actor"]) == ("Completed", 1, "bob")
    assert entry["reason"] == "looked at it (asked by ada: for the fair)"
    assert [each.actor for each in entries()] == ["bob"]
    assert len(person.refusals) == 2
    assert set(person.schema["properties"]) == {"approver", "reason", "approve"}
    assert set(person.schema["required"]) == {"approver", "reason"}
    assert "ada asks to make **stillroom version 1** the champion: for the fair" in person.description
    assert "retention of accuracy 0.9900" in person.description


@pytest.mark.parametrize(
    ("answer", "named", "told"),
    [
        ({"approver": "bob", "reason": "too early", "approve": False}, "NotApproved", "bob says no: too early"),
        ({"approver": "bob", "reason": "maybe"}, "NotApproved", "bob says no: maybe"),
        ({"approver": " Ada", "reason": "mine", "approve": True}, "GateRefused", "another than its author ada"),
    ],
)
def test_a_no_or_the_author_s_own_yes_changes_nothing(
    versions_of_two: tracking.Tracker, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], named: str, told: str
) -> None:
    assert asked_and_answered(monkeypatch, Person(answer))[0] == named
    assert told in message()
    assert (entries(), versions.model(versions_of_two, "stillroom").champion) == ([], None)


@pytest.mark.usefixtures("versions_of_two")
def test_nobody_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_and_answered(monkeypatch, Person(), wait_s=1)[0] == "NotAnswered"
    assert (message(), entries()) == ("NotAnswered: nobody filled in the form within 1 s", [])


@pytest.mark.usefixtures("versions_of_two")
def test_nobody_is_asked_about_a_version_without_proof() -> None:
    from flows.promote import promote

    assert ended(promote, version=2, reason="a test", actor="ada", ask=True)[0] == "GateRefused"
    assert "verdict is FAIL" in message()
    assert entries() == []
