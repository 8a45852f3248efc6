import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stillroom.batching import load_tokeniser, tokenise
from stillroom.cache.capture import Captured, capture, keys_and_sample
from stillroom.cache.identity import Example, entry_keys
from stillroom.cache.manifest import Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache
from stillroom.cache.store import PASSES, snapshot
from stillroom.cache.texts import Listed, Stored
from stillroom.errors import InputError
from stillroom.files import file_digests
from stillroom.params import CaptureParams, ComputeParams
from stillroom.storage import Folder
from stillroom.teacher.inference import answers, predict
from stillroom.teacher.model import TOKENISER, load_teacher
from tests.cache.answers import CountingTeacher, live, shard_files
from tests.toys import toy_rows

TEXTS = toy_rows(60, seed=2).text
SETTINGS = CaptureParams(batch_tokens=200, shard_entries=20, spot_check=8)


class Passes:
    """Passes of one teacher over texts, with one store."""

    def __init__(self, teacher: Path, root: Path) -> None:
        self.teacher = teacher
        self.root = root
        self.tokeniser = load_tokeniser(teacher / TOKENISER, 32)

    def __call__(
        self,
        texts: Sequence[Example] | Stored,
        model: torch.nn.Module | None = None,
        settings: CaptureParams = SETTINGS,
        precision: str = "fp32",
        seed: int = 0,
    ) -> Captured:
        model = model or CountingTeacher()
        asked = live(model, self.teacher, self.tokeniser, precision, settings.batch_tokens)
        source = texts if isinstance(texts, Stored) else Listed(texts)
        return capture(asked, source, settings, self.root, seed, ComputeParams())

    @property
    def folders(self) -> list[Path]:
        return sorted(self.root.iterdir())


@pytest.fixture
def passes(teacher: Path, tmp_path: Path) -> Passes:
    return Passes(teacher, tmp_path / "store")


def widths(captured: Captured) -> dict[str, int]:
    return {name: kept.width for name, kept in captured.reader.manifest.signals.items()}


def asked(passes: Passes, texts: list[str]) -> int:
    """How many texts the teacher computes for these, beside the spot check."""
    model = CountingTeacher()
    captured = passes(texts, model)
    assert model.rows - min(SETTINGS.spot_check, len(texts)) == captured.computed
    return captured.computed


def test_every_text_is_answered_with_what_the_teacher_says_of_it(passes: Passes, teacher: Path) -> None:
    model, description = load_teacher(teacher)
    captured = passes(TEXTS, model)
    tokens = tokenise(passes.tokeniser, TEXTS, 32)
    expected = predict(model, tokens, description.pad, 1)
    found = captured.reader.read("logits", captured.reader.locate(entry_keys(TEXTS), "texts"))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)
    assert widths(captured) == {"logits": 3, "embedding": 32}
    assert captured.computed == len(TEXTS)
    assert captured.tokens == len(tokens.ids)


def test_a_second_pass_computes_nothing(passes: Passes) -> None:
    assert asked(passes, TEXTS) == 60
    assert asked(passes, TEXTS) == 0


def test_only_content_that_was_never_seen_is_computed(passes: Passes) -> None:
    assert asked(passes, TEXTS) == 60
    shuffled = [TEXTS[row] for row in np.random.default_rng(3).permutation(60)]
    assert asked(passes, shuffled) == 0
    assert asked(passes, shuffled[:20]) == 0
    assert asked(passes, TEXTS + TEXTS[:10]) == 0
    assert asked(passes, ["never seen", *TEXTS, "never seen"]) == 1
    edited = [text.replace(" ", "  ", 1) if row == 5 else text for row, text in enumerate(TEXTS)]
    assert asked(passes, edited) == 1
    assert asked(passes, [*edited, *TEXTS]) == 0


