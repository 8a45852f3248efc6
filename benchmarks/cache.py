"""The teacher cache: what capture costs beside the bare forward pass, and what reading from it saves.

    python benchmarks/cache.py --workspace FOLDER [--only NAME …] [--json]

FOLDER is a workspace in which a run has taught a teacher: `python benchmarks/banking77.py --data FOLDER --teacher
FOLDER --workspace FOLDER` makes one with Banking77 (77 classes) and all-mpnet-base-v2 (109 M parameters). Takes about
half an hour on two cores, which nothing else should use. Every figure is a ratio within one run, or a count.

capture_over_bare_forward   seconds of a capture ÷ seconds of the same teacher, batches and precision alone
warm_pass_fraction          seconds of a pass for which all is cached ÷ seconds of the first
bytes_per_entry             of a cache of logits: shards and manifest
ray_speedup_2_workers       rows a second of two Ray workers ÷ of one, each pinned to one thread
peak_memory_growth          peak memory of a capture of 1 M rows ÷ of 10 k rows − 1, with a teacher of one layer; pages
                            of files, which the system takes back when it needs them, do not count
rows_per_second             logit rows of 77 classes a second, read in random batches of 4,096 from 1 M entries
open_seconds_1m             opening a cache of 1 M entries
static_epoch_speedup        an epoch of a static student with the live teacher ÷ from the cache
sliced_epoch_speedup        the same of a student of half the teacher's layers
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 77
MANY, FEW = 1_000_000, 10_000
BATCH = 4096
PARTS = ("capture", "ray", "memory", "reading", "epochs")


def main() -> None:
    """Measure part after part, each in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ray-rows", type=int, default=0, help="rows of a Ray pass; default, all")
    parser.add_argument("--epoch-rows", type=int, default=0, help="rows of an epoch; default, all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PART[arguments.part](arguments)))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.only:
            figures |= _measure(name, arguments, Path(scratch))
    for name, value in figures.items():
        print(f"{name:28s} {value:,.4g}")
    if arguments.json:
        print(json.dumps(figures))


def _measure(name: str, arguments: Any, scratch: Path) -> dict[str, Any]:
    if name == "memory":
        few = _part("stand_in", arguments, scratch / "few", FEW)
        many = _part("stand_in", arguments, scratch / "many", MANY)
        return {
            "peak_memory_growth": many["peak_bytes"] / few["peak_bytes"] - 1,
            "peak_memory_mib_10k": few["peak_bytes"] / 2**20,
            "peak_memory_mib_1m": many["peak_bytes"] / 2**20,
        }
    if name == "reading" and not (scratch / "many").exists():
        _part("stand_in", arguments, scratch / "many", MANY)
    return _part(name, arguments, scratch / ("many" if name == "reading" else name), MANY)


def _part(name: str, arguments: Any, root: Path, rows: int) -> dict[str, Any]:
    """Run one part in a process of its own, so that none inherits the memory of another."""
    added = ["--part", name, "--root", str(root), "--rows", str(rows)]
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *added], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name}: ended with {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name} {rows if name == 'stand_in' else ''}: {json.dumps(figures)}", flush=True)
    return figures


@contextmanager
def _clock(seconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def _teacher(arguments: Any, **machine: Any) -> Any:
    from stillroom import compute, layout
    from stillroom.cache.live import load_live
    from stillroom.params import CaptureParams, ComputeParams

    settings = ComputeParams(**machine)
    compute.prepare(settings)
    return load_live(arguments.workspace / layout.TEACHER, settings, CaptureParams().batch_tokens)


def _texts(arguments: Any) -> Any:
    from stillroom import layout
    from stillroom.cache.texts import Stored

    return Stored(arguments.workspace / layout.SPLIT / "train.parquet")


def _some_texts(arguments: Any, count: int | None) -> list[Any]:
    return [text for piece in _texts(arguments).pieces() for text in piece][:count]


def capture_beside_forward(arguments: Any) -> dict[str, Any]:
    """The bare forward pass and captures of the same batches, in turn."""
    from stillroom.cache.capture import capture
    from stillroom.params import CaptureParams, ComputeParams

    teacher, texts = _teacher(arguments), _texts(arguments)
    settings = CaptureParams()
    batches = _padded_batches(teacher, texts)
    seconds: dict[str, list[float]] = {"bare": [], "capture": [], "warm": []}
    _forward(teacher, batches[:2])
    for number in range(arguments.rounds):
        root = arguments.root / str(number)
        with _clock(seconds["bare"]):
            _forward(teacher, batches)
        with _clock(seconds["capture"]):
            captured = capture(teacher, texts, settings, root, number, ComputeParams())
        with _clock(seconds["warm"]):
            again = capture(teacher, texts, settings, root, number, ComputeParams())
        assert captured.computed > 0 == again.computed
    slim = settings.model_copy(update={"signals": ("logits",)})
    captured = capture(teacher, texts, slim, arguments.root / "logits", 0, ComputeParams())
    folder = captured.reader.folder
    files = [*(folder / "shards").iterdir(), max((folder / "manifests").iterdir())]
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "capture_over_bare_forward": best["capture"] / best["bare"],
        "warm_pass_fraction": best["warm"] / best["capture"],
        "bytes_per_entry": sum(path.stat().st_size for path in files) / len(captured.reader),
        "capture_rows_per_second": captured.computed / best["capture"],
    }


