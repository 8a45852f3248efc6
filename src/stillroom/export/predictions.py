"""Predicted probabilities of test rows as Parquet: row, label, and one list of probabilities per model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.data.splits import Rows
from stillroom.errors import InputError

Probabilities = npt.NDArray[np.float32]


def write_predictions(path: Path, rows: Rows, models: Mapping[str, Probabilities]) -> None:
    """Write the predictions of several models for the same rows, in the rows' order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    several = rows.label.ndim == 2
    label = _lists(rows.label) if several else pa.array(rows.label)
    columns: dict[str, Any] = {"row": pa.array(rows.row), "label": label}
    for name, probabilities in models.items():
        if len(probabilities) != len(rows.row):
            raise InputError(f"{name}: {len(probabilities)} predictions for {len(rows.row)} rows")
        columns[name] = _lists(probabilities.astype(np.float32))
    pq.write_table(pa.table(columns), path)


def _lists(values: npt.NDArray[Any]) -> Any:
    """An array [rows, classes] as a column."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def read_probabilities(path: Path, name: str, rows: Rows) -> Probabilities:
    """One model's probabilities [rows, classes]; they must be of exactly these rows, in this order."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["row", name])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no predictions of {name} can be read ({error})") from error
    if not np.array_equal(table["row"].to_numpy(), rows.row):
        raise InputError(f"{path}: holds other rows, or another order, than the split")
    column = table[name].combine_chunks()
    result: Probabilities = column.flatten().to_numpy().reshape(len(rows.row), -1).astype(np.float32)
    return result
