"""A person's approval of a promotion: asked for by the gate report, given by name, told at the version.

Names are recorded, not authenticated: who may write to the ledger and the registry is for their stores to decide.
"""

import os

from stillroom.errors import GateRefused
from stillroom.gate.approval import Approval
from stillroom.registry import versions
from stillroom.registry.origin import user
from stillroom.registry.proof import Proof
from stillroom.registry.tracking import Tracker, translated

AUTHOR_VARIABLE = "STILLROOM_AUTHOR"
RUN, ITSELF, BY_HAND = "stillroom run", "stillroom", "mlflow-ui"
"""Actors in the ledger that are nobody: the record step, the repair of a rebuilt registry, a move in MLflow's page."""


def author() -> str:
    """Who runs the pipeline: STILLROOM_AUTHOR, or the user of this process; empty where neither is known."""
    return os.environ.get(AUTHOR_VARIABLE, "").strip() or user()


def agree(model: str, proof: Proof, approver: str) -> None:
    """Raise GateRefused where a version needs a person's approval and this approver will not do."""
    asked = proof.approval
    if not asked.required:
        return
    where = f"{model} version {proof.version}: needs a person's approval ({asked.because})"
    if not _is_person(approver):
        given = f"and {approver.strip()} is no person" if approver.strip() else "which nobody gave"
        raise GateRefused(
            f"{where}, {given}; promote it by name, or set its tag {versions.APPROVER_TAG} to the name of who approves"
        )
    if not asked.four_eyes:
        return
    ran = proof.tags.get(versions.AUTHOR_TAG, "")
    if _same(ran, ""):
        raise GateRefused(
            f"{where} by another than its author, who is not known (it has no tag {versions.AUTHOR_TAG}); delete the "
            f"version and run the pipeline again with {AUTHOR_VARIABLE} set"
        )
    if _same(approver, ran):
        raise GateRefused(f"{where} by another than its author {ran.strip()}; {approver.strip()} is the same")


def sign(tracker: Tracker, model: str, proof: Proof, approver: str) -> None:
    """Tell at the version that it was approved, where that was asked for, and that it is refused no longer."""
    number = str(proof.version)
    with translated(tracker.uri):
        if proof.approval.required:
            tracker.client.set_model_version_tag(model, number, versions.APPROVER_TAG, approver.strip())
        if versions.REFUSED_TAG in proof.tags:
            tracker.client.delete_model_version_tag(model, number, versions.REFUSED_TAG)


def given(proof: Proof, made_by: str, again: str) -> str:
    """Who approved a version that is champion: the one whom its tag names, the actor of its entry `made_by` where a
    crash kept the tag from being written, or whoever agrees `again` where that entry was nobody's."""
    told = proof.tags.get(versions.APPROVER_TAG, "")
    return next((name for name in (told, made_by) if _is_person(name)), again)


def waits(number: int, asked: Approval) -> str:
    """What is told of a version that passed and needs a person's approval; its subject goes before."""
    return f'passed and waits for a person\'s approval ({asked.because}): stillroom promote {number} --reason "…"'


def _is_person(name: str) -> bool:
    return not any(_same(name, nobody) for nobody in ("", RUN, ITSELF, BY_HAND))


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
