"""Runs one schedule, whoever the server is, and says what came of it."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from privacy.secagg.effects import Finished
from tests.privacy.secagg.simulation.malicious import MaliciousServer
from tests.privacy.secagg.simulation.schedule import Schedule, SuiteName, draw
from tests.privacy.secagg.simulation.world import PATIENCE, World

CHUNK = 50
"""Schedules that a process runs before it says what came of them."""


@dataclass(frozen=True)
class Report:
    """What came of one schedule.

    Attributes:
      schedule: Which.
      violations: What must never happen, and did.
      attempts: Of the coordinator; with a malicious server, 0.
      finished: Attempts that gave a sum.
      opened: Attempts in which a malicious server got an opening.
      checked: Coalitions looked at.
    """

    schedule: Schedule
    violations: tuple[str, ...]
    attempts: int
    finished: int
    opened: int
    checked: int

    def __str__(self) -> str:
        lines = [*self.violations, str(self.schedule), self.schedule.replay]
        return "\n".join(lines)


def simulate(schedule: Schedule, *, patience: float = PATIENCE) -> Report:
    """Runs it."""
    if schedule.malicious:
        server = MaliciousServer(schedule).run()
        return Report(schedule, tuple(server.violations), 0, 0, server.opened, server.witness.oracle.checked)
    world = World(schedule, patience=patience).run()
    finished = sum(isinstance(attempt.end, Finished) for attempt in world.attempts)
    return Report(schedule, tuple(world.violations), len(world.attempts), finished, 0, world.oracle.checked)


def spread(suite: SuiteName, count: int, *, first: int = 0, processes: int = 0) -> tuple[Counter[str], list[str]]:
    """Runs ``count`` schedules from seed ``first`` on over several processes; returns totals, and what failed."""
    workers = processes or min(8, os.cpu_count() or 1)
    starts = range(first, first + count, CHUNK)
    totals: Counter[str] = Counter()
    failed: list[str] = []
    # Forking a process that has threads (torch makes some) may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for part, reports in pool.map(partial(_chunk, suite, first + count), starts):
            totals += part
            failed += reports
    return totals, failed


def _chunk(suite: SuiteName, end: int, start: int) -> tuple[Counter[str], list[str]]:
    totals, failed = many(range(start, min(start + CHUNK, end)), suite)
    return totals, [str(report) for report in failed]


def many(seeds: Iterable[int], suite: SuiteName) -> tuple[Counter[str], list[Report]]:
    """Runs all of them; returns totals, and the reports of those that failed."""
    totals: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        schedule = draw(seed, suite)
        try:
            report = simulate(schedule)
        except Exception as error:  # noqa: BLE001 -- a machine may not raise, whatever it gets
            report = Report(schedule, (f"raised {error!r}",), 0, 0, 0, 0)
        totals += Counter(
            schedules=1, attempts=report.attempts, finished=report.finished, opened=report.opened,
            malicious=int(report.schedule.malicious), coalitions=report.checked, violations=len(report.violations),
        )  # fmt: skip
        if report.violations:
            failed.append(report)
    return totals, failed
