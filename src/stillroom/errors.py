"""The exception tree. Every error carries the exit code that the command line and the stages end with.

0 done · 1 defect in Stillroom · 2 wrong input or params · 3 gate says no · 65 training diverged · 75 try again later.
"""


class StillroomError(Exception):
    """Any failure that Stillroom foresees; its message is one line: what, where, which value, what to do."""

    exit_code = 1


class InputError(StillroomError):
    """Wrong input: data, params, a checkpoint, an address. Nothing was written."""

    exit_code = 2


class Absent(InputError):
    """What was asked for by its name is not in the storage."""


class ParamsError(InputError):
    """params.yaml, an override or a flow parameter does not describe a run."""


class GateRefused(StillroomError):
    """No student passed the gate, or a promotion lacks its proof: a normal result, not a defect."""

    exit_code = 3


class Diverged(StillroomError):
    """Training produced a loss that is not finite."""

    exit_code = 65


class TryAgain(StillroomError):
    """Storage, tracker, network or a lock is not to be had now; the same command may succeed later."""

    exit_code = 75


class Spoiled(TryAgain):
    """What a storage gives out under a name is not what was put there, however often it is asked."""
