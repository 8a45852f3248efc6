"""The story of a model in words: what the ledger tells, and why a version is live or is not. Changes nothing."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stillroom.errors import GateRefused, InputError
from stillroom.gate.approval import Approval, recorded
from stillroom.registry import approval, ledger, standing, versions
from stillroom.registry.ledger import Entry
from stillroom.registry.proof import check, fetched, genuine
from stillroom.registry.tracking import Tracker, connect
from stillroom.registry.versions import Version
from stillroom.storage import Storage

Kind = Literal["first", "replaced", "returned", "renumbered"]
State = Literal[
    "champion", "replaced", "out of step", "not passed", "damaged", "refused", "waits for approval", "passed"
]
_LATER = "the next run, or the deployment sentinel, settles it"
_WITHDRAWN = (
    "its proof does not hold now; there is no champion until its package is restored or another version is promoted"
)


@dataclass(frozen=True)
class Step:
    """An entry of the ledger, and the one line that tells it."""

    entry: Entry
    kind: Kind
    told: str


@dataclass(frozen=True)
class Why:
    """Why a version is live, or is not: told in lines, of which the first is the answer.

    entry: the one that made it champion last; gate: its report, or what its tags say where that is not to be had;
    problem: why its proof does not hold, where it passed and it does not.
    """

    model: str
    version: int
    live: bool
    state: State
    told: tuple[str, ...]
    entry: Entry | None
    gate: Mapping[str, Any]
    package_digest: str
    problem: str | None


def history(model: str, *, store: Storage | None = None) -> list[Step]:
    """Every entry of a model's ledger, oldest first. Raises InputError where the ledger does not hold together."""
    entries = ledger.read(model, store or ledger.default_store())
    return [_step(entries, position) for position in range(len(entries))]


def why(model: str, number: int | None = None, *, tracker: Tracker | None = None, store: Storage | None = None) -> Why:
    """Tell of a version, by default of the champion. Raises InputError where there is no such version."""
    tracker, store = tracker or connect(), store or ledger.default_store()
    entries = ledger.read(model, store)
    champion = versions.model(tracker, model).champion
    if number is None:
        number = champion or (entries[-1].to_version if entries else None)
    if number is None:
        raise InputError(f"{model}: has no champion in {tracker.name}; name a version, or promote one")
    version = versions.get(tracker, model, number)
    if version is None:
        raise InputError(f"{model}: has no version {number} in {tracker.name}")
    gate, problem = _evidence(tracker, model, version)
    asked = _asked(gate)
    state, answer = _answer(version, entries, champion, gate, problem, asked)
    made = _made(version, entries)
    live = number == champion
    return Why(
        model=model,
        version=number,
        live=live,
        state=state,
        told=(
            f"{model} version {number} is {'' if live else 'not '}live because {answer}",
            *_gate_lines(gate),
            *_approval_lines(version, asked),
            f"package {version.tags.get(versions.DIGEST_TAG)}, gate report {version.tags.get(versions.GATE_TAG)}",
            _proof_line(gate, problem),
            *_refusal_lines(version, state),
        ),
        entry=entries[made[-1]] if made else None,
        gate=gate,
        package_digest=version.tags.get(versions.DIGEST_TAG, ""),
        problem=problem,
    )


