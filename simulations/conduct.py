"""Conducts a run from the roll call to the model, the same for every engine; the harness around it is the experiment.

``Trained`` is all that a real coordinator would have at the end. Scores come from ``simulations.reference``.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid

from privacy.errors import QuorumError
from privacy.store.run_folder import METRICS_FILE, RunFolder
from server.exchange import Egress, Exchange, Sleep, Timing
from server.roster import Roster, call
from server.rounds import FLOOR, Driver, RoundRecord, Schedule
from server.secure import SecureCollector
from simulations.identities import Identities
from simulations.job import Job
from simulations.progress import Observer
from simulations.reference import initial_model
from strategies.contribution import Vector
from strategies.task import SiteId

METRICS_SCHEMA = "collegium/metrics/v1"


@dataclass(frozen=True)
class Trained:
    """Outcome of the rounds; public.

    Attributes:
      rounds: Every round with the loss after it, the experimenter's view.
    """

    model: Vector
    rounds: tuple[tuple[RoundRecord, float], ...]
    egress: Mapping[SiteId, Egress]
    roster: Roster


def train_over(
    grid: Grid,
    job: Job,
    folder: RunFolder,
    observer: Observer,
    *,
    loss_of: Callable[[Vector], float],
    sleep: Sleep,
) -> Trained:
    """Calls the roll and runs the rounds over a grid.

    Args:
      grid: Any Flower grid.
      job: What to run.
      folder: Gets a line of ``metrics.jsonl`` after every round.
      observer: Told what happens.
      loss_of: The experimenter's loss of a model; no app is asked for it.
      sleep: Waits for seconds.

    Raises:
      QuorumError: Too few sites answered the roll call, or no round was completed.
      ConfigError: The job asks for secure aggregation and the folder holds no identity keys.
    """
    timing = Timing(deadline=job.deadline)
    observer.step("calling the roll")
    roster = call(grid, job.sites, timing=timing, clock=time.monotonic, sleep=sleep, floor=FLOOR)
    for site, reason in roster.absent.items():
        observer.note(f"{site} takes no part: {reason}")
    exchange = Exchange(grid, roster.nodes, timing, time.monotonic, sleep)
    training, rounds = job.task.training, list[tuple[RoundRecord, float]]()

    def on_round(record: RoundRecord, state: Any) -> None:
        loss = loss_of(job.algorithm.parameters(state))
        rounds.append((record, loss))
        folder.append(METRICS_FILE, metrics_line(record, loss))
        observer.round(record, training.rounds, loss)

    observer.step("training")
    weights = {site: float(n_records) for site, n_records in roster.n_records.items()}
    driver = Driver(
        exchange,
        job.algorithm,
        Schedule(training.rounds, training.retries),
        job.digest,
        weights,
    )
    if job.secagg:
        keys = Identities(folder.path).roster  # raises without keys: never a silent downgrade to updates in the clear
        driver.collect = SecureCollector(
            exchange, job.algorithm, keys, weights, job.digest, job.scenario.name, folder.path.name
        ).collect
    state = driver.run(job.algorithm.init(initial_model(job)), on_round)
    if all(record.skipped for record, _ in rounds):
        last = ", ".join(f"{site}: {reason}" for site, reason in rounds[-1][0].missing.items())
        raise QuorumError(f"no round had {FLOOR} survivors: no model was made", hint=f"In the last round: {last}.")
    return Trained(job.algorithm.parameters(state), tuple(rounds), exchange.egress, roster)


def metrics_line(record: RoundRecord, loss: float) -> dict[str, Any]:
    """Returns the object that ``metrics.jsonl`` holds for a round."""
    return {
        "schema": METRICS_SCHEMA,
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "loss": loss if math.isfinite(loss) else None,
        "seconds": round(record.seconds, 6),
    }