def _padded_batches(teacher: Any, texts: Any) -> list[Any]:
    """Ids and masks of the batches that capture computes."""
    import torch

    from stillroom.cache.identity import entry_keys
    from stillroom.cache.reader import unique_keys
    from stillroom.cache.units import plan

    keys = np.concatenate([entry_keys(piece) for piece in texts.pieces()])
    needed = np.zeros(len(texts), dtype=bool)
    needed[unique_keys(keys)[1]] = True
    return [
        tuple(map(torch.from_numpy, unit.tokens.padded(rows, teacher.pad)))
        for unit in plan(teacher, texts, needed)
        for rows in unit.batches
    ]


def _forward(teacher: Any, batches: list[Any]) -> None:
    import torch

    with torch.inference_mode():
        for ids, mask in batches:
            teacher.model(ids, mask)


def ray_workers(arguments: Any) -> dict[str, Any]:
    """One and two workers on the same rows, timed from when they have their teachers."""
    from stillroom.cache.codecs import asked_for
    from stillroom.cache.ray_engine import Workers
    from stillroom.cache.texts import Listed
    from stillroom.cache.units import plan
    from stillroom.params import CaptureParams, ComputeParams

    teacher = _teacher(arguments, threads=1)
    texts = list(dict.fromkeys(_some_texts(arguments, arguments.ray_rows or None)))
    units = list(plan(teacher, Listed(texts), np.ones(len(texts), dtype=bool)))
    speed: dict[int, list[float]] = {1: [], 2: []}
    for number in range(arguments.rounds):
        for workers in speed:
            settings = CaptureParams(engine="ray", workers=workers)
            root = arguments.root / f"{number}-{workers}"
            seconds: list[float] = []
            machine = ComputeParams(threads=1, precision=teacher.precision)
            with Workers(teacher, asked_for(settings.signals), settings, root, machine) as cluster, _clock(seconds):
                cluster.run(units, lambda rows: None)
            speed[workers].append(len(texts) / seconds[0])
    return {
        "ray_speedup_2_workers": max(speed[2]) / max(speed[1]),
        "ray_rows_per_second_1_worker": max(speed[1]),
    }


