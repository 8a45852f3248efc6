"""The teacher's pass on the workers of a Ray cluster: each has a teacher of its own and writes its shards itself.

Workers get the same units of work as the local engine, so they compute the same batches. A worker that dies is
started again and given its units once more: what it had listed stays, and only its unfinished shard is lost.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from stillroom import compute, events
from stillroom.cache.codecs import Signal, asked_for
from stillroom.cache.identity import Fingerprint, check_same
from stillroom.cache.live import LiveTeacher, load_live
from stillroom.cache.store import Store
from stillroom.cache.units import Unit, answered
from stillroom.cache.writer import Writer
from stillroom.cores import available_cores
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.params import CaptureParams, ComputeParams

_AHEAD = 2
"""Units that a worker is given at a time: one to compute, one that waits for it."""
_RETRIES = 10
"""A unit whose worker was killed so many times is not tried again. Units that only waited for it are counted, too."""
_CONNECT_S = 5.0
_LEAVE_S = 5.0
_OBJECT_STORE_BYTES = 75 << 20
"""Ray's least: units are small, and the teacher is read from its folder."""
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:/]+):([0-9]+)")


class Workers:
    """The workers of a cluster while a pass lasts. Used as a context.

    Raises InputError if Ray is not installed, TryAgain if the cluster is not there.
    """

    def __init__(
        self,
        teacher: LiveTeacher,
        signals: tuple[Signal, ...],
        settings: CaptureParams,
        root: Path,
        machine: ComputeParams,
    ) -> None:
        """root: of the store that the workers write to, unless `settings.store` names one that machines share."""
        self._teacher = teacher
        self._fields = teacher.fingerprint(signals)
        self._settings = settings
        self._root = root
        self._machine = machine.model_copy(update={"precision": teacher.precision, "threads": machine.threads or 1})
        self._address = settings.ray_address or os.environ.get("RAY_ADDRESS") or None
        self._actors: list[Any] = []
        self._scratch: list[str] = []

    def __enter__(self) -> Self:
        ray = _import_ray(own=self._address is None)
        with self._told(ray):
            self._connect(ray)
            try:
                self._start(ray)
            except BaseException:
                ray.shutdown()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.wait([actor.leave.remote() for actor in self._actors], num_returns=len(self._actors), timeout=_LEAVE_S)
        for actor in self._actors:
            ray.kill(actor)
        ray.shutdown()
        for name in self._scratch:  # of workers on this machine that died and had no time to come back
            _remove_scratch(name)

    def run(self, units: Iterable[Unit], advance: events.Advance) -> int:
        """Have all units computed and their shards listed; the number of tokens read."""
        import ray

        tokens = 0
        at_work: dict[Any, tuple[Any, int]] = {}
        free = [actor for _ in range(_AHEAD) for actor in self._actors]

        def finish_one() -> None:
            (done,), _ = ray.wait(list(at_work), num_returns=1)
            actor, rows = at_work.pop(done)
            ray.get(done)
            advance(rows)
            free.append(actor)

        with self._told(ray):
            for unit in units:
                if not free:
                    finish_one()
                actor = free.pop(0)
                at_work[actor.compute.remote(unit)] = (actor, len(unit))
                tokens += len(unit.tokens.ids)
            while at_work:
                finish_one()
        return tokens

    def _connect(self, ray: Any) -> None:
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        with _signals_kept():
            if self._address is None:
                cores = (self._settings.workers or self._fitting(available_cores())) * self._machine.threads
                ray.init("local", num_cpus=cores, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
            else:
                _knock(self._address)
                ray.init(self._address, log_to_driver=False, configure_logging=False)

    def _fitting(self, cores: int) -> int:
        return max(1, cores // self._machine.threads)

    def _start(self, ray: Any) -> None:
        count = self._settings.workers or self._fitting(int(ray.cluster_resources().get("CPU", 1)))
        options = {"num_cpus": self._machine.threads, "max_restarts": -1, "max_task_retries": _RETRIES}
        if self._machine.device != "cpu" and ray.cluster_resources().get("GPU"):
            options["num_gpus"] = 1
        node = ray.get_runtime_context().get_node_id()
        far = {entry["NodeID"] for entry in ray.nodes() if entry["Alive"]} - {node}
        if far and not self._settings.store:
            raise InputError(
                f"capture.engine: the Ray cluster has {len(far)} more machines, which cannot write to {self._root}; "
                "set capture.store to a bucket or a folder that all of them see"
            )
        files = ray.put(_content(self._teacher.folder)) if far else None
        worker = ray.remote(**options)(Worker)
        given = (self._teacher.folder, self._fields, self._settings, self._root, self._machine)
        self._scratch = [f"stillroom-{secrets.token_hex(16)}" for _ in range(count)]
        self._actors = [worker.remote(node, files, name, *given) for name in self._scratch]
        ray.get([actor.load.remote() for actor in self._actors])

    @contextmanager
    def _told(self, ray: Any) -> Iterator[None]:
        """Turn Ray's errors into ours: what a worker raised itself, or TryAgain."""
        try:
            yield
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, StillroomError):
                raise error.cause from None
            raise
        except (ray.exceptions.RayError, ConnectionError, TimeoutError) as error:
            told = " ".join(str(error).split())[:200]
            raise TryAgain(
                f"the Ray cluster at {self._address or 'this machine'} gave up ({told}); run again"
            ) from error


class Worker:
    """What runs on the cluster."""

    def __init__(
        self,
        node: str,
        files: dict[str, bytes] | None,
        scratch: str,
        folder: Path,
        fields: Fingerprint,
        settings: CaptureParams,
        root: Path,
        machine: ComputeParams,
    ) -> None:
        """node: that of whoever started the pass, whose folders this worker sees if it is its own, too; files: the
        content of the teacher's folder for the others; scratch: name of a folder for what is this worker's own."""
        self._node = node
        self._files = files
        self._folder = folder
        self._fields = fields
        self._settings = settings
        self._root = root
        self._machine = machine
        self._signals = asked_for(settings.signals)
        self._teacher: LiveTeacher | None = None
        self._scratch = scratch

    def load(self) -> None:
        """Load the teacher. Apart from the constructor, so that its errors reach whoever started the pass."""
        import ray

        folder, scratch = self._folder, Path(tempfile.gettempdir()) / self._scratch
        scratch.mkdir(mode=0o700, exist_ok=True)
        if ray.get_runtime_context().get_node_id() != self._node:
            assert self._files is not None
            folder = scratch / "teacher"
            folder.mkdir(exist_ok=True)
            for name, content in self._files.items():
                (folder / name).write_bytes(content)
        compute.prepare(self._machine)
        torch.set_num_threads(self._machine.threads)
        self._teacher = load_live(folder, self._machine, self._settings.batch_tokens)
        check_same(self._teacher.fingerprint(self._signals), self._fields, folder)
        # With a store that machines share, what a worker keeps itself is a way-station.
        root = scratch / "store" if self._settings.store else self._root
        self._store = Store(root, self._fields, self._settings.store)

    def compute(self, unit: Unit) -> None:
        """Compute a unit; when this returns, its shard is listed."""
        if self._teacher is None:  # started again after its process died
            self.load()
        assert self._teacher is not None
        events.emit("unit", entries=len(unit), process=os.getpid())
        with Writer(self._store, self._settings.shard_entries) as writer:
            for keys, answers in answered(self._teacher, unit, self._signals):
                writer.put(keys, answers)

    def leave(self) -> None:
        """Remove what is its own, of processes that died too: they all had this name."""
        _remove_scratch(self._scratch)


def _remove_scratch(name: str) -> None:
    shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


def fill(
    teacher: LiveTeacher,
    units: Iterable[Unit],
    signals: tuple[Signal, ...],
    settings: CaptureParams,
    root: Path,
    machine: ComputeParams,
    advance: events.Advance,
) -> int:
    """Compute units on a cluster; the number of tokens read."""
    with Workers(teacher, signals, settings, root, machine) as workers:
        return workers.run(units, advance)


def _import_ray(own: bool) -> Any:
    """Ray, that tells nobody of its use; a cluster of our own listens on the loopback only, and asks for a token."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # what makes Ray bind to the loopback
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise InputError("capture.engine is 'ray'; Ray is not installed: install the extra stillroom[ray]") from error
    return ray


def _knock(address: str) -> None:
    """Raise TryAgain if nobody answers at host:port; Ray itself would try for minutes."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        if address == "auto":
            return
        raise InputError(
            f"capture.ray_address is {address!r}; write host:port, or auto for the cluster of this machine"
        )
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), _CONNECT_S):
            pass
    except (OSError, OverflowError) as error:
        raise TryAgain(f"nobody answers at {address}, the address of the Ray cluster ({error}); run again") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in place of SIGTERM's."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _content(folder: Path) -> dict[str, bytes]:
    """The files of a published teacher."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
