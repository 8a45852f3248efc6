"""Ask a person on the page of a paused flow run, by a form that Prefect makes from a model."""

from typing import Annotated, Any

from prefect import get_client, pause_flow_run
from prefect.client.schemas.objects import State
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import ConfigDict, Field

Words = Annotated[str, Field(pattern=r"\S", max_length=500)]
POLL_S = 5


class Answer(RunInput):
    """What the form asks for; an answer without a name or a reason is refused, and the run stays paused."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    approver: Words
    """Who answers; stands in the ledger."""
    reason: Words
    """Why; stands in the ledger."""
    approve: bool = False
    """Whether the version becomes champion."""


def ask_for_approval(model: str, version: int, actor: str, reason: str, wait_s: int) -> Answer:
    """Pause this flow run until the form is filled in, and return the answer.

    Raises GateRefused at once for a version without its proof, and Prefect's FlowPauseTimeout after `wait_s`.
    """
    from stillroom.registry import proof, story, tracking

    tracker = tracking.connect()
    proof.prove(tracker, model, version)
    told = "\n".join(f"- {line.strip()}" for line in story.why(model, version, tracker=tracker).told)
    asked = f"{actor} asks to make **{model} version {version}** the champion: {reason}\n\n{told}\n"
    form = Answer.with_initial_data(description=asked)
    return pause_flow_run(wait_for_input=form, timeout=wait_s, poll_interval=POLL_S)


def not_answered(wait_s: int) -> State[Any]:
    """The state of a run that nobody answered, which is given to it and returned.

    The server replaces whatever state is proposed after a pause's time limit with one of its own, and so loses
    what the run ended with; a state that is forced is kept.
    """
    name, message = "NotAnswered", f"nobody filled in the form within {wait_s} s"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Failed(name=name, message=message), force=True)
    return Failed(name=name, message=message)
