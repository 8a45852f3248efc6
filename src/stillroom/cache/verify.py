"""Compare what a cache holds with what its teacher says now."""

from collections.abc import Sequence

from stillroom.cache.identity import Example, entry_keys
from stillroom.cache.live import LiveTeacher
from stillroom.cache.reader import Ints, Reader, agreement
from stillroom.cache.shards import DamagedCache


def check_sample(reader: Reader, teacher: LiveTeacher, rows: Ints, examples: Sequence[Example]) -> None:
    """Raise DamagedCache that names a row whose stored answer, in any signal, is not the live teacher's.

    rows: what messages call the examples.
    """
    positions = reader.locate(entry_keys(examples), "texts")
    usual = {name: reader.usual_norm(name) for name in reader.signals}
    for batch, values in teacher.ask_all(examples, tuple(reader.signals.values())):
        for signal, live in values.items():
            stored = signal.codec.decode(reader.encoded(signal.name, positions[batch]))
            found = agreement(stored, live, usual[signal.name])
            worst = int(found.argmin())  # NaN counts as the least
            if not found[worst] >= signal.codec.least_cosine:
                raise DamagedCache(
                    f"{reader.folder}: the answer ({signal.name}) for row {int(rows[batch[worst]])} has cosine "
                    f"{found[worst]:.4f} to the live teacher's, at least {signal.codec.least_cosine} is needed; "
                    "remove this folder and capture again"
                )
