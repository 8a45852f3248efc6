"""What a run would do, and why, before it does anything."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillroom import layout
from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.params_file import read_yaml
from stillroom.pipeline.command import Pending, start_dvc
from stillroom.pipeline.graph import Graph, parse_graph
from stillroom.pipeline.outcome import fingerprint, read_lock

Status = Literal["up to date", "changed", "downstream"]
_ABSENT = object()
_GRAPH = Path(".stillroom/graph.json")


@dataclass(frozen=True)
class PlannedStage:
    """`changed` runs, or comes from the run-cache; `downstream` runs if what it reads comes out different."""

    address: str
    status: Status
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every stage in the order of the graph, and the fingerprints of those that are up to date."""

    graph: Graph
    stages: tuple[PlannedStage, ...]
    fingerprints: Mapping[str, str]
    seconds: float = 0.0

    @property
    def due(self) -> tuple[str, ...]:
        """Addresses that DVC has to be asked about."""
        return tuple(stage.address for stage in self.stages if stage.status != "up to date")

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage is certainly up to date."""
        return not self.due


@dataclass(frozen=True)
class PendingPlan:
    """DVC at work on the plan; the caller may import heavy modules meanwhile."""

    workspace: Path
    status: Pending
    dag: Pending | None
    """None where the graph is known from before."""
    key: str
    started: float

    def result(self) -> Plan:
        """Wait for DVC and put the plan together; InputError where dvc.yaml does not resolve."""
        try:
            lock, params = read_lock(self.workspace), read_yaml(self.workspace / layout.PARAMS)
            graph = self._graph()
            status = json.loads(self.status.output() or "{}")
        finally:
            self.abandon()
        stages = tuple(planned(graph, status, lock, params))
        known = {name: fingerprint(lock[name]) for name in graph.order if name in lock}
        return Plan(graph, stages, known, time.monotonic() - self.started)

    def abandon(self) -> None:
        """End DVC if it still works on this."""
        self.status.abandon()
        if self.dag is not None:
            self.dag.abandon()

    def _graph(self) -> Graph:
        if self.dag is None:
            return parse_graph(read_json(self.workspace / _GRAPH)["dot"])
        dot = self.dag.output()
        graph = parse_graph(dot)
        write_json(self.workspace / _GRAPH, {"key": self.key, "dot": dot})
        return graph


def start_plan(workspace: Path) -> PendingPlan:
    """Ask DVC for what changed and, unless dvc.yaml and params.yaml are as the last time, for the graph."""
    started = time.monotonic()
    status = start_dvc(workspace, "--wait-for-lock", "status", "--json")
    key = _graph_key(workspace)
    dag = None if key == _known_graph_key(workspace) else start_dvc(workspace, "dag", "--dot")
    return PendingPlan(workspace, status, dag, key, started)


def _graph_key(workspace: Path) -> str:
    """sha256 of all that the graph is made of; half a second of DVC is saved where it is known."""
    digest = hashlib.sha256()
    for name in ("dvc.yaml", str(layout.PARAMS)):
        path = workspace / name
        digest.update(path.read_bytes() if path.is_file() else b"none")
        digest.update(b"\0")
    return digest.hexdigest()


def _known_graph_key(workspace: Path) -> str | None:
    try:
        known = read_json(workspace / _GRAPH)
        return str(known["key"]) if known["dot"] else None
    except (InputError, KeyError, TypeError):
        return None


def make_plan(workspace: Path) -> Plan:
    """The plan of a workspace; about half a second."""
    return start_plan(workspace).result()


def planned(
    graph: Graph, status: Mapping[str, Any], lock: Mapping[str, Any], params: Mapping[str, Any]
) -> Iterator[PlannedStage]:
    """Turn `dvc status --json` into words, stage by stage in graph order."""
    changed = [name for name in graph.order if name in status]
    below = graph.downstream(changed)
    for name in graph.order:
        above = [source for source in graph.upstream[name] if source in below or source in changed]
        if name in status:
            yield PlannedStage(name, "changed", tuple(_reasons(status[name], lock.get(name, {}), params)))
        elif name in below:
            yield PlannedStage(name, "downstream", tuple(f"after {source}" for source in above))
        else:
            yield PlannedStage(name, "up to date")


def _reasons(entries: Any, locked: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    if not locked:
        yield "never run here"
        return
    for entry in entries:
        if isinstance(entry, str):  # "changed command", "changed checksum", "always changed"
            yield entry.removeprefix("changed ") + " changed" if entry.startswith("changed ") else entry
            continue
        for kind, items in entry.items():
            which = "deps" if kind == "changed deps" else "outs"
            for path, state in items.items():
                if isinstance(state, Mapping):
                    before = locked.get("params", {}).get(path, {})
                    yield from _params_reasons(path, state, before, params if path == str(layout.PARAMS) else {})
                elif path == str(layout.PARAMS):
                    yield f"{path} {_in_words(state)}"
                else:
                    yield f"{which} {path} {_in_words(state)}"


def _params_reasons(
    path: str, keys: Mapping[str, str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    for key, state in keys.items():
        old, new = before.get(key, _ABSENT), _at(now, key)
        leaves = list(_differing(key, old, new)) if _ABSENT not in (old, new) else []
        for leaf in leaves or [key]:
            yield f"{path} {leaf} {_in_words(state)}"


def _differing(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            yield from _differing(f"{key}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif old != new:
        yield key


def _at(tree: Mapping[str, Any], dotted: str) -> Any:
    node: Any = tree
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _in_words(state: str) -> str:
    return {"modified": "changed", "deleted": "missing", "not in cache": "not in the cache"}.get(state, state)
