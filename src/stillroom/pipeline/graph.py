"""Stages and their edges, as DVC resolves them from dvc.yaml: the only list of stages there is."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stillroom import layout
from stillroom.errors import InputError
from stillroom.params import is_search
from stillroom.params_file import read_yaml

_EDGE = re.compile(r'^"(?P<source>[^"]+)" -> "(?P<target>[^"]+)";$')
_NODE = re.compile(r'^"(?P<name>[^"]+)";$')


@dataclass(frozen=True)
class Graph:
    """Every stage's address with the addresses that it reads from."""

    upstream: Mapping[str, tuple[str, ...]]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Addresses so that each comes after what it reads; among equals, as dvc.yaml lists them."""
        placed: dict[str, None] = {}
        waiting = list(self.upstream)
        while waiting:
            ready = [name for name in waiting if all(above in placed for above in self.upstream[name])]
            if not ready:
                raise InputError(f"dvc.yaml: {', '.join(waiting)} depend on each other in a circle")
            placed.update(dict.fromkeys(ready))
            waiting = [name for name in waiting if name not in placed]
        return tuple(placed)

    def downstream(self, addresses: Iterable[str]) -> set[str]:
        """Everything that reads, directly or not, from one of the addresses; they themselves are left out."""
        given = set(addresses)
        reached = set(given)
        for name in self.order:
            if reached.intersection(self.upstream[name]):
                reached.add(name)
        return reached - given


def parse_graph(dot: str) -> Graph:
    """Read what `dvc dag --dot` prints; what `dvc add` tracks (sources/data.dvc) is no stage and left out."""
    upstream: dict[str, list[str]] = {}
    for line in map(str.strip, dot.splitlines()):
        if node := _NODE.match(line):
            if not _is_file(node["name"]):
                upstream.setdefault(node["name"], [])
        elif (edge := _EDGE.match(line)) and not _is_file(edge["source"]):
            upstream.setdefault(edge["target"], []).append(edge["source"])
    if not upstream:
        raise InputError("dvc.yaml: no stages in it; run this from the root of a checkout")
    return Graph({name: tuple(sources) for name, sources in upstream.items()})


def alone(workspace: Path) -> Callable[[str], bool]:
    """Whether a stage, by its address, times things, so that nothing may run beside it.

    Those are what dvc.yaml marks with `meta: {alone: true}`, and the search of a student.
    """
    stages: Mapping[str, Any] = read_yaml(workspace / "dvc.yaml").get("stages") or {}
    marked = {name for name, stage in stages.items() if (stage.get("meta") or {}).get("alone")}
    students: Any = read_yaml(workspace / layout.PARAMS).get("students") or {}
    searched = {f"distil@{name}" for name, student in students.items() if is_search(student)}
    return lambda address: address in searched or address.partition("@")[0] in marked


def _is_file(node: str) -> bool:
    return node.endswith(".dvc")
