"""The console script: checks what the command line needs before it is imported, in words any Python understands."""

import sys

_NEEDED = (3, 11)


def main() -> None:
    """Start the command line, or say in one line why it can't start."""
    if sys.version_info[:2] < _NEEDED:
        sys.exit(_refuse("Python %d.%d is too old; Stillroom needs %d.%d or newer" % (sys.version_info[:2] + _NEEDED)))  # noqa: UP031
    try:
        from stillroom.cli.main import run_cli
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "pydantic"):
            raise
        sys.exit(_refuse("the command line needs the pipeline: run make install in the checkout"))
    sys.exit(run_cli())


def _refuse(reason: str) -> int:
    sys.stderr.write("stillroom: " + reason + "\n")
    return 2
