import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.batching import load_tokeniser, tokenise
from stillroom.cache.capture import Captured, capture
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.shards import SHARDS, DamagedCache, read_manifest
from stillroom.cache.store import export
from stillroom.errors import InputError
from stillroom.files import file_digests
from stillroom.params import CaptureParams
from stillroom.teacher.inference import predict
from stillroom.teacher.model import TOKENISER, load_teacher
from tests.cache.answers import CountingTeacher
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
        texts: list[str],
        model: torch.nn.Module | None = None,
        settings: CaptureParams = SETTINGS,
        precision: str = "fp32",
        seed: int = 0,
    ) -> Captured:
        model = model or CountingTeacher()
        return capture(model, self.tokeniser, 32, 0, self.teacher, precision, texts, settings, self.root, seed)

    @property
    def folders(self) -> list[Path]:
        return sorted(self.root.iterdir())


@pytest.fixture
def passes(teacher: Path, tmp_path: Path) -> Passes:
    return Passes(teacher, tmp_path / "store")


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
    assert captured.reader.manifest.widths == {"logits": 3, "embedding": 32}
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
    assert set(logits.reader.manifest.widths) == {"logits"}
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
        kept = len(Reader.open(passes.folders[0])) if (passes.folders[0] / "manifest.json").exists() else 0
        assert model.rows - kept < SETTINGS.shard_entries, "less than one shard is lost"
        assert kept % 1 == 0
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
        export(captured.reader, captured.keys, tmp_path / f"snapshot{number}", 25)
        digests.append(file_digests(tmp_path / f"snapshot{number}"))
    assert digests[0] == digests[1] == digests[2]


def test_after_damage_only_the_lost_answers_are_computed(passes: Passes) -> None:
    passes(TEXTS)
    folder = passes.folders[0]
    shard = read_manifest(folder).shards[1]
    path = folder / SHARDS / shard.name
    path.write_bytes(path.read_bytes()[:-1])
    assert asked(passes, TEXTS) == shard.entries
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
    with pytest.raises(DamagedCache, match=r"the answer for row \d+ has cosine (-1\.0000|nan) to the live teacher's"):
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
    with pytest.raises(DamagedCache, match=r"the answer for row 17 has cosine"):
        passes(TEXTS, OneRow(), every)


def test_a_teacher_that_gives_no_numbers_leaves_nothing(passes: Passes) -> None:
    with pytest.raises(InputError, match="logits are not finite"):
        passes(TEXTS, BrokenTeacher())
    assert not list(passes.root.rglob("*.safetensors"))


def test_progress_is_told(passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setenv("STILLROOM_EVENTS", str(tmp_path / "events"))
    passes(TEXTS)
    last: dict[str, Any] = json.loads((tmp_path / "events").read_text().splitlines()[-1])
    assert (last["kind"], last["task"], last["done"], last["total"]) == ("progress", "capture", 60, 60)
