"""Conducts a run from the roll call to the model, the same for every engine; the harness around it is the experiment.

``Trained`` is all that a real coordinator would have at the end. Scores come from ``simulations.reference``.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid

from privacy.audit import transcript
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.dp.plan import DistributedPlan
from privacy.errors import BudgetExhaustedError, QuorumError
from privacy.secagg.context import thresholds
from privacy.store.run_folder import METRICS_FILE, RunFolder
from server.exchange import Egress, Exchange, Sleep, Timing
from server.roster import Roster, call
from server.rounds import FLOOR, Driver, RoundRecord, Schedule
from server.secure import CentralNoise, SecureCollector
from simulations.accounts import SERVER, Accounts, federation_asset, server_plans
from simulations.identities import Identities
from simulations.job import Job
from simulations.progress import Observer
from strategies.contribution import Vector
from strategies.task import SiteId

METRICS_SCHEMA = "collegium/metrics/v1"
_FIRST_ANSWER = 3  # deadlines that the roll call waits: on Ray, processes start and load torch meanwhile


@dataclass(frozen=True)
class Trained:
    """Outcome of the rounds; public.

    Attributes:
      rounds: Every round with the loss after it, the experimenter's view.
      stopped: Why the run ended before its last round; empty if it did not.
    """

    model: Vector
    rounds: tuple[tuple[RoundRecord, float], ...]
    egress: Mapping[SiteId, Egress]
    roster: Roster
    stopped: str = ""


def train_over(
    grid: Grid,
    job: Job,
    folder: RunFolder,
    accounts: Accounts,
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
      accounts: Budget ledgers; here, the server's.
      observer: Told what happens.
      loss_of: The experimenter's loss of a model; no app is asked for it.
      sleep: Waits for seconds.

    Raises:
      QuorumError: Too few sites answered the roll call, or no round was completed.
      ConfigError: The job asks for secure aggregation and the folder holds no identity keys.
    """
    timing = Timing(deadline=job.deadline)
    patient = Timing(deadline=_FIRST_ANSWER * job.deadline)
    observer.step("calling the roll")
    roster = call(grid, job.sites, timing=patient, clock=time.monotonic, sleep=sleep, floor=FLOOR)
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
    driver = _driver(job, folder, accounts, exchange, roster)
    state = driver.run(job.algorithm.init(job.initial), on_round)
    _check_completed(rounds, driver.stopped)
    if driver.stopped:
        observer.note(
            f"stopped after {len(rounds)} of {training.rounds} rounds, the last model is kept: {driver.stopped}"
        )
    return Trained(job.algorithm.parameters(state), tuple(rounds), exchange.egress, roster, driver.stopped)


def _driver(job: Job, folder: RunFolder, accounts: Accounts, exchange: Exchange, roster: Roster) -> Driver:
    training = job.task.training
    weights = {site: 1.0 if job.equal_weights else float(n) for site, n in roster.n_records.items()}
    schedule = Schedule(training.rounds, training.retries)
    driver = Driver(exchange, job.algorithm, schedule, job.digest, weights, job.plan)
    if not job.secagg:
        return driver
    keys = Identities(folder.path).roster  # raises without keys: never a silent downgrade to updates in the clear
    folder.append(TRANSCRIPT_FILE, transcript.header(keys))
    plans = server_plans(job)
    driver.collect = SecureCollector(
        exchange,
        job.algorithm,
        job.plan,
        keys,
        weights,
        job.digest,
        federation=job.scenario.name,
        run=accounts.run,
        encoding=job.encoding,
        counted_on=thresholds(len(job.sites)) if isinstance(job.sum_plan, DistributedPlan) else None,
        noise=CentralNoise(plans[0], accounts.open(SERVER), federation_asset(job), accounts.run) if plans else None,
        on_attempt=lambda record: folder.append(TRANSCRIPT_FILE, transcript.line(record)),
    ).collect
    return driver


def _check_completed(rounds: Sequence[tuple[RoundRecord, float]], stopped: str) -> None:
    if not rounds:
        raise BudgetExhaustedError(f"no round was begun: {stopped}")
    if all(record.skipped for record, _ in rounds):
        last = ", ".join(f"{site}: {reason}" for site, reason in rounds[-1][0].missing.items())
        raise QuorumError(f"no round had {FLOOR} survivors: no model was made", hint=f"In the last round: {last}.")


def metrics_line(record: RoundRecord, loss: float) -> dict[str, Any]:
    """Returns the object that ``metrics.jsonl`` holds for a round."""
    return {
        "schema": METRICS_SCHEMA,
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "still": list(record.still),
        "loss": loss if math.isfinite(loss) else None,
        "seconds": round(record.seconds, 6),
    }
