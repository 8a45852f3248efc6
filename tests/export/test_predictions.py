from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.export.predictions import read_probabilities, write_predictions
from tests.toys import toy_rows

ROWS = toy_rows(20, seed=3)
STUDENT, TEACHER = (np.random.default_rng(seed).dirichlet(np.ones(3), 20).astype(np.float32) for seed in (0, 1))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, ROWS, {"student": STUDENT, "teacher": TEACHER})
    return path


def test_probabilities_come_back_as_they_were(written: Path) -> None:
    for name, expected in (("student", STUDENT), ("teacher", TEACHER)):
        found = read_probabilities(written, name, ROWS)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_the_table_has_rows_labels_and_a_list_per_model(written: Path) -> None:
    table = pq.read_table(written)
    assert table.column_names == ["row", "label", "student", "teacher"]
    assert table["row"].to_pylist() == ROWS.row.tolist()
    assert table["label"].to_pylist() == ROWS.label.tolist()
    assert table["student"].to_pylist()[3] == STUDENT[3].tolist()


def test_predictions_of_other_rows_or_another_order_are_refused(written: Path) -> None:
    order = np.arange(20)[::-1]
    turned = Rows(ROWS.row[order], [ROWS.text[row] for row in order], ROWS.label[order])
    fewer = Rows(ROWS.row[:19], ROWS.text[:19], ROWS.label[:19])
    for rows in (turned, fewer):
        with pytest.raises(InputError, match="holds other rows, or another order, than the split"):
            read_probabilities(written, "student", rows)


def test_predictions_that_do_not_fit_the_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="student: 19 predictions for 20 rows"):
        write_predictions(tmp_path / "x.parquet", ROWS, {"student": STUDENT[:19]})


def test_a_model_or_file_that_is_not_there_is_wrong_input(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no predictions of baseline can be read"):
        read_probabilities(written, "baseline", ROWS)
    with pytest.raises(InputError, match="no predictions of student can be read"):
        read_probabilities(tmp_path / "absent.parquet", "student", ROWS)
    written.write_bytes(b"no table")
    with pytest.raises(InputError, match="no predictions of student can be read") as caught:
        read_probabilities(written, "student", ROWS)
    assert "\n" not in str(caught.value)
