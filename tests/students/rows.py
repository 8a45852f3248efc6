"""The rows that the students of these tests are trained on."""

from tests.toys import toy_rows

TRAIN, VALIDATION = toy_rows(90, seed=31), toy_rows(30, seed=32, first_row=90)
