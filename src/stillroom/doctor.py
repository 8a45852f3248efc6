"""`stillroom doctor`: what this machine has, lacks, or has in a version that is known to do harm."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from stillroom import layout
from stillroom.cores import available_cores
from stillroom.errors import StillroomError

Status = Literal["ok", "warn", "fail"]

RUNTIME = ("numpy", "onnxruntime", "tokenizers")
PIPELINE = (
    "torch",
    "transformers",
    "lightning",
    "onnx",
    "mlflow",
    "prefect",
    "dvc",
    "fastapi",
    "pandas",
    "boto3",
)
_WAIT_S = 2.0
_GIB = 1 << 30
_NEEDED_BYTES = _GIB
_COMFORTABLE_BYTES = 5 * _GIB
_S3_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
_INSTALL = "make -B install"
"""-B, because make takes an environment whose packages were changed by hand for done."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. remedy: what to do about it, empty where nothing is to be done."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def check() -> list[Finding]:
    """Look at everything, in a few seconds whatever does not answer; never raises."""
    checks: Sequence[tuple[str, Callable[[], list[Finding]]]] = (
        ("python", _python),
        ("libraries", _libraries),
        ("blocked versions", _blocked),
        ("state folder", _state),
        ("mlflow", _tracking),
        ("s3", _s3),
        ("prefect", _prefect),
        ("git", _git),
        ("dvc", _dvc),
        ("cpu", _cpu),
        ("gpu", _gpu),
    )
    with ThreadPoolExecutor(len(checks)) as pool:
        found = pool.map(lambda each: _guarded(*each), checks)
        return [finding for findings in found for finding in findings]


def blocked(versions: Mapping[str, str]) -> list[Finding]:
    """Versions that must not be used, each with reason and way out. versions: by distribution name."""
    findings = []
    have = {name: _parts(told) for name, told in versions.items()}

    def block(name: str, status: Status, why: str, remedy: str) -> None:
        findings.append(Finding(name, status, f"{versions[name]} {why}", remedy))

    for name in ("lightning", "pytorch-lightning"):
        if have.get(name) in ((2, 6, 2), (2, 6, 3)):
            block(
                name,
                "fail",
                "is malicious: it steals credentials on import (CVE-2026-44484)",
                f"uninstall it, change every key this machine has seen, then {_INSTALL}",
            )
        elif name in have and have[name] < (2, 6, 6):
            block(name, "warn", "runs code of a checkpoint (CVE-2026-58659)", f"{name}>=2.6.6; {_INSTALL}")
    if "mlflow" in have and have["mlflow"] < (3, 16, 1):
        block("mlflow", "fail", "has a default admin password (CVE-2026-2635)", f"mlflow>=3.16.1; {_INSTALL}")
    if have.get("fastapi", ()) >= (0, 151) and "prefect" in have and have["prefect"] < (3, 9):
        told = f"keeps prefect {versions['prefect']} from starting any flow or server"
        block("fastapi", "fail", told, "pip install 'fastapi<0.151'")
    return findings


