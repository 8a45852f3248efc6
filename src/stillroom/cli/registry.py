"""`stillroom promote`, `rollback`, `history`, `why`, `ledger`: the champion, how it changes and how it came about."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from stillroom.cli.options import AsJson, RegisteredModel, checkout
from stillroom.errors import InputError

app = typer.Typer()
_ledger = typer.Typer(name="ledger", help="The record of promotions itself.", no_args_is_help=True)
app.add_typer(_ledger)

Reason = Annotated[str, typer.Option(help="Why; it stands in the ledger.")]
Actor = Annotated[str | None, typer.Option(help="Who; default, the user of this shell.")]


@_ledger.callback()
def ledger() -> None:
    """The record of promotions itself."""


def model_name(registered: str | None) -> str:
    """The registered model that is meant, with the checkout's state folder as the place of what is local.

    Raises InputError for what can be no model's name.
    """
    from stillroom import layout
    from stillroom.params_file import load_params
    from stillroom.registry.ledger import entry_name

    root = checkout()
    os.environ.setdefault(layout.STATE_VARIABLE, str(root / ".stillroom"))
    if registered is None:
        return load_params(root / layout.PARAMS).registry.model
    entry_name(registered, 0)
    return registered


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Version of the registered model.")],
    reason: Reason,
    actor: Actor = None,
    registered: RegisteredModel = None,
) -> None:
    """Make a version that passed its gate the champion; where a person's approval is asked for, the actor gives it."""
    from stillroom.registry import promotion

    model = model_name(registered)
    entry = promotion.promote(model, version, _named(actor), reason)
    print(f"{model}: version {entry.to_version} is champion (ledger entry {entry.sequence})")


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[int | None, typer.Option(metavar="VERSION", help="Default, the champion before this one.")] = None,
    actor: Actor = None,
    registered: RegisteredModel = None,
) -> None:
    """Go back to the champion before this one, or to a given version, by the same rules as a promotion."""
    from stillroom.registry import promotion

    model = model_name(registered)
    entry = promotion.rollback(model, _named(actor), reason, to)
    print(f"{model}: version {entry.to_version} is champion again (ledger entry {entry.sequence})")


@app.command()
def history(registered: RegisteredModel = None, as_json: AsJson = False) -> None:
    """Tell how the champion changed: a line per entry of the ledger, the newest last."""
    from stillroom.registry import story

    model = model_name(registered)
    steps = story.history(model)
    if as_json:
        print(json.dumps({"model": model, "entries": [story.as_json(step) for step in steps]}, ensure_ascii=False))
        return
    for step in steps:
        print(step.told)
    if not steps:
        print(f"{model}: nothing was promoted yet")


@app.command()
def why(
    version: Annotated[int | None, typer.Option(help="A version; default, the champion.")] = None,
    registered: RegisteredModel = None,
    as_json: AsJson = False,
) -> None:
    """Tell why a version is live, or is not: who made it champion, what the gate said, whether its proof holds."""
    from stillroom.registry import story

    found = story.why(model_name(registered), version)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for line in found.told:
        print(line)


@_ledger.command()
def verify(registered: RegisteredModel = None, as_json: AsJson = False) -> None:
    """Check that every entry follows from the one before it, and that the last is the one which the registry remembers;
    print how many there are, and the hash of the last."""
    from stillroom.registry import ledger, promotion

    model, store = model_name(registered), ledger.default_store()
    entries = promotion.verify(model, store=store)
    last = ledger.digest(entries[-1]) if entries else None
    if as_json:
        print(json.dumps({"model": model, "store": store.where, "entries": len(entries), "last_sha256": last}))
    else:
        end = f"; the last has sha256 {last}" if last else ""
        print(f"{model}: {len(entries)} {'entry' if len(entries) == 1 else 'entries'} in {store.where}, whole{end}")


def _named(actor: str | None) -> str:
    """The actor, or the user of this shell."""
    from stillroom.registry.origin import user

    if actor is not None:
        return actor
    if not (named := user()):
        raise InputError("the user of this shell has no name; give --actor")
    return named
