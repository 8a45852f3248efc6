"""Move the champion: proof first, then an entry in the ledger, then the alias that follows it.

Whoever writes entry N moves the alias; a crash between the two leaves a ledger that is ahead, and `reconcile`
lets the alias catch up. A move made by hand in the MLflow UI is met the same way: adopted with an entry if
the version has its proof, undone if not.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from stillroom import layout
from stillroom.errors import Absent, GateRefused, InputError, TryAgain
from stillroom.registry import approval, ledger, standing, versions
from stillroom.registry.ledger import Entry
from stillroom.registry.proof import Proof, prove
from stillroom.registry.tracking import Tracker, connect, insist
from stillroom.registry.versions import Applied, Model
from stillroom.storage import Storage

_ATTEMPTS = 20
_TURN_S = 60.0
_SETTLE_S = 2.0
"""How long an alias must stay where it was found to count as moved by hand: a promotion that another machine's
overtook may set it back to its own version, and corrects that as soon as it has read the ledger again."""

log = logging.getLogger("stillroom")

Outcome = Literal["in step", "healed", "mended", "rebuilt", "adopted", "moved back", "damaged", "unresolved"]


@dataclass(frozen=True)
class Reconciled:
    """What `reconcile` found and did; `champion` is where the alias stands now."""

    outcome: Outcome
    champion: int | None
    detail: str = ""


def promote(
    model: str,
    version: int,
    actor: str,
    reason: str,
    *,
    tracker: Tracker | None = None,
    store: Storage | None = None,
) -> Entry:
    """Make a version champion and return the ledger entry that says so; the champion itself is left as it is.

    Raises GateRefused, with everything unchanged, unless the version's package and gate report are what was
    registered, and the report says PASS for this package; where it asks for a person's approval, the actor gives it.
    """
    if not actor.strip() or not reason.strip():
        raise InputError(f"promotion of {model}: actor is {actor!r}, reason is {reason!r}; give both")
    if any("\ud800" <= sign <= "\udfff" for sign in actor + reason):
        raise InputError(f"promotion of {model}: actor is {actor!r}, reason is {reason!r}; give both as UTF-8")
    tracker, store = tracker or connect(), store or ledger.default_store()
    with _turn(model):
        proof = prove(tracker, model, version)
        approval.agree(model, proof, actor)
        for _ in range(_ATTEMPTS):
            _reconcile(model, tracker, store)
            entries = ledger.read(model, store)
            last = entries[-1] if entries else None
            if last is not None and (last.to_version, last.evidence) == (version, proof.evidence):
                approval.sign(tracker, model, proof, approval.given(proof, last.actor, actor))
                return last
            entry = _append(model, store, entries, proof, actor, reason)
            if entry is not None:
                _project(model, tracker, store, entry)
                approval.sign(tracker, model, proof, actor)
                log.info("%s: version %d is champion (%s: %s)", model, version, actor, reason)
                return entry
    raise TryAgain(f"{model}: others keep writing to its ledger; try again")


def rollback(
    model: str,
    actor: str,
    reason: str,
    version: int | None = None,
    *,
    tracker: Tracker | None = None,
    store: Storage | None = None,
) -> Entry:
    """Go back to the champion before this one, or to a given version, by an entry like any other.

    Raises InputError if there is nothing to go back to, GateRefused if that version's proof no longer holds.
    """
    tracker, store = tracker or connect(), store or ledger.default_store()
    if version is None:
        reigns = ledger.reigns(ledger.read(model, store))
        if len(reigns) < 2:
            raise InputError(f"{model}: its ledger knows no champion before this one; nothing to roll back to")
        before = reigns[-2]
        version = standing.home(tracker, model, before)
        if version is None:
            raise InputError(f"{model}: what entry {before.sequence} promoted is not in the registry; name a version")
    return promote(model, version, actor, reason, tracker=tracker, store=store)


def reconcile(model: str, *, tracker: Tracker | None = None, store: Storage | None = None) -> Reconciled:
    """Bring the champion alias and the ledger together again; changes nothing when they agree.

    The champion's package and tags are compared with the ledger too. Raises InputError, with everything unchanged,
    where the ledger was tampered with, its end missing included.
    """
    tracker, store = tracker or connect(), store or ledger.default_store()
    with _turn(model):
        return _reconcile(model, tracker, store, inspect=True)


def verify(model: str, *, tracker: Tracker | None = None, store: Storage | None = None) -> Sequence[Entry]:
    """The whole ledger of a model, its end compared with what the registry remembers of it; changes nothing.

    Raises InputError where an entry was changed or is missing, TryAgain where the registry is not to be had.
    """
    store = store or ledger.default_store()
    ledger.read(model, store)
    return _read(model, tracker or connect(), store)[0]


def _read(model: str, tracker: Tracker, store: Storage) -> tuple[Sequence[Entry], Model]:
    entries = ledger.read(model, store)
    registered = versions.model(tracker, model)
    if registered.applied.sequence > len(entries):
        entries = ledger.read(model, store)  # others may have written since
    _check_end(model, store, entries, registered.applied)
    return entries, registered


def _reconcile(model: str, tracker: Tracker, store: Storage, inspect: bool = False) -> Reconciled:
    """Beside `reconcile`: without `inspect`, a champion whose alias is in step is taken to be whole."""
    entries, registered = _read(model, tracker, store)
    last = entries[-1] if entries else None
    home = standing.home(tracker, model, last) if last else None
    if last is None or home is None:
        if registered.champion is not None:
            return _meet_hand_move(model, tracker, store, entries, registered.champion, home=None)
        if last is None:
            return Reconciled("in step", None)
        detail = f"version {last.to_version}, champion by the ledger, is not in the registry"
        log.warning("%s: %s; there is no champion until a student passes", model, detail)
        return Reconciled("unresolved", None, detail)
    if home != last.to_version:
        return _renumber(model, tracker, store, entries, home)
    in_step = registered.champion == home
    if in_step and not inspect:
        return _in_step(model, tracker, registered, last, [])
    try:
        edited = standing.inspect(tracker, model, home, last)
    except standing.FLAWS as flaw:
        return _withdraw(model, tracker, store, entries, registered, str(flaw))
    if in_step:
        return _in_step(model, tracker, registered, last, edited)
    if registered.applied.sequence < last.sequence:
        _project(model, tracker, store, last)
        log.warning("%s: a promotion was cut short; champion is version %d now", model, home)
        return Reconciled("healed", home, f"entry {last.sequence} was written and the alias not moved")
    if registered.champion is None:
        _project(model, tracker, store, last)
        log.warning("%s: alias champion was missing; it is back at version %d", model, home)
        return Reconciled("moved back", home, "the alias was missing, and the champion is whole")
    return _meet_hand_move(model, tracker, store, entries, registered.champion, home)


def _check_end(model: str, store: Storage, entries: Sequence[Entry], applied: Applied) -> None:
    """Raise InputError if the entry that the alias followed is missing or another: no entry after it tells of that."""
    if not applied.sequence:
        return
    found = "missing"
    if applied.sequence <= len(entries):
        entry = entries[applied.sequence - 1]
        if applied.sha256 in (None, ledger.digest(entry)):
            return
        found = "changed"
    name = ledger.entry_name(model, applied.sequence)
    raise InputError(
        f"ledger {name}: {found} in {store.where} since the alias champion followed it; restore it from a backup, or "
        f"if tag {versions.APPLIED_TAG} was edited, set it to {len(entries)}"
    )


def _in_step(model: str, tracker: Tracker, registered: Model, last: Entry, edited: Sequence[str]) -> Reconciled:
    if registered.applied.nonsense is not None:
        edited = [*edited, f"tag {versions.APPLIED_TAG} was {registered.applied.nonsense[:80]!r}"]
    if (registered.applied.sequence, registered.applied.sha256) != (last.sequence, ledger.digest(last)):
        _mark_applied(model, tracker, last)
    if not edited:
        return Reconciled("in step", last.to_version)
    detail = "; ".join(edited)
    log.warning("%s: %s; put back as the ledger tells it", model, detail)
    return Reconciled("mended", last.to_version, detail)


def _withdraw(
    model: str, tracker: Tracker, store: Storage, entries: Sequence[Entry], registered: Model, flaw: str
) -> Reconciled:
    """Leave no champion where its package is damaged, unless the alias was moved by hand to one that passed."""
    last = entries[-1]
    if registered.champion not in (None, last.to_version):
        return _meet_hand_move(model, tracker, store, entries, registered.champion, home=None)
    detail = standing.damage(last.to_version, flaw)
    standing.withdraw(tracker, model, last.to_version, detail)
    if len(ledger.read(model, store)) > len(entries):
        return _reconcile(model, tracker, store)
    log.warning("%s: %s; there is no champion until it is restored or another version promoted", model, detail)
    return Reconciled("damaged", None, detail)


def _renumber(model: str, tracker: Tracker, store: Storage, entries: Sequence[Entry], home: int) -> Reconciled:
    last = entries[-1]
    proof = Proof(home, *last.evidence)
    detail = f"the registry was rebuilt: version {last.to_version} is version {home} now"
    entry = _append(model, store, entries, proof, approval.ITSELF, detail)
    if entry is None:
        return _reconcile(model, tracker, store)
    _project(model, tracker, store, entry)
    log.warning("%s: %s", model, detail)
    return Reconciled("rebuilt", home, detail)


def _meet_hand_move(
    model: str, tracker: Tracker, store: Storage, entries: Sequence[Entry], moved_to: int, home: int | None
) -> Reconciled:
    try:
        proof = prove(tracker, model, moved_to)
        approver = proof.tags.get(versions.APPROVER_TAG, "").strip()
        approval.agree(model, proof, approver)
    except (GateRefused, Absent) as refusal:
        if len(ledger.read(model, store)) > len(entries):  # the move was another machine's promotion
            return _reconcile(model, tracker, store)
        detail = f"alias champion was moved by hand to version {moved_to}, which is refused: {refusal}"
        if home is None:
            standing.withdraw(tracker, model, moved_to, str(refusal))
        else:
            standing.refuse(tracker, model, moved_to, str(refusal))
            _project(model, tracker, store, entries[-1])
        log.warning("%s: %s; it is back at %s", model, detail, f"version {home}" if home else "no version")
        return Reconciled("moved back", home, detail)
    time.sleep(_SETTLE_S)
    settled = versions.model(tracker, model).champion == moved_to
    approved = f", approved by {approver} (tag {versions.APPROVER_TAG})" if proof.approval.required else ""
    reason = f"the alias was moved by hand{approved}"
    entry = _append(model, store, entries, proof, approval.BY_HAND, reason) if settled else None
    if entry is None:
        return _reconcile(model, tracker, store)
    _project(model, tracker, store, entry)
    approval.sign(tracker, model, proof, approver)
    log.warning("%s: alias champion was moved by hand to version %d, which passed: adopted", model, moved_to)
    return Reconciled("adopted", moved_to, f"entry {entry.sequence}")


def _append(
    model: str, store: Storage, entries: Sequence[Entry], proof: Proof, actor: str, reason: str
) -> Entry | None:
    return ledger.append(
        model,
        store,
        entries,
        to_version=proof.version,
        actor=actor,
        reason=reason,
        gate_report_sha256=proof.gate_report_sha256,
        package_digest=proof.package_digest,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _project(model: str, tracker: Tracker, store: Storage, entry: Entry) -> None:
    """Move the alias to where the ledger's end says, also when that end moves meanwhile."""
    while True:
        point = partial(tracker.client.set_registered_model_alias, model, versions.CHAMPION, str(entry.to_version))
        insist(tracker.uri, point)
        last = ledger.read(model, store)[-1]
        if last.sequence == entry.sequence:
            _mark_applied(model, tracker, entry)
            return
        entry = last


def _mark_applied(model: str, tracker: Tracker, entry: Entry) -> None:
    """Remember that the alias followed this entry: it tells a crash before from a move by hand after."""
    told = f"{entry.sequence} {ledger.digest(entry)}"
    insist(tracker.uri, partial(tracker.client.set_registered_model_tag, model, versions.APPLIED_TAG, told))


@contextmanager
def _turn(model: str) -> Iterator[None]:
    """One promotion of a model at a time on this machine: politeness, for the ledger is what decides."""
    from filelock import FileLock, Timeout

    ledger.entry_name(model, 0)
    path = layout.state() / "locks" / f"promote-{model}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=_TURN_S):
            yield
    except Timeout as error:
        raise TryAgain(f"{path}: another promotion of {model} holds the lock; try again") from error
