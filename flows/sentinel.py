"""Keep the champion alias and the ledger together: heal a crash between the two, meet a move made by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from stillroom import layout
from stillroom.params_file import load_params


@flow(name="sentinel", persist_result=False)
def sentinel(params_file: str = str(layout.PARAMS)) -> Any:
    """Reconcile the registered model that params.yaml names; anything but "in step" leaves an artefact.

    Args:
        params_file: The file whose registry.model is watched.

    Returns what was found; the state is then named after it (MovedBack, Adopted, Healed, …), for automations to act on.
    """
    from stillroom.registry import promotion

    model = load_params(Path(params_file)).registry.model
    found = promotion.reconcile(model)
    told = f"{model}: {found.outcome}, champion {found.champion or 'none'}"
    if found.outcome == "in step":
        get_run_logger().info("%s", told)
        return asdict(found)
    get_run_logger().warning("%s (%s)", told, found.detail)
    create_markdown_artifact(
        f"**{told}**\n\n{found.detail}\n",
        key="stillroom-sentinel",
        description="What the sentinel had to do",
    )
    return Completed(name=found.outcome.title().replace(" ", ""), message=told, data=asdict(found))
