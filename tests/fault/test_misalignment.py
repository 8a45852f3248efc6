"""What changes between the teacher's pass and training, against our cache and against one that goes by position."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from stillroom.cache.capture import capture
from stillroom.cache.codecs import asked_for
from stillroom.cache.identity import entry_keys
from stillroom.cache.live import LiveTeacher, load_live
from stillroom.cache.reader import cosine
from stillroom.cache.texts import Listed
from stillroom.params import CaptureParams, ComputeParams
from stillroom.teacher.model import DESCRIPTION, TOKENISER, WEIGHTS, load_teacher
from tests.toys import publish_teacher, toy_rows

PAGE = Path(__file__).parent.parent.parent / "docs/why-by-content.md"
ROWS = 200
LABELS = tuple(f"label {number}" for number in range(16))
SAME = 0.999
"""Cosine from which on two answers count as one."""
SETTINGS = CaptureParams(batch_tokens=256, shard_entries=64, spot_check=16)
MACHINE = ComputeParams(precision="fp32", device="cpu", threads=1)
Floats = npt.NDArray[np.float32]


class PositionalCache:
    """The teacher's answers in one array, in the order in which the loader gave the rows, found by that number."""

    def __init__(self) -> None:
        self.saved: Floats | None = None

    def read(self, teacher: LiveTeacher, texts: Sequence[str], seed: int) -> Floats:
        order = np.random.default_rng(seed).permutation(len(texts))
        if self.saved is None:
            self.saved = ask(teacher, [texts[row] for row in order])
        known = min(len(texts), len(self.saved))
        result = np.empty((len(texts), self.saved.shape[1]), dtype=np.float32)
        result[order[:known]] = self.saved[:known]
        if known < len(texts):
            result[order[known:]] = ask(teacher, [texts[row] for row in order[known:]])
        return result


def ask(teacher: LiveTeacher, texts: Sequence[str]) -> Floats:
    """The logits of the live teacher, in the order of the texts."""
    [logits] = asked_for(("logits",))
    result = np.empty((len(texts), len(LABELS)), dtype=np.float32)
    for rows, values in teacher.ask_all(texts, (logits,)):
        result[rows] = values[logits]
    return result


@dataclass(frozen=True)
class Run:
    """All that a pass over the data depends on."""

    teacher: Path
    texts: tuple[str, ...]
    settings: CaptureParams = SETTINGS
    machine: ComputeParams = MACHINE
    seed: int = 0

    @property
    def live(self) -> LiveTeacher:
        return load_live(self.teacher, self.machine, self.settings.batch_tokens)

    def ours(self, root: Path) -> tuple[Floats, int]:
        """The answers that our cache has for the texts, and how many were computed."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.machine.threads)
        try:
            captured = capture(self.live, Listed(self.texts), self.settings, root, self.seed, self.machine)
        finally:
            torch.set_num_threads(before)
        positions = captured.reader.locate(entry_keys(self.texts), "texts")
        return captured.reader.read("logits", positions), captured.computed


def wrong(found: Floats, live: Floats) -> int:
    """Rows whose answer is not what the teacher says of that very text."""
    return int((~(cosine(found, live) >= SAME)).sum())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Run:
    """The run by which both caches are filled. Texts of 4 to 37 words, some of them in capitals."""
    teacher = publish_teacher(tmp_path_factory.mktemp("first") / "teacher", tiny_checkpoint, labels=LABELS)
    spread_out(teacher)
    texts = toy_rows(ROWS, seed=11).text
    generator = np.random.default_rng(12)
    capitals = [text.title() if generator.random() < 0.5 else text for text in texts]
    return Run(teacher, tuple(capitals))


def spread_out(teacher: Path) -> None:
    """Give a teacher that was never trained answers as different as a trained one's: larger embeddings of words."""
    weights = load_file(teacher / WEIGHTS)
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = weights[name] * 50
    save_file(weights, teacher / WEIGHTS)


@pytest.fixture
def another(first: Run, tmp_path: Path) -> Callable[[], Path]:
    """`another()`: a copy of the teacher, to be changed."""
    return lambda: Path(shutil.copytree(first.teacher, tmp_path / "another"))


Change = Callable[[Run, Callable[[], Path]], Run]


def shuffled(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, texts=tuple(run.texts[row] for row in np.random.default_rng(1).permutation(ROWS)))


def edited(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, texts=(*run.texts[:20], "never seen before", *run.texts[21:]))


def deleted(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, texts=run.texts[:20] + run.texts[21:])


def duplicated(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, texts=run.texts[:20] + run.texts[:10] + run.texts[20:])


