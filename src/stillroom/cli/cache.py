"""`stillroom cache`: look into the teacher cache, check it, clear it, and carry it elsewhere."""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillroom.cli.cache_output import print_audits, print_explained, print_moved, print_rows
from stillroom.cli.options import AsJson, WorkspaceFolder, checkout
from stillroom.errors import InputError

if TYPE_CHECKING:
    from stillroom.cache.audit import Audit
    from stillroom.cache.capture import Captured
    from stillroom.cache.identity import Example, Fingerprint, Keys
    from stillroom.params import Params

app = typer.Typer(name="cache", help="Look into the teacher cache, check it, clear it, carry it.", no_args_is_help=True)

StoreAddress = Annotated[
    str | None,
    typer.Option("--store", metavar="ADDRESS", help="A folder or s3://bucket/prefix; default, the state folder's."),
]
Teacher = Annotated[str | None, typer.Option("--teacher", metavar="HEX", help="Name of one teacher's folder.")]


@app.command()
def explain(
    row: Annotated[int | None, typer.Argument(help="Row of the transfer set, from 0.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text of yours; give it twice for a pair.")] = None,
    key: Annotated[str | None, typer.Option(metavar="HEX", help="The key of an entry.")] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="FOLDER FOLDER", help="Two teachers' folders to compare.")
    ] = None,
    workspace: WorkspaceFolder = None,
    store: StoreAddress = None,
    as_json: AsJson = False,
) -> None:
    """Print how a key came about and where its answer stands, or in what two folders of answers differ."""
    if sum(value is not None for value in (row, text or None, key, compare)) != 1:
        raise InputError("cache explain: give one of ROW, --text, --key and --compare")
    if compare is not None:
        _print_compared(*compare, as_json=as_json)
        return
    from stillroom.cache.explain import origin, standing
    from stillroom.cache.identity import differences, entry_keys, parse_key

    told: dict[str, Any] = {}
    if key is None:
        example = _example(row, text or [], workspace)
        told |= vars(origin(example))
        digits: Keys = entry_keys([example])
    else:
        digits = parse_key(key)
    told["key"] = digits.tobytes().hex()
    now, then = _teachers(workspace), _captured(workspace)
    names = _names(now or then)
    told |= {"fingerprint": next(iter(now or then), None), "folder": next(iter(names), None)}
    told["differences"] = [line for one, other in zip(then, now, strict=False) for line in differences(one, other)]
    if then and now and len(then) != len(now):
        told["differences"].append(f"teachers: {len(then)} there, {len(now)} here")
    places = [*map(str, _snapshots(workspace)), *_places(store, None if key else names)]
    standings = [standing(place, digits) for place in places]
    if key and not any(one.shard for one in standings):
        raise InputError(f"no answer has the key {told['key']} in {' or '.join(places) or _store(store)}")
    told["answers"] = [{**vars(one), "top": [vars(top) for top in one.top]} for one in standings]
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print_explained(told)


@app.command()
def stats(store: StoreAddress = None, as_json: AsJson = False) -> None:
    """Print whose answers there are, how many, how large, and how often they were asked for again."""
    from datetime import UTC, datetime

    from stillroom.cache.stats import stats as figures

    found = figures(_store(store))
    if as_json:
        print(json.dumps([vars(one) for one in found]))
        return
    for one in found:
        rows = {
            "teacher": one.teacher,
            "weights": f"{one.weights}  {one.labels} labels, {one.precision}, {one.max_length} tokens at most",
            "signals": ", ".join(f"{name} {codec}" for name, codec in one.signals.items()),
            "entries": f"{one.entries:,} in {one.shards} shards",
            "bytes": f"{one.size_bytes:,}"
            + ("" if one.bytes_per_entry is None else f"; {one.bytes_per_entry:.1f} per entry"),
        }
        if one.hit_rate is not None and one.last_pass is not None:
            last = datetime.fromtimestamp(one.last_pass, UTC).isoformat()
            rows["hits"] = f"{one.hit_rate:.1%} of what {one.passes} passes asked for, the last at {last}"
        print_rows(rows)
        print()


