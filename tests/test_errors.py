import pytest

from stillroom import errors
from stillroom.cache.identity import StaleCache
from stillroom.cache.shards import DamagedCache
from stillroom.export.runtime import PackageError


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.StillroomError, 1),
        (errors.InputError, 2),
        (errors.Absent, 2),
        (errors.ParamsError, 2),
        (StaleCache, 2),
        (DamagedCache, 2),
        (PackageError, 2),
        (errors.GateRefused, 3),
        (errors.Diverged, 65),
        (errors.TryAgain, 75),
        (errors.Spoiled, 75),
    ],
)
def test_every_error_has_the_exit_code_of_its_meaning(kind: type[errors.StillroomError], exit_code: int) -> None:
    assert kind("told").exit_code == exit_code
    assert issubclass(kind, errors.StillroomError)
