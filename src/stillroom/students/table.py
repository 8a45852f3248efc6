"""A table of token vectors that starts from the teacher: principal components of its own token embeddings."""

import math

import numpy as np
import numpy.typing as npt
import torch

from stillroom.students.material import Material


def initial_table(
    embeddings: npt.NDArray[np.float32], kept: npt.NDArray[np.int64], dimensions: int
) -> npt.NDArray[np.float32]:
    """Principal components of the kept tokens' embeddings, float32 [len(kept), dimensions], of mean norm √dimensions.

    A smaller table is lost to the optimiser's steps, which do not depend on scale (docs/adr/0007-static-start.md).
    Padded with zeros where the teacher has fewer dimensions than asked for.
    """
    chosen = embeddings[kept]
    centred = chosen - chosen.mean(axis=0)
    width = min(dimensions, *centred.shape)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    table = np.zeros((len(kept), dimensions), dtype=np.float32)
    table[:, :width] = centred @ components[:width].T
    table *= math.sqrt(dimensions) / max(float(np.linalg.norm(table, axis=1).mean()), 1e-12)
    return table


def start_table(weight: torch.Tensor, material: Material) -> None:
    """Fill a table's weight [kept tokens, dimensions] from the teacher's token embeddings, in place."""
    embeddings = material.teacher.encoder.get_input_embeddings().weight.detach().float().numpy()
    with torch.no_grad():
        weight.copy_(torch.from_numpy(initial_table(embeddings, material.kept, weight.shape[1])))
