"""Promote, roll back and watch, as flows over the real registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import GateRefused, InputError
from stillroom.registry import promotion
from stillroom.registry.promotion import Reconciled
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
    assert (name, type(error)) == ("Failed", InputError)
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
