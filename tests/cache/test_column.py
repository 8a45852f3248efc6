from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom.cache.column import Column
from stillroom.cache.ensemble import Ensemble
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from tests.cache.answers import answers_of, texts, write_folder

EXAMPLES = [texts(20)[place] for place in np.random.default_rng(2).integers(0, 20, 50)]
"""Rows of a data set: in an order of their own, some texts several times."""
KEYS = entry_keys(EXAMPLES)


@pytest.mark.parametrize("per_shard", [3, 20])
@pytest.mark.parametrize("signal", ["logits", "embedding"])
def test_rows_get_the_answers_to_their_texts_in_whatever_order_they_are_asked_for(
    tmp_path: Path, per_shard: int, signal: str
) -> None:
    write_folder(tmp_path, 20, per_shard)
    reader = Reader.open(tmp_path)
    column = Column(reader, signal, reader.locate(KEYS, "rows"))
    assert len(column) == 50
    generator = torch.Generator().manual_seed(3)
    for rows in (torch.randperm(50, generator=generator), torch.tensor([49]), torch.tensor([7, 7, 0]), torch.arange(0)):
        values = column[rows]
        assert values.dtype == torch.float32
        np.testing.assert_array_equal(values.numpy(), answers_of(KEYS[rows.numpy()])[signal])


def test_shuffling_the_data_shuffles_the_answers_with_it(tmp_path: Path) -> None:
    write_folder(tmp_path, 20, 6)
    reader = Reader.open(tmp_path)
    order = np.random.default_rng(5).permutation(50)
    column = Column(reader, "logits", reader.locate(KEYS, "rows"))
    shuffled = Column(reader, "logits", reader.locate(entry_keys([EXAMPLES[row] for row in order]), "rows"))
    torch.testing.assert_close(shuffled[torch.arange(50)], column[torch.from_numpy(order)], rtol=0, atol=0)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, 20, 20)
    reader = Reader.open(tmp_path)
    read: list[int] = []
    encoded = Reader.encoded

    def counted(self: Reader, signal: str, positions: np.ndarray) -> object:
        read.append(len(positions))
        return encoded(self, signal, positions)

    monkeypatch.setattr(Reader, "encoded", counted)
    column = Column(reader, "logits", reader.locate(KEYS, "rows"))
    assert read == []
    column[torch.tensor([4, 2])]
    assert read == [2]


def test_a_column_of_several_teachers_is_their_mean(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_folder(tmp_path / name, 20, 6)
    ensemble = Ensemble([Reader.open(tmp_path / name) for name in ("one", "other")])
    column = Column(ensemble, "embedding", ensemble.locate(KEYS, "rows"))
    rows = torch.tensor([3, 49, 3])
    np.testing.assert_allclose(column[rows].numpy(), answers_of(KEYS[rows.numpy()])["embedding"], rtol=1e-6)
