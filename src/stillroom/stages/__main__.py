"""`python -m stillroom.stages NAME [ITEM]`: run one stage of dvc.yaml in the workspace that is the current folder."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import stillroom
from stillroom import layout
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.files import NO_SPACE
from stillroom.params_file import load_params
from stillroom.parent import die_with_parent
from stillroom.stages.receipt import Receipt, address, write_ended, write_started

STAGES = (
    "ingest",
    "split",
    "grow",
    "teach",
    "capture",
    "reference",
    "distil",
    "quantise",
    "evaluate",
    "select",
    "report",
)
MATRIX = ("distil", "quantise", "evaluate")
_WAIT_IDLY = ("OMP_WAIT_POLICY", "passive")
"""Threads that wait for each other must not spin: beside another busy process that cost a factor of four and more.
Read by OpenMP when torch is first imported."""

log = logging.getLogger("stillroom")


def main(argv: Sequence[str]) -> int:
    """Run a stage and return its exit code; every foreseen error is one line on stderr."""
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGKILL)  # a killed DVC must not leave a stage that writes beside its successor
    os.environ.setdefault(*_WAIT_IDLY)
    signal.signal(signal.SIGTERM, _terminated)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        name, item = parse(argv)
        use_workspace_code()
        params = load_params(layout.PARAMS)
        if item is not None and item not in params.students:
            raise InputError(f"params.yaml: students has no {item!r}; it has {', '.join(params.students)}")
    except StillroomError as error:
        log.error("%s", error)
        return error.exit_code
    try:
        receipt = write_started(address(name, item))
    except OSError as error:
        return _no_space(error)
    exit_code, metrics = 1, {}
    told: str | None = "killed"
    try:
        module: Any = importlib.import_module(f"stillroom.stages.{name}")
        metrics = module.run(params, item) if item else module.run(params)
        exit_code, told = 0, None
    except StillroomError as error:
        exit_code, told = error.exit_code, str(error)
        log.error("%s", error)
    except SystemExit as stop:
        exit_code, told = int(stop.code or 1), "terminated"
        raise
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        exit_code = _no_space(error)
    finally:
        _end(receipt, exit_code, told, metrics)
    return exit_code


def _no_space(error: BaseException) -> int:
    """Tell that the disk is full and return the exit code of that; any other error is raised again."""
    # safetensors and tokenizers tell it in words alone
    in_words = any(f"(os error {number})" in str(error) for number in NO_SPACE)
    if getattr(error, "errno", None) not in NO_SPACE and not in_words:
        raise error
    log.error("no space left on the disk of %s or of %s; free some and run again", Path.cwd(), layout.state())
    return TryAgain.exit_code


def _end(receipt: Receipt, exit_code: int, told: str | None, metrics: Mapping[str, Any]) -> None:
    try:
        write_ended(receipt, exit_code, told, metrics)
    except OSError as error:  # must not hide how the stage ended
        log.warning("the receipt of %s cannot be written: %s", receipt.stage, error)


def parse(argv: Sequence[str]) -> tuple[str, str | None]:
    """Split the arguments into stage and item; raises InputError for a name that dvc.yaml does not have."""
    if not 1 <= len(argv) <= 2 or argv[0] not in STAGES:
        raise InputError(
            f"stages: {' '.join(argv) or 'no name'!s}; give one of {', '.join(STAGES)}, and a student if it needs one"
        )
    name, item = argv[0], (argv[1] if len(argv) == 2 else None)
    if (name in MATRIX) != (item is not None):
        raise InputError(f"stages: {name} " + ("needs a student's name" if name in MATRIX else "takes no student"))
    return name, item


def use_workspace_code() -> None:
    """Start again from the workspace's own src/ if another copy was imported: DVC's key names these very files."""
    own = Path("src").absolute()
    imported = Path(stillroom.__file__).resolve().parent.parent
    if not (own / "stillroom" / "__init__.py").is_file() or imported == own.resolve():
        return
    if os.environ.get("STILLROOM_REEXECUTED") == str(own):
        raise InputError(f"{own}: cannot be imported in place of {imported}; check PYTHONPATH")
    os.environ["STILLROOM_REEXECUTED"] = str(own)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(own), os.environ.get("PYTHONPATH"))))
    os.execv(sys.executable, [sys.executable, "-m", "stillroom.stages", *sys.argv[1:]])


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