def test_keys_of_many_texts_are_on_disk_and_change_nothing(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    held, _ = keys_and_sample(Listed(TEXTS), np.array([1, 4]))
    monkeypatch.setattr("stillroom.cache.capture._HELD", 1)
    on_disk, sampled = keys_and_sample(Listed(TEXTS), np.array([1, 4]))
    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(on_disk, held)
    assert sampled == [TEXTS[1], TEXTS[4]]
    assert asked(passes, [*TEXTS, *TEXTS[:9]]) == 60


def test_duplicates_are_computed_once(passes: Passes) -> None:
    assert asked(passes, [TEXTS[0]] * 30 + [TEXTS[1]] * 30) == 2


def test_how_the_pass_is_cut_and_seeded_does_not_matter(passes: Passes) -> None:
    passes(TEXTS)
    for settings in (
        CaptureParams(batch_tokens=64, shard_entries=20),
        CaptureParams(batch_tokens=8192, shard_entries=1),
        CaptureParams(spot_check=1),
    ):
        assert passes(TEXTS, settings=settings, seed=settings.shard_entries).computed == 0
    assert len(passes.folders) == 1


def test_another_precision_or_set_of_signals_is_captured_apart(passes: Passes) -> None:
    passes(TEXTS)
    assert passes(TEXTS, precision="bf16").computed == 60
    logits = passes(TEXTS, settings=CaptureParams(signals=("logits",)))
    assert logits.computed == 60
    assert set(widths(logits)) == {"logits"}
    assert len(passes.folders) == 3


def test_another_teacher_is_captured_apart(passes: Passes, tmp_path: Path) -> None:
    passes(TEXTS)
    passes.teacher = Path(shutil.copytree(passes.teacher, tmp_path / "other"))
    tokeniser = passes.teacher / TOKENISER
    tokeniser.write_bytes(tokeniser.read_bytes() + b"\n")
    assert asked(passes, TEXTS) == 60


def test_a_pass_that_breaks_goes_on_after_its_last_shard(passes: Passes) -> None:
    whole = CountingTeacher()
    passes(TEXTS, whole, SETTINGS.model_copy(update={"shard_entries": 1000}))
    shutil.rmtree(passes.root)
    for breaks_after in range(whole.calls - 2):
        model = CountingTeacher(breaks_after)
        with pytest.raises(RuntimeError, match="the power is gone"):
            passes(TEXTS, model)
        kept = len(Reader.open(passes.folders[0])) if passes.root.exists() else 0
        assert model.rows - kept < SETTINGS.shard_entries, "less than one shard is lost"
        assert asked(passes, TEXTS) == 60 - kept
        shutil.rmtree(passes.root)


@pytest.mark.parametrize("budgets", [(64, 8192)])
def test_the_snapshot_does_not_tell_how_the_store_was_filled(
    passes: Passes, tmp_path: Path, budgets: tuple[int, int]
) -> None:
    digests = []
    for number, order in enumerate(([TEXTS], [TEXTS[40:], TEXTS[:20], TEXTS], [TEXTS[::-1], TEXTS])):
        passes.root = tmp_path / f"store{number}"
        for texts in order:
            settings = SETTINGS.model_copy(update={"batch_tokens": budgets[number % 2]})
            captured = passes(texts, settings=settings)
        snapshot(captured.reader, captured.keys, tmp_path / f"snapshot{number}", 25)
        digests.append(file_digests(tmp_path / f"snapshot{number}"))
    assert digests[0] == digests[1] == digests[2]


def test_after_damage_only_the_lost_answers_are_computed(passes: Passes) -> None:
    passes(TEXTS)
    path = shard_files(passes.folders[0])[1]
    entries = Reader.open(passes.folders[0]).manifest.shards[1].entries
    path.write_bytes(path.read_bytes()[:-1])
    assert asked(passes, TEXTS) == entries
    assert asked(passes, TEXTS) == 0


class OtherTeacher(CountingTeacher):
    """Says something else than it said before."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, pooled = super().forward(ids, mask)
        return self.changed(logits), pooled

    def changed(self, logits: torch.Tensor) -> torch.Tensor:
        return -logits


class BrokenTeacher(OtherTeacher):
    def changed(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * float("nan")


@pytest.mark.parametrize("other", [OtherTeacher, BrokenTeacher])
def test_answers_that_are_not_the_live_teachers_are_found_when_capture_closes(
    passes: Passes, other: type[CountingTeacher]
) -> None:
    passes(TEXTS)
    with pytest.raises(
        DamagedCache, match=r"the answer \(logits\) for row \d+ has cosine (-1\.0000|nan) to the live teacher's"
    ):
        passes(TEXTS, other())


def test_the_spot_check_names_a_row_that_differs(passes: Passes) -> None:
    class OneRow(CountingTeacher):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, pooled = super().forward(ids, mask)
            wrong = torch.tensor([row.tolist()[: len(odd)] == odd for row in ids])
            return torch.where(wrong[:, None], logits.flip(1) * torch.tensor([1, -1, 1]), logits), pooled

    odd = passes.tokeniser.encode(TEXTS[17]).ids
    passes(TEXTS)
    every = SETTINGS.model_copy(update={"spot_check": 1000})
    with pytest.raises(DamagedCache, match=r"the answer \(logits\) for row 17 has cosine"):
        passes(TEXTS, OneRow(), every)


def test_a_teacher_that_gives_no_numbers_leaves_nothing(passes: Passes) -> None:
    with pytest.raises(InputError, match="logits are not finite"):
        passes(TEXTS, BrokenTeacher())
    assert not list(passes.root.rglob("*.safetensors"))


def test_pairs_of_texts_are_answered_by_what_both_say(passes: Passes) -> None:
    pairs: list[Example] = list(zip(TEXTS[:20], TEXTS[20:40], strict=True))
    examples = [*pairs, *TEXTS[:5], (TEXTS[20], TEXTS[0])]
    captured = passes(examples)
    assert captured.computed == 26
    assert passes([*examples[::-1], (TEXTS[0], TEXTS[20])]).computed == 0
    tokens = tokenise(passes.tokeniser, examples, 32)
    ids, mask = (torch.from_numpy(part) for part in tokens.padded(np.arange(26), 0))
    expected, _ = CountingTeacher()(ids, mask)
    found = captured.reader.read("logits", captured.reader.locate(entry_keys(examples), "pairs"))
    np.testing.assert_array_equal(found, expected.numpy())


def test_all_signals_come_from_one_pass_and_are_the_models_own(passes: Passes, teacher: Path) -> None:
    model, description = load_teacher(teacher)
    rows: list[int] = []
    model.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    asked = SETTINGS.model_copy(update={"signals": ("logits", "embedding:int8", "hidden.1", "hidden.2:int8")})
    captured = passes(TEXTS, model, asked)
    assert sum(rows) == len(TEXTS) + asked.spot_check
    assert widths(captured) == {"logits": 3, "embedding": 32, "hidden.1": 32, "hidden.2": 32}
    reader, positions = captured.reader, captured.reader.locate(entry_keys(TEXTS), "texts")
    tokens = tokenise(passes.tokeniser, TEXTS, 32)
    found = {name: reader.read_tokens(name, positions) for name in ("hidden.1", "hidden.2")}
    vectors = {name: reader.read(name, positions) for name in ("logits", "embedding")}
    # One text after another: nothing is padded, so what is read back belongs to the right tokens of the right text.
    for answer in answers(model, tokens, description.pad, np.split(np.arange(60), 60), (1, 2)):
        [row] = answer.rows
        own = slice(tokens.offsets[row], tokens.offsets[row + 1])
        np.testing.assert_allclose(vectors["logits"][[row]], answer.logits, rtol=2e-3, atol=1e-4)
        near_in_int8(vectors["embedding"][[row]], answer.pooled)
        np.testing.assert_allclose(found["hidden.1"].values[own], answer.hidden[1], rtol=2e-3, atol=1e-4)
        near_in_int8(found["hidden.2"].values[own], answer.hidden[2])
    for states in found.values():
        assert states.lengths.tolist() == tokens.lengths.tolist()


def near_in_int8(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Half a step of int8 apart, and a little for another order of sums."""
    steps = np.abs(expected).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - expected) <= 0.5 * steps + 1e-5).all()


