from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stillroom.students.distil import FAMILIES
from stillroom.students.material import Material
from stillroom.students.table import initial_table


@pytest.mark.parametrize(("rows", "width", "dimensions"), [(30, 12, 5), (30, 12, 12), (30, 12, 20), (6, 12, 10)])
def test_the_initial_table_has_the_shape_asked_for(rows: int, width: int, dimensions: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(50, width)).astype(np.float32)
    kept = np.random.default_rng(1).permutation(50)[:rows]
    table = initial_table(embeddings, kept, dimensions)
    assert table.shape == (rows, dimensions)
    assert table.dtype == np.float32
    assert np.linalg.norm(table, axis=1).mean() == pytest.approx(dimensions**0.5)
    used = min(rows, width, dimensions)
    assert not table[:, used:].any()
    variances = table[:, :used].var(axis=0)
    assert (np.diff(variances) <= 1e-6).all(), "principal components come in the order of their share"


def test_with_all_components_distances_between_tokens_are_kept() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    table = initial_table(embeddings, np.arange(20), 6)
    before, after = (np.linalg.norm(part[:, None] - part[None], axis=2) for part in (embeddings, table))
    scale = after[0, 1] / before[0, 1]
    np.testing.assert_allclose(after, before * scale, atol=1e-4)


def test_a_table_of_equal_embeddings_is_finite() -> None:
    assert not initial_table(np.ones((5, 4), np.float32), np.arange(5), 3).any()


@pytest.mark.parametrize("family", ["static", "cnn", "bilstm"])
def test_a_student_starts_from_the_teachers_embeddings(
    settings_of: Callable[..., Any], material_of: Callable[..., Material], family: str
) -> None:
    settings = settings_of(family, dimensions=16)
    material = material_of(settings, special_tokens=False)
    student = FAMILIES[family].build(material, settings)
    embeddings = material.teacher.encoder.get_input_embeddings().weight.detach().numpy()
    expected = initial_table(embeddings, material.kept, 16)
    np.testing.assert_allclose(student.table.weight.detach().numpy(), expected, atol=1e-6)
    assert student.table.weight.requires_grad
