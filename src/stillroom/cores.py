"""How many cores there are to compute on. Of the standard library alone, since shipped packages count them too."""

import os


def available_cores() -> int:
    """Cores this process may use; where the system does not tell, all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
