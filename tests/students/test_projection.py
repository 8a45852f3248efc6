from pathlib import Path
from typing import Any

import pytest
import torch

from stillroom.errors import InputError
from stillroom.students.projection import axes_of, narrow_config, principal_basis, project
from stillroom.students.sliced import untrained
from stillroom.teacher.model import load_encoder
from tests.teacher.families import write_family
from tests.toys import tiny_config


def states_in(directions: int, width: int = 12) -> torch.Tensor:
    """States that lie in so many directions."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, directions, generator=generator) @ torch.randn(directions, width, generator=generator)


def test_a_basis_is_orthonormal_and_keeps_the_directions_in_use() -> None:
    states = states_in(5)
    basis, share = principal_basis(states, 5)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(states @ basis @ basis.T, states, atol=1e-3, rtol=1e-3)
    assert share == pytest.approx(1)
    fewer, part = principal_basis(states, 3)
    kept = (states @ fewer).square().sum() / states.square().sum()
    assert part == pytest.approx(float(kept), rel=1e-4)
    assert all(part >= float((states[:, i : i + 3]).square().sum() / states.square().sum()) for i in range(9))


def test_a_basis_of_the_whole_width_is_the_coordinates_themselves() -> None:
    basis, share = principal_basis(states_in(12), 12)
    torch.testing.assert_close(basis, torch.eye(12), atol=1e-5, rtol=0)
    assert share == pytest.approx(1)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "deberta-v2"])
def test_queries_keys_and_values_are_told_from_the_attentions_output(tmp_path: Path, kind: str) -> None:
    encoder = load_encoder(write_family(tmp_path, kind))
    axes = {name: kinds for name, kinds in axes_of(encoder).items() if name.endswith("weight") and "0." in name}
    into = sorted(name for name, kinds in axes.items() if kinds == ("heads", "hidden"))
    out = [name for name, kinds in axes.items() if kinds == ("hidden", "heads")]
    inner = [name.split(".")[-2].replace("_proj", "").replace("_lin", "") for name in into]
    assert inner in (["key", "query", "value"], ["k", "q", "v"])
    assert [name.split(".")[-2] for name in out] in (["dense"], ["o"], ["out_lin"])


def _with_extra(kind: str, **settings: Any) -> Any:
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes | settings))


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        ("modernbert", {"intermediate_size": 64, "pad_token_id": 0}, "is no weight that it knows"),
        ("electra", {"intermediate_size": 64, "embedding_size": 16}, "is no weight that it knows"),
        ("bert", {"intermediate_size": 32}, "do not tell it apart"),
    ],
)
def test_an_encoder_of_which_a_weight_is_not_known_is_refused(kind: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=rf"Model: cannot be made narrow.*{told}.*MPNet.*use family: sliced") as caught:
        axes_of(_with_extra(kind, **settings))
    assert "\n" not in str(caught.value)


def test_an_encoder_whose_layers_have_more_maps_than_attention_is_refused() -> None:
    from transformers import BertModel

    encoder = BertModel(tiny_config(50))
    for layer in encoder.encoder.layer:
        layer.more = torch.nn.Linear(32, 64)
    with pytest.raises(InputError, match="its layers are not queries, keys, values"):
        axes_of(encoder)


def test_units_are_as_many_for_the_width_as_before() -> None:
    from transformers import BertModel

    encoder = BertModel(tiny_config(50))
    config = narrow_config(encoder, 16, 1, 40, 3)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (16, 1, 32)
    assert (config.num_hidden_layers, config.vocab_size, config.pad_token_id) == (1, 40, 3)
    assert encoder.config.hidden_size == 32


def test_weights_are_those_of_the_basis_and_of_the_largest_heads_and_units(tmp_path: Path) -> None:
    teacher = load_encoder(write_family(tmp_path, "bert"))
    coordinates = torch.arange(16) * 2
    layer = teacher.encoder.layer[1]
    units = torch.arange(32) + 7
    with torch.no_grad():
        layer.attention.output.dense.weight[:, 16:] *= 10  # the second head
        layer.output.dense.weight[:, units] *= 10
        for weight in teacher.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([0, 2, 9, 4, 7])
    student = untrained(narrow_config(teacher, 16, 1, 5, 0))
    project(teacher, student, [1], kept, torch.eye(32)[:, coordinates], 0.5)
    own = student.encoder.layer[0]
    table, positions = (teacher.embeddings.word_embeddings, teacher.embeddings.position_embeddings)
    assert torch.equal(student.embeddings.word_embeddings.weight, table.weight[kept][:, coordinates])
    assert torch.equal(student.embeddings.position_embeddings.weight, positions.weight[:, coordinates])
    assert torch.equal(own.attention.self.key.weight, layer.attention.self.key.weight[16:][:, coordinates])
    assert torch.equal(own.attention.self.value.bias, layer.attention.self.value.bias[16:])
    assert torch.equal(own.attention.output.dense.weight, layer.attention.output.dense.weight[coordinates, 16:])
    assert torch.equal(own.intermediate.dense.weight, layer.intermediate.dense.weight[units][:, coordinates])
    assert torch.equal(own.output.dense.weight, layer.output.dense.weight[coordinates][:, units])
    # half the squares over half the coordinates: as large as before
    torch.testing.assert_close(own.output.LayerNorm.weight, layer.output.LayerNorm.weight[coordinates])
    assert torch.equal(own.output.LayerNorm.bias, layer.output.LayerNorm.bias[coordinates])
