"""What every section of params.yaml is made of."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
GIVEN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
"""What people may call a part of params.yaml: it becomes a file's name and a key that DVC reads."""
_DROPPED_BY_DVC = ("size", "nfiles")
"""Keys that DVC leaves out of its run-cache key at any depth, and so serves stale results (treeverse/dvc#10296)."""


class Section(BaseModel):
    """A part of params.yaml: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def check_given_name(name: str, where: str, what: str) -> None:
    """Refuse a key of the section `where`, a `what` (student, slice), that files or DVC can't take."""
    if not GIVEN_NAME.fullmatch(name):
        raise ValueError(f"{where}: {name!r} is no {what} name; use letters, digits, - and _")
    if name in _DROPPED_BY_DVC:
        raise ValueError(f"{where}: {name!r} is a key that DVC ignores; rename the {what}")
