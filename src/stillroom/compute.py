"""The machine: threads, device, the faster precision, and memory that is not handed back between steps."""

import ctypes
import functools
import sys
import time
from typing import TYPE_CHECKING, Literal

from stillroom.cores import available_cores
from stillroom.errors import InputError
from stillroom.params import ComputeParams

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_PROBE_SIZE = 512
_PROBE_REPEATS = 5


def prepare(compute: ComputeParams) -> None:
    """Set threads and the allocator for a stage that computes with torch; call before the first tensor."""
    import torch

    threads = compute.threads or available_cores()
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc reuse freed memory instead of returning it to the kernel.

    Activations of tens of MiB would otherwise be mapped, zeroed and unmapped at every layer; inference of a small
    encoder ran 1.8 × as fast without those page faults (benchmarks/teach.py). A no-op on another C library.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def device(compute: ComputeParams) -> "torch.device":
    """The device to compute on; asking for CUDA where there is none is an InputError."""
    import torch

    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device is 'cuda'; torch finds no CUDA device, use 'auto' or 'cpu'")
    wanted = compute.device if compute.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def precision(compute: ComputeParams) -> Precision:
    """The precision asked for, or for `auto` the one whose matrix product is measured to be faster."""
    if compute.precision != "auto":
        return compute.precision
    return _measured_precision(str(device(compute)))


@functools.cache
def _measured_precision(where: str) -> Precision:
    import torch

    seconds: dict[Precision, float] = {}
    kinds: tuple[tuple[Precision, torch.dtype], ...] = (("fp32", torch.float32), ("bf16", torch.bfloat16))
    for name, dtype in kinds:
        left = torch.ones(_PROBE_SIZE, _PROBE_SIZE, device=where, dtype=dtype)
        best = float("inf")
        for _ in range(_PROBE_REPEATS):
            start = time.perf_counter()
            (left @ left).sum().item()
            best = min(best, time.perf_counter() - start)
        seconds[name] = best
    return "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"
