"""Further columns of the test rows: they stay in the raw file, where the row ids of a split find them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.data.manifest import SnapshotManifest, read_source
from stillroom.data.reading import read_columns
from stillroom.errors import InputError


def columns_of_test(
    folder: Path, snapshot: SnapshotManifest, row: npt.NDArray[np.int64], names: Mapping[str, str]
) -> dict[str, Sequence[Any]]:
    """Values [rows] of the columns that parameters name, by parameter, for test rows with these ids.

    folder: sources/data. Test rows are all those of the file data.test or, without one, some of the file data.source,
    which is numbered from 0. They need not pass through the split, so another column trains no teacher anew. Raises
    InputError for a column that is missing, and for raw files that the split was not made from.
    """
    source = read_source(folder)
    record = source.test or source.train
    found = read_columns(folder / record.file, names, record.uri)
    count = len(next(iter(found.values())))
    place = row - row[0] if source.test else row
    if source.labelled() != snapshot.source or (len(place) != count if source.test else place.max() >= count):
        raise InputError(f"{folder}: holds other files than those that were split; run the stage split again")
    return {name: [values[index] for index in place] for name, values in found.items()}
