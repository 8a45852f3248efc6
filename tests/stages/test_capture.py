from collections.abc import Callable

import numpy as np
import pytest

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.cache.codecs import asked_for, recorded
from stillroom.cache.identity import check_same, entry_keys, fingerprint
from stillroom.cache.reader import Reader
from stillroom.data.examples import read_examples, write_examples
from stillroom.data.splits import read_split
from stillroom.files import file_digests
from stillroom.stages.receipt import Receipt, read_receipt
from stillroom.teacher.inference import forward_batches
from stillroom.teacher.model import TOKENISER, load_teacher
from tests.conftest import run_stage
from tests.toys import Workspace, publish_teacher


def captured(monkeypatch: pytest.MonkeyPatch) -> Receipt:
    assert run_stage(monkeypatch, "capture") == 0
    receipt = read_receipt("capture")
    assert receipt is not None
    return receipt


def change_train(change: Callable[[list[int]], list[int]], text: str | None = None) -> None:
    """Write the training rows in another order, or choice; `text` replaces the first."""
    path = layout.SPLIT / "train.parquet"
    rows = read_examples(path)
    order = change(list(range(len(rows))))
    texts = [rows.text[row] for row in order]
    if text is not None:
        texts[0] = text
    write_examples(type(rows)([rows.row[row] for row in order], texts, [rows.label[row] for row in order]), path)


def test_every_training_row_has_the_teachers_answer(finished: Workspace) -> None:
    reader = Reader.open(layout.CACHE)
    train = read_split(layout.SPLIT, "train")
    assert len(reader) == len(train)
    check_same(
        reader.manifest.fingerprint,
        fingerprint(layout.TEACHER, "fp32", recorded(asked_for(("logits", "embedding")))),
        layout.CACHE,
    )
    assert [shard.entries for shard in reader.manifest.shards] == [50, 50, 20]
    positions = reader.locate(entry_keys(train.text), "rows")
    model, description = load_teacher(layout.TEACHER)
    tokens = tokenise(load_tokeniser(layout.TEACHER / TOKENISER, 32), train.text, 32)
    for rows, logits, pooled in forward_batches(model, tokens, description.pad, 300):
        for signal, expected in (("logits", logits), ("embedding", pooled)):
            np.testing.assert_allclose(reader.read(signal, positions[rows]), expected, atol=5e-3, rtol=5e-3)


def test_the_receipt_tells_what_was_computed(finished: Workspace) -> None:
    receipt = read_receipt("capture")
    assert receipt is not None
    assert (receipt.metrics["entries"], receipt.metrics["computed"]) == (120, 120)
    assert receipt.metrics["tokens_per_second"] > 0


def test_a_second_capture_computes_nothing_and_gives_the_same_bytes(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_digests(layout.CACHE)
    receipt = captured(monkeypatch)
    assert (receipt.metrics["computed"], receipt.metrics["tokens_per_second"]) == (0, 0)
    assert file_digests(layout.CACHE) == before
    own_finished.override("capture.batch_tokens=64", "seed=5", "capture.spot_check=3")
    assert captured(monkeypatch).metrics["computed"] == 0
    assert file_digests(layout.CACHE) == before


def test_rows_in_another_order_give_the_same_bytes_and_fewer_rows_only_theirs(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_digests(layout.CACHE)
    change_train(lambda rows: rows[::-1])
    assert captured(monkeypatch).metrics["computed"] == 0
    assert file_digests(layout.CACHE) == before
    change_train(lambda rows: rows[:70] + rows[:10])
    receipt = captured(monkeypatch)
    assert (receipt.metrics["computed"], receipt.metrics["entries"]) == (0, 70)


def test_a_row_that_was_edited_is_the_only_one_computed(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_train(lambda rows: rows, text="a text that nobody has seen")
    receipt = captured(monkeypatch)
    assert (receipt.metrics["computed"], receipt.metrics["entries"]) == (1, 120)


def test_another_teacher_is_asked_everything(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.rmtree(layout.TEACHER)
    publish_teacher(layout.TEACHER, own_finished.path / "checkpoint", seed=9)
    assert captured(monkeypatch).metrics["computed"] == 120
    assert len(list((layout.state() / "cache").iterdir())) == 2


def test_a_store_that_was_damaged_is_mended_and_the_outs_are_the_same(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader.open(layout.CACHE)
    (folder,) = (layout.state() / "cache").iterdir()
    shard = sorted((folder / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-4])
    receipt = captured(monkeypatch)
    assert 0 < receipt.metrics["computed"] < 120
    assert shard.name in caplog.text
    after = Reader.open(layout.CACHE)
    keys = entry_keys(read_split(layout.SPLIT, "train").text)
    for signal in ("logits", "embedding"):
        np.testing.assert_allclose(
            after.read(signal, after.locate(keys, "rows")),
            reader.read(signal, reader.locate(keys, "rows")),
            atol=2e-3,
        )


def test_only_the_signals_asked_for_are_kept(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    own_finished.override("capture.signals=[logits]", "students.sliced.cosine_weight=0")
    assert captured(monkeypatch).metrics["computed"] == 120
    assert {name: kept.width for name, kept in Reader.open(layout.CACHE).manifest.signals.items()} == {"logits": 3}
