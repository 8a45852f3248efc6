from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom.cache.codecs import PerToken, asked_for, recorded
from stillroom.cache.column import Column, TokenColumn
from stillroom.cache.ensemble import Ensemble
from stillroom.cache.identity import entry_keys, folder_name
from stillroom.cache.manifest import Kept, Manifest, Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.shards import write_shard
from stillroom.storage import Folder
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


def test_states_stand_at_their_rows_padded_and_not_at_rows_of_other_tokens(tmp_path: Path) -> None:
    signals = asked_for(("hidden.1",))
    fields = {"signals": recorded(signals)}
    keys, lengths = entry_keys(texts(4)), np.array([3, 1, 4, 2])
    states = np.random.default_rng(2).integers(-8, 8, (10, 5)).astype(np.float32)
    every = np.split(states, np.cumsum(lengths)[:-1])
    answers = {signal: signal.codec.encode(PerToken(states, lengths)) for signal in signals}
    kept = {"hidden.1": Kept(codec=signals[0].codec.label, width=5)}
    manifest = Manifest(
        fingerprint=fields, signals=kept, shards=(write_shard(tmp_path, folder_name(fields), keys, answers),)
    )
    Manifests(Folder(tmp_path), Manifest(fingerprint={})).change(lambda _: manifest)
    reader = Reader.open(tmp_path)
    aligned = np.array([True, True, False, True])
    column = TokenColumn(reader, "hidden.1", reader.locate(keys, "rows"), aligned)
    assert len(column) == 4
    for asked in ([0, 1, 2, 3], [3, 2, 3, 1], [1], [2, 0]):
        found = column[torch.tensor(asked)].numpy()
        known = [row for row in asked if aligned[row]]
        assert found.shape == (len(asked), lengths[known].max(), 5)
        for place, row in zip(found, asked, strict=True):
            length = lengths[row] if aligned[row] else 0
            np.testing.assert_array_equal(place[:length], every[row][:length])
            assert np.isnan(place[length:]).all()
    for asked in ([2, 2], []):
        assert column[torch.tensor(asked, dtype=torch.int64)].shape == (len(asked), 0, 5)
