"""A published student as something to package."""

from pathlib import Path

from stillroom.export.build import Model
from stillroom.students.distil import load_student


def model_of(folder: Path, variant: str, name: str) -> Model:
    """One variant of the student in a folder. Raises InputError if the folder is not as it was published."""
    module, description = load_student(folder, variant)
    return Model(
        name=name,
        family=description["family"],
        module=module,
        tokeniser=folder / "tokenizer.json",
        problem_type=description["problem_type"],
        labels=description["labels"],
        max_length=description["max_length"],
        params=description["params"],
    )
