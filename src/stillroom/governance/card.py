"""The card that a checkpoint brings along (README.md with Hugging Face's metadata block): which licence it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CARD = "README.md"
_SAYS_NOTHING = ("other", "unknown")


@dataclass(frozen=True)
class Card:
    """Licences that a card names, none if it is silent; `fault` tells why it could not be read."""

    licences: tuple[str, ...] = ()
    fault: str | None = None


def read_card(checkpoint: Path) -> Card:
    """Read the card in a checkpoint's folder; nothing is fetched, and a folder without one is silent."""
    path = checkpoint / CARD
    if not path.is_file():
        return Card()
    from huggingface_hub import metadata_load

    try:
        block: dict[str, Any] = metadata_load(path) or {}
    except Exception as error:  # what yaml raises, a block that is no mapping, bytes that are no UTF-8
        return Card(fault=f"{type(error).__name__}: {' '.join(str(error).split())}"[:200])
    named = block.get("license")
    listed = named if isinstance(named, list) else [named]
    told = [block.get("license_name") if str(one).lower() in _SAYS_NOTHING else one for one in listed]
    return Card(tuple(str(one) for one in told if one))