def cased(run: Run, another: Callable[[], Path]) -> Run:
    teacher = another()
    tokeniser = json.loads((teacher / TOKENISER).read_text(encoding="utf-8"))
    assert tokeniser["normalizer"]["lowercase"] is True
    tokeniser["normalizer"]["lowercase"] = False
    (teacher / TOKENISER).write_text(json.dumps(tokeniser), encoding="utf-8")
    return replace(run, teacher=teacher)


def described(teacher: Path, **changes: Any) -> Path:
    path = teacher / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return teacher


def shortened(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, teacher=described(another(), max_length=8))


def trained(run: Run, another: Callable[[], Path]) -> Run:
    """One step of gradient descent on sixteen rows."""
    teacher = another()
    model, description = load_teacher(teacher)
    ids, mask = run.live.tokens(run.texts[:16]).padded(np.arange(16), description.pad)
    logits, _ = model(torch.from_numpy(ids), torch.from_numpy(mask))
    torch.nn.functional.cross_entropy(logits, torch.arange(16)).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    save_file({name: value.detach().contiguous() for name, value in model.state_dict().items()}, teacher / WEIGHTS)
    return replace(run, teacher=teacher)


def relabelled(run: Run, another: Callable[[], Path]) -> Run:
    """The labels stand in another order, and the rows of the head with them."""
    teacher = described(another(), labels=LABELS[::-1])
    weights = load_file(teacher / WEIGHTS)
    for name in ("head.weight", "head.bias"):
        weights[name] = weights[name].flip(0)
    save_file(weights, teacher / WEIGHTS)
    return replace(run, teacher=teacher)


def in_bf16(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, machine=run.machine.model_copy(update={"precision": "bf16"}))


def of_other_batches(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, settings=run.settings.model_copy(update={"batch_tokens": 64, "shard_entries": 7}))


def of_another_seed(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, seed=1)


def of_more_threads(run: Run, another: Callable[[], Path]) -> Run:
    return replace(run, machine=run.machine.model_copy(update={"threads": 2}))


@dataclass(frozen=True)
class Scenario:
    """told: in the page. wrong: rows that the positional cache gets wrong, without an error; recomputed: by ours."""

    told: str
    change: Change
    wrong: int
    recomputed: int


SCENARIOS = (
    Scenario("rows shuffled", shuffled, 199, 0),
    Scenario("one text edited", edited, 1, 1),
    Scenario("one row deleted", deleted, 198, 0),
    Scenario("ten duplicates added", duplicated, 198, 0),
    Scenario("the tokeniser keeps capitals", cased, 105, ROWS),
    Scenario("`max_length` from 32 to 8", shortened, 187, ROWS),
    Scenario("the teacher trained one step more", trained, 200, ROWS),
    Scenario("the order of the labels reversed", relabelled, 200, ROWS),
    Scenario("bf16 instead of fp32", in_bf16, 0, ROWS),
    Scenario("other batch and shard sizes", of_other_batches, 0, 0),
    Scenario("another seed", of_another_seed, 198, 0),
    Scenario("two threads instead of one", of_more_threads, 0, 0),
)


@pytest.fixture(scope="module")
def positional(first: Run) -> Iterator[PositionalCache]:
    """The positional cache after the first pass, and still the same at the end."""
    cache = PositionalCache()
    assert wrong(cache.read(first.live, first.texts, first.seed), ask(first.live, first.texts)) == 0
    yield cache
    assert wrong(cache.read(first.live, first.texts, first.seed), ask(first.live, first.texts)) == 0


@pytest.fixture(scope="module")
def filled(first: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of our cache after the first pass; leave it unchanged."""
    root = tmp_path_factory.mktemp("ours") / "store"
    found, computed = first.ours(root)
    assert computed == ROWS
    assert wrong(found, ask(first.live, first.texts)) == 0
    return root


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.change.__name__)
def test_ours_says_what_the_teacher_says_and_the_positional_one_does_not(
    scenario: Scenario,
    first: Run,
    another: Callable[[], Path],
    positional: PositionalCache,
    filled: Path,
    tmp_path: Path,
) -> None:
    run = scenario.change(first, another)
    live = ask(run.live, run.texts)
    found, recomputed = run.ours(Path(shutil.copytree(filled, tmp_path / "store")))
    assert wrong(found, live) == 0
    assert recomputed == scenario.recomputed
    assert wrong(positional.read(run.live, run.texts, run.seed), live) == scenario.wrong


def row(scenario: Scenario) -> str:
    """The scenario's row of the page's table."""
    return f"| {scenario.told} | {scenario.wrong} | 0 | {scenario.recomputed} |"


def test_the_page_tells_these_numbers() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")][2:]
    assert table == [row(scenario) for scenario in SCENARIOS]
    assert f"{ROWS} rows" in PAGE.read_text(encoding="utf-8")
    assert f"below {SAME}" in PAGE.read_text(encoding="utf-8")
