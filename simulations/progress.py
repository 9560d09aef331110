"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere. Nothing here is logged."""

import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.rounds import RoundRecord
from strategies.task import SiteId


class Observer(Protocol):
    """Told what a run is doing."""

    def step(self, text: str) -> None:
        """Another part of the work begins."""

    def round(self, record: RoundRecord, planned: int, loss: float) -> None:
        """A round ended; ``loss`` is the experimenter's view."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""


class PlainObserver:
    """Prints plain lines; rounds at most one a second, but always the last and those that something happened in."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = time.monotonic()
        self._shown = 0.0
        self._troubles = Troubles()

    def step(self, text: str) -> None:
        """Prints the step with the seconds since the beginning."""
        self._line(f"[{time.monotonic() - self._began:5.1f} s] {text}")

    def round(self, record: RoundRecord, planned: int, loss: float) -> None:
        """Prints the round, unless one was printed within this second."""
        now = time.monotonic()
        for line in self._troubles.lines(record):
            self._line(line)
        if record.round == planned or now - self._shown >= 1.0:
            self._shown = now
            self._line(f"[{now - self._began:5.1f} s] round {record.round} of {planned}, loss {loss:.4f}")

    def note(self, text: str) -> None:
        """Prints the line."""
        self._line(text)

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveObserver:
    """Draws a live bar on a terminal and prints what happened above it; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._troubles = Troubles()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[loss]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, loss="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, text: str) -> None:
        """Names the step on the bar."""
        self._bar.update(self._task, description=text, completed=0, total=None, loss="")

    def round(self, record: RoundRecord, planned: int, loss: float) -> None:
        """Moves the bar."""
        for line in self._troubles.lines(record):
            self.note(line)
        self._bar.update(self._task, completed=record.round, total=planned, loss=f"loss {loss:.4f}")

    def note(self, text: str) -> None:
        """Prints the line above the bar."""
        self._console.print(text, markup=False, highlight=False)


class Troubles:
    """Says in a line what changed from one round to the next; a site that stays away is mentioned once."""

    def __init__(self) -> None:
        self._away: set[SiteId] = set()

    def lines(self, record: RoundRecord) -> list[str]:
        """Returns the lines for a round."""
        away = set(record.missing)
        lines = [
            f"round {record.round}: without {site}: {reason}"
            for site, reason in record.missing.items()
            if site not in self._away
        ]
        lines += [f"round {record.round}: {site} is back" for site in sorted(self._away - away)]
        self._away = away
        if record.attempts > 1:
            lines.append(f"round {record.round}: took {record.attempts} attempts")
        if record.skipped:
            lines.append(f"round {record.round}: skipped, {len(record.answered)} survivors are too few")
        return lines