@app.command()
def verify(
    folder: Annotated[
        str | None, typer.Argument(help="A cache or one teacher's folder; default, artifacts/cache and the store.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, metavar="N", help="Compare so many entries with the live teacher.")] = 0,
    repair: Annotated[bool, typer.Option("--repair", help="Strike what is damaged and compute it again.")] = False,
    workspace: WorkspaceFolder = None,
    store: StoreAddress = None,
    as_json: AsJson = False,
) -> None:
    """Check every manifest, shard and key; name every damaged file. Exit code 2 if any stays damaged."""
    from stillroom.cache.audit import audit, check_live

    addresses = _checked(folder, store, workspace)
    audits = [audit(address) for address in addresses]
    said = _repair(audits, workspace, store) if repair else []
    if said:
        audits = [audit(address) for address in addresses]
    damaged = {one.address: list(one.damaged) for one in audits}
    if sample:
        from stillroom import compute, layout
        from stillroom.cache.live import load_live
        from stillroom.stages.capture import transfer_set
        from stillroom.teacher.model import teachers_of

        place, params = _place(workspace), _params(workspace)
        compute.prepare(params.compute)
        machine, budget = params.compute, params.capture.batch_tokens
        live = (load_live(folder, machine, budget) for folder in teachers_of(place / layout.TEACHER))
        for address, line in check_live(audits, live, transfer_set(place), sample, params.seed).items():
            damaged[address].append(line)
    print_audits(audits, damaged, said, as_json)
    if any(damaged.values()):
        raise typer.Exit(InputError.exit_code)


@app.command()
def gc(
    grace_hours: Annotated[float, typer.Option(min=0, help="Leave what is younger.")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and leave it.")] = False,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="HEX", help="Remove this teacher's folder, and nothing else.")
    ] = None,
    workspace: WorkspaceFolder = None,
    store: StoreAddress = None,
    as_json: AsJson = False,
) -> None:
    """Remove shards that no manifest lists, or the whole folder of a teacher that nobody needs any more."""
    from stillroom.cache.garbage import collect, unlisted
    from stillroom.cache.manifest import Manifest, Manifests
    from stillroom.cache.root import begun, remove_teacher, teacher_files
    from stillroom.storage import open_storage

    address = _store(store)
    removed: dict[str, int] = {}
    if teacher is not None:
        if teacher in _names(_captured(workspace)):
            raise InputError(f"{teacher}: artifacts/cache of this workspace holds this teacher's answers; it stays")
        removed[teacher] = sum((teacher_files if dry_run else remove_teacher)(address, teacher).values())
    else:
        for name in begun(address):
            storage = open_storage(f"{address}/{name}")
            manifests = Manifests(storage, Manifest(fingerprint={}))  # without any, nothing is listed
            found = (unlisted if dry_run else collect)(storage, manifests, grace_hours * 3600)
            removed |= {f"{name}/{file}": size for file, size in found.items()}
    if as_json:
        print(json.dumps({"removed": removed, "size_bytes": sum(removed.values()), "dry_run": dry_run}))
        return
    for file, size in removed.items():
        print(f"{file}  {size:,} bytes")
    print(f"{'would free' if dry_run else 'freed'} {sum(removed.values()):,} bytes")


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix.")],
    teacher: Teacher = None,
    store: StoreAddress = None,
    as_json: AsJson = False,
) -> None:
    """Send a whole cache to another place; what is there already is not sent again."""
    from stillroom.cache.root import local
    from stillroom.cache.transfer import export as send

    print_moved(send(local(_store(store), "an export"), target, teacher), as_json)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix.")],
    teacher: Teacher = None,
    store: StoreAddress = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a whole cache from another place; what is here already is not fetched again."""
    from stillroom.cache.root import local
    from stillroom.cache.transfer import fetch

    print_moved(fetch(source, local(_store(store), "an import"), teacher), as_json)


def _place(workspace: Path | None) -> Path:
    return workspace or checkout()


def _store(address: str | None) -> str:
    """The cache that is meant: its address without a slash at the end."""
    from stillroom import layout

    if address is not None:
        return address.rstrip("/") or address
    if layout.STATE_VARIABLE not in os.environ:
        os.environ[layout.STATE_VARIABLE] = str(checkout() / ".stillroom")
    return str(layout.state() / "cache")


def _params(workspace: Path | None) -> "Params":
    from stillroom import layout
    from stillroom.params_file import load_params

    return load_params(_place(workspace) / layout.PARAMS)


def _teachers(workspace: Path | None) -> "list[Fingerprint]":
    """What the teachers of the workspace have as fingerprints now; none before the stage teach."""
    from stillroom import layout
    from stillroom.cache.codecs import asked_for
    from stillroom.cache.live import fingerprint_unloaded
    from stillroom.teacher.model import DESCRIPTION, teachers_of

    first = _place(workspace) / layout.TEACHER
    if not (first / DESCRIPTION).is_file():
        return []
    params = _params(workspace)
    signals = asked_for(params.capture.signals)
    return [fingerprint_unloaded(folder, params.compute, signals) for folder in teachers_of(first)]


def _snapshots(workspace: Path | None) -> list[Path]:
    """artifacts/cache, which has the answers of the first teacher, and the folders of others below; those that are."""
    from stillroom import layout

    first = _place(workspace) / layout.CACHE
    return [path for path in (first, *sorted((first / layout.MEMBERS).glob("*"))) if path.is_dir()]


def _captured(workspace: Path | None) -> "list[Fingerprint]":
    """The fingerprints that artifacts/cache was captured with; none before the stage capture."""
    from stillroom.cache.manifest import Manifests
    from stillroom.storage import Folder

    return [Manifests(Folder(folder)).latest().fingerprint for folder in _snapshots(workspace)]


def _names(teachers: "Iterable[Fingerprint]") -> list[str]:
    from stillroom.cache.identity import folder_name

    return [folder_name(fields) for fields in teachers]


def _example(row: int | None, text: list[str], workspace: Path | None) -> "Example":
    from stillroom.cache.explain import text_of
    from stillroom.stages.capture import transfer_set

    if row is not None:
        return text_of(transfer_set(_place(workspace)), row)
    if len(text) > 2:
        raise InputError(f"cache explain: --text is given {len(text)} times; once is a text, twice a pair of texts")
    return text[0] if len(text) == 1 else (text[0], text[1])


def _places(store: str | None, teachers: list[str] | None) -> list[str]:
    """Folders of a store where an answer may stand: those of some teachers, there or not, or those of all."""
    from stillroom.cache.root import teachers as every

    address = _store(store)
    found = every(address) if store is not None or Path(address).is_dir() else []
    return [f"{address}/{name}" for name in teachers or found]


def _checked(folder: str | None, store: str | None, workspace: Path | None) -> list[str]:
    """Addresses of the teachers' folders that `verify` is asked about."""
    from stillroom.cache.root import folders

    if folder is not None:
        return folders(folder.rstrip("/") or folder)
    here, address = list(map(str, _snapshots(workspace))), _store(store)
    if store is None and here and not Path(address).is_dir():
        return here
    return [*here, *folders(address)]


def _repair(audits: "Iterable[Audit]", workspace: Path | None, store: str | None) -> list[str]:
    """Repair what is damaged, artifacts/cache last; what was done, in a line each."""
    from stillroom import layout
    from stillroom.cache.repair import repair
    from stillroom.stages import capture
    from stillroom.storage.address import parse

    damaged = [one for one in audits if one.damaged]
    if not damaged:
        return []
    place, params, teachers = _place(workspace), _params(workspace), _teachers(workspace)

    @cache
    def captured(root: Path, shared: str | None) -> "list[Captured]":
        changed = params.capture.model_copy(update={"store": shared or params.capture.store})
        return capture.fill(params.model_copy(update={"capture": changed}), place, root)

    def fill(root: Path, shared: str | None) -> int:
        return sum(one.computed for one in captured(root, shared))

    snapshot = (place / layout.CACHE).resolve()
    said: list[str] = []
    for one in sorted(damaged, key=lambda one: _within(one.address, snapshot)):
        if _within(one.address, snapshot):
            address = _store(store)
            where = (Path(address), None) if isinstance(parse(address), Path) else (layout.state() / "cache", address)
            capture.publish(captured(*where), params, place)
            said.append(f"{one.address}: written anew from the store; {fill(*where)} entries were computed for it")
            continue
        done = repair(one, teachers, fill)
        said.append(
            f"{one.address}: repaired; "
            + (
                "what it lost comes back at the next capture with its teacher"
                if done.computed is None
                else f"{done.computed} entries were computed again"
            )
        )
    return said


def _within(address: str, folder: Path) -> bool:
    return "://" not in address and Path(address).resolve().is_relative_to(folder)


def _print_compared(one: str, other: str, *, as_json: bool) -> None:
    from stillroom.cache.identity import differences
    from stillroom.cache.manifest import Manifests
    from stillroom.storage import open_storage

    there, here = (Manifests(open_storage(address)).latest().fingerprint for address in (one, other))
    found = differences(there, here)
    if as_json:
        print(json.dumps({"there": one, "here": other, "differences": found}, ensure_ascii=False))
        return
    print_rows({"there": one, "here": other})
    print("\n".join(found) or "the same")
