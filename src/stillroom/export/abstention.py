"""Labels withheld where a package is unsure, counted so that a useless threshold does not go unnoticed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Answer = tuple[str, str, float]


@dataclass
class Abstention:
    """Counts the answers of a stream with a threshold as they pass."""

    threshold: float
    least: float
    """What no answer's probability falls below."""
    texts: int = 0
    withheld: int = 0
    highest: float = 0.0

    def watch(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The same answers."""
        for answer in answers:
            self.texts += 1
            self.withheld += answer[2] < self.threshold
            self.highest = max(self.highest, answer[2])
            yield answer

    def warning(self) -> str | None:
        """One line, where the threshold withholds every label or can never withhold one."""
        if self.threshold <= self.least:
            return (
                f"{self.threshold} withholds no label: every answer has a probability of {self.least:.3g} or more; "
                "give more than that"
            )
        if self.texts and self.withheld == self.texts:
            return (
                f"{self.threshold} withheld the label of every text ({self.texts}); the highest probability was "
                f"{self.highest:.6f}; give less than that"
            )
        return None