def cpu_features(cpuinfo: str) -> list[str]:
    """Those of the instruction sets that speed up int8 and bf16 which /proc/cpuinfo lists."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return [name for name in _CPU_FLAGS if name in flags]


def _guarded(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:
        return [Finding(name, "warn", f"could not be looked at: {' '.join(str(error).split())}")]


def _parts(told: str) -> tuple[int, ...]:
    """Leading numbers of a version: 2.13.0+cpu → (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", told)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _installed(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _python() -> list[Finding]:
    told = ".".join(str(part) for part in sys.version_info[:3])
    minor = sys.version_info.minor
    if minor < 11:
        return [Finding("python", "fail", f"{told} is too old", "use Python 3.11")]
    if minor > 11:
        return [Finding("python", "warn", f"{told}; Stillroom is tested with 3.11", "use Python 3.11 if in doubt")]
    return [Finding("python", "ok", told)]


def _libraries() -> list[Finding]:
    findings = []
    for kind, names, status in (("runtime", RUNTIME, "fail"), ("pipeline", PIPELINE, "warn")):
        have = _installed(names)
        lacking = [name for name in names if name not in have]
        told = ", ".join(f"{name} {number}" for name, number in have.items()) or "nothing installed"
        if not lacking:
            findings.append(Finding(kind, "ok", told))
        elif status == "fail":
            findings.append(Finding(kind, "fail", f"lacks {', '.join(lacking)}", _INSTALL))
        else:
            findings.append(Finding(kind, "warn", f"{told}; lacks {', '.join(lacking)}", _INSTALL))
    return findings


def _blocked() -> list[Finding]:
    findings = blocked(_installed((*PIPELINE, "pytorch-lightning")))
    return findings or [Finding("blocked versions", "ok", "none installed")]


def _state() -> list[Finding]:
    folder = layout.state()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = f"set {layout.STATE_VARIABLE} to a folder that you may write"
        return [Finding("state folder", "fail", f"{folder}: {existing} cannot be written", remedy)]
    free = shutil.disk_usage(existing).free
    told = f"{free / _GIB:.1f} GiB free at {folder}"
    remedy = f"free some space or set {layout.STATE_VARIABLE}"
    if free < _NEEDED_BYTES:
        disk = Finding("disk", "fail", told, remedy)
    elif free < _COMFORTABLE_BYTES:
        disk = Finding("disk", "warn", told, remedy)
    else:
        disk = Finding("disk", "ok", told)
    return [Finding("state folder", "ok", str(folder)), disk]


def _tracking() -> list[Finding]:
    from stillroom.registry.tracking import check_before_run, redacted, sqlite_file, tracking_uri

    uri = tracking_uri()
    path = sqlite_file(uri)
    try:
        check_before_run()
    except StillroomError as error:
        return [Finding("mlflow", "fail", str(error), "start the server, or unset MLFLOW_TRACKING_URI")]
    told = "is made by the first run" if path is not None and not path.exists() else "answers"
    return [Finding("mlflow", "ok", f"{redacted(uri)} {told}")]


def _s3() -> list[Finding]:
    name = next((name for name in _S3_VARIABLES if os.environ.get(name)), None)
    if name is None:
        return [Finding("s3", "ok", "no endpoint configured")]
    parts = urlsplit(os.environ[name])
    import socket

    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _WAIT_S).close()
    except OSError as error:
        return [Finding("s3", "fail", f"{host}:{port} is not to be reached ({error})", f"check {name}")]
    return [Finding("s3", "ok", f"{host}:{port} answers")]


def _prefect() -> list[Finding]:
    from urllib.request import urlopen

    from stillroom.registry.tracking import redacted, without_credentials

    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        return [Finding("prefect", "ok", "no server configured; each flow brings its own")]
    if not url.startswith(("http://", "https://")):
        return [Finding("prefect", "fail", f"PREFECT_API_URL is {redacted(url)!r}", "give http(s)://HOST/api")]
    try:
        urlopen(f"{without_credentials(url)}/health", timeout=_WAIT_S).close()
    except OSError as error:
        told = f"{redacted(url)} is not to be reached ({error})"
        return [Finding("prefect", "fail", told, "start `prefect server start`, or unset PREFECT_API_URL")]
    return [Finding("prefect", "ok", f"{redacted(url)} answers")]


def _git() -> list[Finding]:
    if shutil.which("git") is None:
        return [Finding("git", "fail", "not found", "install git; workspaces are clones")]
    done = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=_WAIT_S, check=True)
    return [Finding("git", "ok", done.stdout.strip())]


def _dvc() -> list[Finding]:
    have = _installed(("dvc", "dvc-s3"))
    if "dvc" not in have:
        return [Finding("dvc", "fail", "not installed; it runs the stages", _INSTALL)]
    told = ", ".join(f"{name} {number}" for name, number in have.items())
    return [Finding("dvc", "ok", told)]


def _cpu(path: Path = Path("/proc/cpuinfo")) -> list[Finding]:
    cores = available_cores()
    if not path.is_file():
        return [Finding("cpu", "ok", f"{cores} cores; features unknown on this system")]
    features = cpu_features(path.read_text(encoding="utf-8", errors="replace"))
    told = f"{cores} cores; {', '.join(features) or 'no vector extensions that int8 or bf16 gain from'}"
    if features:
        return [Finding("cpu", "ok", told)]
    return [Finding("cpu", "warn", told, "expect slow training; quantised students still run")]


def _gpu() -> list[Finding]:
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
        return [Finding("gpu", "ok", "none found; the CPU is used")]
    if not _installed(("torch",)):
        return [Finding("gpu", "warn", "found, but torch is not installed", _INSTALL)]
    import torch

    if not torch.cuda.is_available():
        remedy = "install the CUDA build of torch, or mind the driver"
        return [Finding("gpu", "warn", f"found, but torch {torch.__version__} cannot use it", remedy)]
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return [Finding("gpu", "ok", names)]
