"""What the commands of `stillroom cache` print."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillroom.cache.audit import Audit
    from stillroom.cache.transfer import Moved


def print_explained(told: dict[str, Any]) -> None:
    """How a key came about and where its answer stands, as `cache explain` gathers it."""
    if "canonical" in told:
        print_rows({"content": told["canonical"], "sha256": told["sha256"]})
    print_rows({"key": told["key"]})
    if told["fingerprint"] is None:
        print("no teacher here yet; run the stage teach")
    else:
        print_rows({"folder": told["folder"]})
        for name, value in told["fingerprint"].items():
            shown = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
            print_rows({f"  {name}": shown})
    for one in told["answers"]:
        where = f"row {one['position']} of {one['shard']}" if one["shard"] else "not there"
        print_rows({"answer": f"{one['folder']}: {where}"})
        for top in one["top"]:
            print(f"  {top['probability']:.4f}  {top['logit']:+.3f}  {top['label']}")
    for line in told["differences"]:
        print(f"artifacts/cache was captured otherwise: {line}")


def print_audits(audits: "Iterable[Audit]", damaged: dict[str, list[str]], said: list[str], as_json: bool) -> None:
    """What was repaired, then every folder with the lines of what stays damaged, by its address."""
    if as_json:
        rows = [
            {"folder": one.address, "entries": one.entries, "shards": one.shards, "damaged": damaged[one.address]}
            for one in audits
        ]
        print(json.dumps({"folders": rows, "repaired": said}, ensure_ascii=False))
        return
    for line in said:
        print(line)
    for one in audits:
        state = "damaged" if damaged[one.address] else "whole"
        print(f"{state:8s} {one.address}  {one.entries:,} entries in {one.shards} shards")
        for line in damaged[one.address]:
            print(f"  {line}")


def print_moved(moved: "list[Moved]", as_json: bool) -> None:
    """What was copied of each teacher."""
    if as_json:
        print(json.dumps([vars(one) for one in moved]))
        return
    for one in moved:
        print(f"{one.teacher}  {one.shards} shards, {one.size_bytes:,} bytes")
    print(f"moved {sum(one.shards for one in moved)} shards, {sum(one.size_bytes for one in moved):,} bytes")


def print_rows(rows: dict[str, Any]) -> None:
    """A name and a value a line."""
    for name, value in rows.items():
        print(f"{name:18s} {value}")
