"""A run on the screen: a line for each stage that is done and, on a terminal, bars for those at work."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from stillroom.errors import StillroomError
from stillroom.events import pace_told
from stillroom.pipeline.outcome import StageOutcome
from stillroom.stages.receipt import Receipt

_PART = "seconds_"
"""Metrics of a receipt that are so named tell where the stage's time went."""


class Screen:
    """Follows a run; a pipe or a file gets the lines alone, as they come."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._up_to_date = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._up_to_date:
            self._print(f"[dim]{self._up_to_date} stages are up to date[/dim]")

    def opened(self, address: str) -> None:
        """Show a bar that has no end yet."""
        self._close(address)
        self._tasks[address] = self._bars.add_task(escape(address), total=None)

    def line(self, address: str, text: str) -> None:
        """Lines of output go to the log, not to the screen."""

    def event(self, address: str, event: dict[str, Any]) -> None:
        """Move the bar."""
        if address in self._tasks and event.get("kind") == "progress" and event.get("total"):
            parts = filter(None, (str(event.get("task", "")), pace_told(event)))
            described = f"{escape(address)} [dim]{escape(', '.join(parts))}[/dim]"
            self._bars.update(
                self._tasks[address],
                description=described,
                completed=event.get("done", 0),
                total=event["total"],
            )

    def closed(self, outcome: StageOutcome) -> None:
        """Leave a line for a stage that ran; count one that did not."""
        self._close(outcome.address)
        if outcome.executed:
            took = f"{outcome.seconds:.1f} s{_parts(outcome.receipt)}"
            self._print(f"[green]✓[/green] {escape(outcome.address)} [dim]{took}[/dim]")
        else:
            self._up_to_date += 1

    def failed(self, address: str, error: StillroomError) -> None:
        """Leave a line for a stage that failed; the reason, told at the end of the run, is all that a pipe needs."""
        self._close(address)
        if self.console.is_terminal:
            self._print(f"[red]✗[/red] {escape(address)}")

    def _close(self, address: str) -> None:
        if address in self._tasks:
            self._bars.remove_task(self._tasks.pop(address))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False)


def _parts(receipt: Receipt | None) -> str:
    """` (read 4.0, student 8.1)` for a stage that tells its parts, else nothing."""
    metrics = receipt.metrics if receipt else {}
    told = {name.removeprefix(_PART): took for name, took in metrics.items() if name.startswith(_PART)}
    parts = [f"{escape(name)} {took:.1f}" for name, took in told.items()]
    return f" ({', '.join(parts)})" if parts else ""