def stand_in(arguments: Any) -> dict[str, Any]:
    """Peak memory of a capture of made-up texts by a teacher of one layer, which leaves its cache in --root."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from stillroom import layout
    from stillroom.batching import load_tokeniser
    from stillroom.cache.capture import capture
    from stillroom.cache.live import LiveTeacher
    from stillroom.cache.texts import Stored
    from stillroom.params import CaptureParams, ComputeParams
    from stillroom.teacher.model import TOKENISER, read_description

    class OneLayer(torch.nn.Module):
        def __init__(self, vocabulary: int) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(vocabulary, CLASSES)

        def forward(self, ids: Any, mask: Any) -> Any:
            weights = mask.unsqueeze(-1).float()
            pooled = (self.table(ids) * weights).sum(dim=1) / weights.sum(dim=1)
            return pooled, pooled

    folder = arguments.workspace / layout.TEACHER
    tokeniser = load_tokeniser(folder / TOKENISER, 32)
    model, pad = OneLayer(tokeniser.get_vocab_size()), read_description(folder).pad
    teacher = LiveTeacher(folder, model, tokeniser, 32, pad, "fp32", CaptureParams().batch_tokens)
    arguments.root.mkdir(parents=True)
    path = arguments.root / "texts.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for start in range(0, arguments.rows, FEW):
            texts = [f"question number {row} about the account" for row in range(start, start + FEW)]
            writer.write_table(pa.table({"text": pa.array(texts, pa.string())}))
    settings = CaptureParams(signals=("logits",))
    with _memory() as seen:
        captured = capture(teacher, Stored(path), settings, arguments.root / "store", 0, ComputeParams())
    assert captured.computed == arguments.rows
    return {"peak_bytes": max(seen), "before_bytes": seen[0]}


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Bytes of memory that are this process's own, seen every 5 ms."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
            seen.append(int(told["RssAnon"].split()[0]) * 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    while not seen:
        time.sleep(0.005)
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def reading(arguments: Any) -> dict[str, Any]:
    """Open a cache of 1 M entries, and read random batches of logits."""
    from stillroom.cache.reader import Reader

    (folder,) = (arguments.root / "store").iterdir()
    opening: list[float] = []
    for _ in range(5):
        with _clock(opening):
            reader = Reader.open(folder)
    assert len(reader) == MANY
    order = np.random.default_rng(0).permutation(len(reader))
    batches = [order[start : start + BATCH] for start in range(0, len(order) - BATCH, BATCH)]
    reader.verify()
    seconds: list[float] = []
    for _ in range(3):
        with _clock(seconds):
            for batch in batches:
                reader.read("logits", batch)
    return {
        "open_seconds_1m": statistics.median(opening),
        "rows_per_second": len(batches) * BATCH / min(seconds),
        "shards_1m": len(reader.shards),
    }


def epochs(arguments: Any) -> dict[str, Any]:
    """An epoch of each student from the cache, and with a teacher that answers every batch anew."""
    from stillroom import layout
    from stillroom.student_params import SlicedParams, StaticParams
    from stillroom.teacher.model import layers_of

    teacher = _teacher(arguments)
    layers = len(layers_of(teacher.model.encoder)[2])
    students = {"static": StaticParams(family="static"), "sliced": SlicedParams(family="sliced", layers=layers // 2)}
    figures = {}
    for name, settings in students.items():
        epoch = _epoch_of(arguments, teacher, settings, arguments.workspace / layout.CACHE)
        cached, live = epoch(False), epoch(True)
        figures |= {f"{name}_epoch_speedup": live / cached, f"{name}_epoch_seconds_cached": cached}
    return figures


class LiveColumn:
    """A signal that the teacher computes for every batch; several signals of a batch come from one forward pass."""

    def __init__(self, teacher: Any, tokens: Any, signal: str, answers: dict[str, Any]) -> None:
        self._teacher = teacher
        self._tokens = tokens
        self._signal = signal
        self._answers = answers

    def __getitem__(self, rows: Any) -> Any:
        import torch

        if self._answers.get("rows") is not rows:
            ids, mask = self._tokens.padded(rows.numpy(), self._teacher.pad)
            with torch.inference_mode():
                logits, pooled = self._teacher.model(torch.from_numpy(ids), torch.from_numpy(mask))
            self._answers |= {"rows": rows, "logits": logits, "embedding": pooled}
        return self._answers[self._signal].float().clone()


def _epoch_of(arguments: Any, teacher: Any, settings: Any, cache: Path) -> Callable[[bool], float]:
    import torch

    from stillroom import layout
    from stillroom.data.splits import Rows, read_split
    from stillroom.students.distil import FAMILIES
    from stillroom.students.material import gather
    from stillroom.training import count_steps

    train = read_split(arguments.workspace / layout.SPLIT, "train")
    if arguments.epoch_rows:
        train = Rows(*(values[: arguments.epoch_rows] for values in (train.row, train.text, train.label)))
    family = FAMILIES[settings.family]
    signals = settings.signals
    special = family.SPECIAL_TOKENS
    material = gather(teacher.folder, cache, train, (), train, settings, special, signals)
    tokens = teacher.tokens(train.text)

    def epoch(live: bool) -> float:
        torch.manual_seed(0)
        columns: dict[str, Any] = {"label": torch.from_numpy(train.label)}
        answers: dict[str, Any] = {}
        for name in signals:
            columns[name] = LiveColumn(teacher, tokens, name, answers) if live else material.signals[name]
        batches = family.batches(material.tokens, settings, material.pad, 0, columns)
        student = family.build(material, settings)
        learner = family.learner(student, settings, count_steps(batches, 1), 0)
        learner.train()
        optimiser = torch.optim.AdamW(learner.parameter_groups(), fused=True)
        mixed = teacher.precision == "bf16"
        began = time.perf_counter()
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss = learner.loss(batch)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return time.perf_counter() - began

    return epoch


PART: dict[str, Callable[[Any], dict[str, Any]]] = {
    "capture": capture_beside_forward,
    "ray": ray_workers,
    "stand_in": stand_in,
    "reading": reading,
    "epochs": epochs,
}


if __name__ == "__main__":
    main()
