"""SIGKILL in the middle of a pass: what is gone on from is whole and right, and little is computed twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom.batching import load_tokeniser, token_batches
from stillroom.cache.capture import Captured, capture
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.texts import Listed
from stillroom.files import is_temporary
from stillroom.params import CaptureParams, ComputeParams
from stillroom.teacher.model import TOKENISER
from tests.cache.answers import CountingTeacher, live
from tests.toys import publish_teacher, toy_rows

pytestmark = [pytest.mark.serial, pytest.mark.slow]

KILLS = 30
TEXTS = toy_rows(400, seed=5).text
BATCH_TOKENS = 64
SHARD_ENTRIES = 20
SETTINGS = CaptureParams(batch_tokens=BATCH_TOKENS, shard_entries=SHARD_ENTRIES, spot_check=1)
SLEEP_S = 0.008
REPOSITORY = Path(__file__).parent.parent.parent
PASS = "import sys; from tests.fault.test_cache_kill import slow_pass; slow_pass(*sys.argv[1:])"


class SlowTeacher(CountingTeacher):
    """Takes its time, and writes down how many rows it was asked before it answers."""

    def __init__(self, told: Path) -> None:
        super().__init__()
        self.told = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        os.write(self.told, f"{len(ids)}\n".encode())
        time.sleep(SLEEP_S)
        return super().forward(ids, mask)


def one_pass(model: CountingTeacher, teacher: Path, root: Path) -> Captured:
    tokeniser = load_tokeniser(teacher / TOKENISER, 32)
    asked = live(model, teacher, tokeniser, budget=BATCH_TOKENS)
    return capture(asked, Listed(TEXTS), SETTINGS, root, 0, ComputeParams())


def slow_pass(teacher: str, root: str, told: str) -> None:
    """A pass of a process that will be killed; says when it begins."""
    torch.set_num_threads(1)
    model = SlowTeacher(Path(told))
    print("begins", flush=True)
    one_pass(model, Path(teacher), Path(root))
    print("ends", flush=True)


class Pass:
    """A pass in a process of its own."""

    def __init__(self, teacher: Path, folder: Path) -> None:
        folder.mkdir()
        self.root, self.told = folder / "store", folder / "told"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PASS, str(teacher), str(self.root), str(self.told)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begins\n"
        self.began = time.monotonic()

    def end(self) -> float:
        """Let it end; the seconds that it took."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ends\n"
        seconds = time.monotonic() - self.began
        self.process.communicate()
        return seconds

    def kill(self, after_s: float) -> None:
        time.sleep(max(self.began + after_s - time.monotonic(), 0))
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    @property
    def rows(self) -> int:
        """How many rows its teacher was asked."""
        return sum(map(int, self.told.read_text().split()))


def leave_unfinished(root: Path) -> None:
    """What a kill leaves behind in the moment that a file is written."""
    for folder in root.glob("*/*/"):
        for path in list(folder.iterdir())[:1]:
            unfinished = path.with_name(f".{path.name}.0123abcd.tmp")
            unfinished.write_bytes(path.read_bytes()[:-9])
            assert is_temporary(unfinished.name)


def check(reader: Reader, model: CountingTeacher, teacher: Path) -> None:
    """Every text has the answer that the teacher gives of it."""
    asked = live(model, teacher, load_tokeniser(teacher / TOKENISER, 32))
    positions = reader.locate(entry_keys(TEXTS), "texts")
    for rows, answers in asked.ask_all(TEXTS, tuple(reader.signals.values())):
        for kind, values in answers.items():
            np.testing.assert_array_equal(reader.read(kind.name, positions[rows]), values.astype(np.float16))


def test_a_killed_pass_is_gone_on_from(tmp_path: Path, tiny_checkpoint: Path) -> None:
    teacher = publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    tokens = live(CountingTeacher(), teacher, load_tokeniser(teacher / TOKENISER, 32)).tokens(TEXTS)
    widest = max(map(len, token_batches(tokens.lengths, BATCH_TOKENS)))
    # a shard that is being written, one that is gathered, and the batch that is at work
    in_flight = 2 * (SHARD_ENTRIES - 1 + widest) + widest
    whole = Pass(teacher, tmp_path / "whole")
    seconds = whole.end()
    assert whole.rows == len(TEXTS) + SETTINGS.spot_check
    generator = np.random.default_rng(30)
    twice, leftovers, broken = [], 0, 0
    for number in range(KILLS):
        victim = Pass(teacher, tmp_path / f"kill{number}")
        victim.kill(float(generator.uniform(0, seconds)))
        assert victim.process.returncode in (-signal.SIGKILL, 0)
        leftovers += sum(is_temporary(path.name) for path in victim.root.rglob("*"))
        leave_unfinished(victim.root)
        model = CountingTeacher()
        captured = one_pass(model, teacher, victim.root)
        assert model.rows == captured.computed + SETTINGS.spot_check
        broken += 0 < captured.computed < len(TEXTS)
        twice.append(victim.rows + captured.computed - len(TEXTS))
        assert twice[-1] <= in_flight
        check(captured.reader, model, teacher)
        reader = Reader.open(captured.reader.folder)
        reader.verify()
        assert len(reader) == len(TEXTS)
        assert one_pass(model, teacher, victim.root).computed == 0
    assert broken > KILLS / 2, "most of the kills hit a pass that had listed some shards, but not all"
    print(f"{KILLS} kills, {broken} between the first shard and the last; {leftovers} unfinished files; rows computed "
          f"twice: at most {max(twice)} of {in_flight}, {sum(twice) / KILLS:.1f} on average")  # fmt: skip