def one_line(text: str) -> str:
    """Words of others on one line of a terminal, without what would steer it."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def as_json(step: Step) -> dict[str, Any]:
    """An entry with its words."""
    return {**asdict(step.entry), "kind": step.kind, "told": step.told}


def _step(entries: Sequence[Entry], position: int) -> Step:
    entry, before = entries[position], entries[:position]
    new = entry.to_version
    kind: Kind = "replaced"
    told = f"version {new} replaced version {entry.from_version}"
    if not before:
        kind, told = "first", f"version {new} became the first champion"
    elif entry.evidence == before[-1].evidence:
        kind, told = "renumbered", f"version {entry.from_version} goes by the number {new} from here"
    elif any(entry.evidence == earlier.evidence for earlier in before):
        kind, told = "returned", f"version {new} came back in place of version {entry.from_version}"
    return Step(entry, kind, f"{entry.sequence:4d}  {_when(entry)}  {told} ({_whose(entry)})")


def _answer(
    version: Version,
    entries: Sequence[Entry],
    champion: int | None,
    gate: Mapping[str, Any],
    problem: str | None,
    asked: Approval,
) -> tuple[State, str]:
    """In which state a version is, and the reason for it."""
    number, made = version.number, _made(version, entries)
    if made and _belongs(version, entries[-1]):
        if number == champion:
            return "champion", _crowned(entries[made[-1]])
        if champion is None and problem:
            return "damaged", f"{_WITHDRAWN}; before, {_crowned(entries[made[-1]])}"
        stands = f"stands at version {champion}" if champion else "is gone"
        return "out of step", f"the alias champion {stands}, though {_crowned(entries[made[-1]])}; {_LATER}"
    if number == champion:
        last = f"whose last entry is {entries[-1].sequence}" if entries else "which has no entry"
        return "out of step", f"the alias champion was moved here past the ledger, {last}; {_LATER}"
    if made:
        of = entries[made[-1]]
        after = next(entry for entry in entries[of.sequence :] if not _belongs(version, entry))
        return "replaced", (
            f"version {after.to_version} took its place at {_when(after)} (ledger entry {after.sequence}, "
            f"{_whose(after)}); before, {_crowned(of)}"
        )
    if gate.get("verdict") != "PASS":
        return "not passed", f"its gate verdict is {gate.get('verdict')}; only PASS is promoted"
    if problem:
        return "damaged", "its proof does not hold now, and it was never champion"
    if versions.REFUSED_TAG in version.tags:
        return "refused", f"it was made champion by hand and refused: {one_line(version.tags[versions.REFUSED_TAG])}"
    if asked.required:
        return "waits for approval", f"it {approval.waits(number, asked)}"
    return "passed", f'nobody made it champion; it passed, and stillroom promote {number} --reason "…" does'


def _crowned(entry: Entry) -> str:
    told = f"{one_line(entry.actor)} made it champion at {_when(entry)} (ledger entry {entry.sequence})"
    return f"{told}: {one_line(entry.reason)}"


def _made(version: Version, entries: Sequence[Entry]) -> list[int]:
    """Positions of the entries by which a version became champion; a new number for it is no new reign."""
    positions = [position for position, entry in enumerate(entries) if _belongs(version, entry)]
    return [one for one in positions if one == 0 or not _belongs(version, entries[one - 1])]


def _belongs(version: Version, entry: Entry) -> bool:
    return version.holds(*entry.evidence)


def _evidence(tracker: Tracker, model: str, version: Version) -> tuple[Mapping[str, Any], str | None]:
    """The gate report from the artefact store, or what the tags say; and why the proof does not hold, if so.

    A version that did not pass has no proof to hold; that its report is genuine is all that is asked of it.
    """
    with tempfile.TemporaryDirectory(prefix="stillroom-why-") as scratch:
        try:
            package = fetched(tracker, model, version, Path(scratch))
            report = genuine(package, model, version)
        except (GateRefused, InputError) as error:
            return _by_tags(version.tags), str(error)
        try:
            if report.get("verdict") == "PASS":
                check(package, model, version)
        except (GateRefused, InputError) as error:
            return report, str(error)
    return report, None


def _proof_line(gate: Mapping[str, Any], problem: str | None) -> str:
    if problem:
        return f"its proof does not hold now: {one_line(problem)}"
    genuine = "package and report are in the artefact store as they were registered"
    return f"its proof holds: {genuine}" if gate.get("verdict") == "PASS" else genuine


def _refusal_lines(version: Version, state: State) -> list[str]:
    refusal = version.tags.get(versions.REFUSED_TAG)
    if refusal is None or state == "refused":
        return []
    if refusal.startswith(standing.damage(version.number, "")):
        return [f"it was found damaged, and the alias champion was taken from it: {one_line(refusal)}"]
    return [f"it was made champion by hand since, and refused: {one_line(refusal)}"]


def _by_tags(tags: Mapping[str, str]) -> Mapping[str, Any]:
    retention: dict[str, dict[str, float]] = {}
    for name, value in tags.items():
        if name.startswith("retention.") and name.count(".") == 2:
            _, metric, bound = name.split(".")
            with suppress(ValueError):
                retention.setdefault(metric, {})[bound] = float(value)
    return {"verdict": tags.get(versions.VERDICT_TAG), "retention": retention, "by": "tags"}


def _gate_lines(gate: Mapping[str, Any]) -> list[str]:
    said = "its tags say" if gate.get("by") == "tags" else "the gate said"
    lines = [f"{said} {gate.get('verdict')}"]
    for metric, bounds in gate.get("retention", {}).items():
        wanted = gate.get("thresholds", {}).get(metric)
        asked = "" if wanted is None else f", asked for {wanted:g}"
        sure = f"{100 * gate['confidence']:g} % bounds" if "confidence" in gate else "bounds"
        point, lower, upper = (f"{bounds[name]:.4f}" if name in bounds else "?" for name in ("point", "lower", "upper"))
        lines.append(f"  retention of {metric} {point}, {sure} {lower} to {upper}{asked}")
    return lines + [f"  {one_line(str(reason))}" for reason in gate.get("reasons", ())]


def _asked(gate: Mapping[str, Any]) -> Approval:
    try:
        return recorded(gate)
    except InputError:
        return Approval()


def _approval_lines(version: Version, asked: Approval) -> list[str]:
    if not asked.required:
        return []
    names = {
        "approved by": version.tags.get(versions.APPROVER_TAG, "nobody yet"),
        "author": version.tags.get(versions.AUTHOR_TAG, "not known"),
    }
    by = ", by another than its author" if asked.four_eyes else ""
    told = "; ".join(f"{what} {one_line(name)}" for what, name in names.items())
    return [f"a person's approval is asked for{by} ({one_line(asked.because)}): {told}"]


def _when(entry: Entry) -> str:
    return one_line(entry.time).replace("T", " ").replace("+00:00", " UTC")


def _whose(entry: Entry) -> str:
    return f"{one_line(entry.actor)}: {one_line(entry.reason)}"
