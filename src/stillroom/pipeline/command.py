"""How DVC is called: this interpreter's own, in a workspace, with the environment that a stage may see."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import stillroom
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.pipeline.output import redactor

_PASSED = re.compile(
    r"^(HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|VIRTUAL_ENV|XDG_\w+|LD_LIBRARY_PATH|LD_PRELOAD|"
    r"(HTTPS?|NO|ALL)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_\w+|UV_\w+|GIT_SSL_\w+|"
    r"(CUDA|NVIDIA|NCCL|OMP|MKL|KMP|OPENBLAS|MALLOC|TORCH\w*|PYTORCH|HF|TRANSFORMERS|TOKENIZERS|ORT)_\w+|"
    r"(AWS|MLFLOW|DVC|STILLROOM|COVERAGE)_\w+|DO_NOT_TRACK|PYTHON(HASHSEED|WARNINGS|UTF8))$",
    re.I,
)
_WITHHELD = {"STILLROOM_REEXECUTED", "DVC_ROOT", "DVC_STAGE"}
_BUSY = re.compile(r"is busy, it is being blocked|Unable to acquire lock|another DVC process", re.I)
_FULL = re.compile(r"No space left on device|Disk quota exceeded", re.I)
_ERROR = re.compile(r"^ERROR: (?P<told>.+)$", re.M)
_QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
    "TQDM_DISABLE": "1",
    "SHELL": "/bin/sh",
}


def child_environment(workspace: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a stage sees: an allowlist, this interpreter first on PATH, the workspace's code first."""
    passed = {name: value for name, value in os.environ.items() if _PASSED.match(name) and name not in _WITHHELD}
    binaries = str(Path(sys.executable).parent)
    code = [
        str(workspace / "src"),
        os.environ.get("PYTHONPATH", ""),
        str(Path(stillroom.__file__).parents[1]),
    ]
    return {
        **passed,
        **_QUIET,
        "PATH": os.pathsep.join((binaries, os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, code))),
        **(extra or {}),
    }


def dvc_command(*arguments: str) -> list[str]:
    """The command that is `dvc …` by this interpreter, dying with its parent."""
    return [sys.executable, "-m", "stillroom.pipeline.child", str(os.getpid()), *arguments]


@dataclass(frozen=True)
class Pending:
    """A short DVC command under way; it goes on while the caller does something else."""

    arguments: tuple[str, ...]
    workspace: Path
    process: subprocess.Popen[str]
    told: IO[str]

    def output(self) -> str:
        """Wait for the end and return what it printed; raises `failure` where it did not end well."""
        try:
            printed, _ = self.process.communicate()
            if self.process.returncode == 0:
                return printed
            self.told.seek(0)
            raise failure(self.arguments, self.workspace, printed + self.told.read())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End the command if it still runs; nobody wants its answer."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.told.close()


def start_dvc(workspace: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> Pending:
    """Start a short DVC command (status, dag, add, push) without waiting for it."""
    told = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 – Pending closes it
    process = subprocess.Popen(
        dvc_command(*arguments),
        cwd=workspace,
        env=child_environment(workspace, extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=told,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    )
    return Pending(arguments, workspace, process, told)


def call_dvc(workspace: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
    """Run a short DVC command and return its standard output."""
    return start_dvc(workspace, *arguments, extra=extra).output()


def failure(arguments: Sequence[str], workspace: Path, printed: str) -> StillroomError:
    """DVC's own trouble in one line: a held lock or full disk is TryAgain, what it cannot read InputError."""
    redact = redactor(os.environ)
    told = [redact(found["told"]).strip() for found in _ERROR.finditer(printed)]
    words = [redact(text.strip()) for text in printed.splitlines() if text.strip()]
    line = "; ".join(told[:2]) or " ".join(words[:2]) or "it printed nothing"
    if _BUSY.search(printed):
        return TryAgain(f"{workspace}: {line}; wait for the other DVC process to end")
    if _FULL.search(printed):
        return TryAgain(f"{workspace}: {line}; free some disk space and run again")
    kind = StillroomError if "repro" in arguments else InputError
    return kind(f"{workspace}: dvc {' '.join(arguments)} failed: {line}")