def test_texts_in_files_fill_a_store_as_texts_in_memory_do(passes: Passes, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, part in (("train", TEXTS[:35]), ("grown", [*TEXTS[35:], *TEXTS[:9]])):
        pq.write_table(pa.table({"row": range(len(part)), "text": part}), tmp_path / f"{name}.parquet")
    written = []
    for number, texts in enumerate(
        ([*TEXTS, *TEXTS[:9]], Stored(tmp_path / "train.parquet", tmp_path / "grown.parquet"))
    ):
        passes.root = tmp_path / f"store{number}"
        assert passes(texts).computed == 60
        written.append({name: digest for name, digest in file_digests(passes.root).items() if PASSES not in name})
    assert written[0] == written[1]
    assert len(written[0]) > 4


def test_a_shard_is_written_when_its_first_answer_is_old(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.cache.writer._SHARD_S", -1.0)
    whole = SETTINGS.model_copy(update={"shard_entries": 1000})
    model = CountingTeacher(breaks_after=4)
    with pytest.raises(RuntimeError, match="the power is gone"):
        passes(TEXTS, model, whole)
    assert len(Manifests(Folder(passes.folders[0])).latest().shards) == 4
    assert len(Reader.open(passes.folders[0])) == model.rows
    assert passes(TEXTS, settings=whole).computed == 60 - model.rows


def test_small_shards_of_many_passes_are_merged_when_a_pass_ends(passes: Passes) -> None:
    def shards() -> list[int]:
        return sorted(shard.entries for shard in Manifests(Folder(passes.folders[0])).latest().shards)

    for count in range(5, 25, 5):
        assert asked(passes, TEXTS[:count]) == 5
    assert shards() == [5, 5, 5, 5]
    assert asked(passes, TEXTS[:25]) == 5
    assert shards() == [5, 20]
    assert asked(passes, TEXTS) == 35
    assert asked(passes, TEXTS) == 0


def test_machines_that_share_a_store_compute_each_text_once(passes: Passes, tmp_path: Path) -> None:
    shared = SETTINGS.model_copy(update={"store": str(tmp_path / "shared")})
    assert passes(TEXTS[:40], settings=shared).computed == 40
    passes.root = tmp_path / "other"
    captured = passes(TEXTS, settings=shared)
    assert captured.computed == 20
    assert len(captured.reader) == 60
    passes.root = tmp_path / "third"
    assert passes(TEXTS, settings=shared).computed == 0


def test_every_pass_is_remembered(passes: Passes) -> None:
    passes(TEXTS[:40])
    passes([*TEXTS, *TEXTS])
    lines = [json.loads(line) for line in (passes.folders[0] / PASSES).read_text().splitlines()]
    assert [(line["asked"], line["found"]) for line in lines] == [(40, 0), (60, 40)]


def test_progress_is_told(passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_EVENTS", str(tmp_path / "events"))
    passes(TEXTS)
    last: dict[str, Any] = json.loads((tmp_path / "events").read_text().splitlines()[-1])
    assert (last["kind"], last["task"], last["done"], last["total"]) == ("progress", "capture", 60, 60)
