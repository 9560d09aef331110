"""Two ways to give a run its grid: in this process, or Flower's simulation on Ray. ``flwr run`` is the third.

The apps are the same in all three, and so is everything around them (``simulations.harness``).
"""

import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.app import build
from privacy.errors import ConfigError, LocalProtocolError
from server.exchange import Sleep
from simulations.faults import with_fault
from simulations.harness import Experiment, Interrupted
from simulations.holder import Holder
from simulations.job import Job
from simulations.local_grid import LocalGrid, SiteApp
from simulations.members import SimulatedMember, fixed_member, member_of
from simulations.outcome import Outcome
from simulations.residents import Courier
from strategies.task import SiteId

Prepare = Callable[[int], Experiment]
"""Prepares the experiment once the engine knows the run's id."""


def run_local(prepare: Prepare) -> Outcome:
    """Runs in this process; every site on a thread of its own."""
    run_id = secrets.randbits(62) + 1
    experiment = prepare(run_id)
    job = experiment.job
    holder = None if job.chain is None else Holder(job, experiment.folder.path)
    apps: dict[int, SiteApp] = {}
    for place, site in enumerate(job.sites):
        member = member_of(job, experiment.data[site], experiment.folder.path, experiment.accounts, holder)
        apps[place + 1] = _faulty(build(fixed_member(member)), job, site)
    grid = LocalGrid(apps, run_id=run_id, node_configs={place: {} for place in apps})
    try:
        with interruptible() as sleep:
            return experiment.run(grid, sleep=sleep)
    finally:
        grid.close()


def run_ray(prepare: Prepare, job: Job) -> Outcome:
    """Runs on Flower's Ray backend, one actor a core.

    Raises: ConfigError: Ray is not installed, or the job asks for faults, which only the local engine makes.
    """
    if job.faults:
        raise ConfigError("--set fault.SITE works with --engine local only")
    try:
        import ray  # noqa: F401, PLC0415 - an optional extra, heavy, wanted here only
        from flwr.simulation import run_simulation  # noqa: PLC0415 - same
    except ImportError:
        raise ConfigError(
            "--engine ray needs Ray, which is not installed",
            hint="In the source's folder: pip install -c constraints.txt '.[ray]'.",
        ) from None
    logging.getLogger("flwr").setLevel(logging.WARNING)
    experiment = prepare(secrets.randbits(62) + 1)
    outcome: list[Outcome] = []
    server = ServerApp()

    cancelled = threading.Event()

    def sleep(seconds: float) -> None:
        if cancelled.wait(seconds):
            raise Interrupted

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        outcome.append(experiment.run(grid, sleep=sleep))

    config: dict[str, Any] = experiment.options.to_run_config()
    client = Courier(SimulatedMember(config, str(experiment.folder.path), experiment.run_id))
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    try:
        # The ServerApp runs on a thread of Flower's, which a KeyboardInterrupt would leave running to the end.
        with experiment.ending(), _signals(cancelled):
            run_simulation(server, client, len(job.sites), backend_config=resources)  # type: ignore[arg-type]
    except Interrupted:
        raise KeyboardInterrupt from None
    if not outcome:
        raise LocalProtocolError("Flower's simulation ended without a result")
    return outcome[0]


@contextmanager
def _signals(event: threading.Event) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[Sleep]:
    """Makes SIGINT and SIGTERM interrupt the block, surely: the wait that it lends raises what was swallowed before.

    A signal may come while a finaliser runs; Python then prints the KeyboardInterrupt and goes on.
    """
    told = threading.Event()

    def sleep(seconds: float) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        time.sleep(seconds)

    def interrupt(_signal: int, _frame: object) -> None:
        told.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield sleep  # signals reach the main thread only
        return
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield sleep
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _faulty(app: ClientApp, job: Job, site: SiteId) -> SiteApp:
    return with_fault(app, job.faults[site]) if site in job.faults else app
