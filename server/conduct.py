"""Conducts a run from the roll call to the model: the same for a simulation and for real sites.

Whoever calls it supplies the grid, the folder and, for a run that may be resumed, a journal.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flwr.serverapp import Grid

from privacy.audit import conformance_claim, transcript
from privacy.audit.egress import Sent
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.charter.document import Floors
from privacy.conformance.statements import check_server
from privacy.dp.plan import DistributedPlan
from privacy.errors import BudgetExhaustedError, QuorumError
from privacy.secagg.context import Roster as Keys
from privacy.secagg.context import thresholds
from privacy.store.run_folder import RunFolder
from server.exchange import Clock, Egress, Exchange, Sleep, Timing
from server.roster import Roster, call, keep, kept
from server.rounds import FLOOR, Driver, Journal, Resumed, RoundRecord, Schedule
from server.secure import CentralNoise, SecureCollector
from server.witnesses import Witnesses
from strategies.contribution import Vector
from strategies.job import Job
from strategies.messages import MASKED, STAGE
from strategies.task import SiteId

METRICS_SCHEMA = "collegium/metrics/v1"
_FIRST_ANSWER = 3  # deadlines that the roll call waits: processes start and load torch meanwhile


class Watcher(Protocol):
    """Told how a run goes."""

    def step(self, text: str) -> None:
        """Another part of the work begins."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""

    def round(self, record: RoundRecord, state: Any) -> None:
        """A round ended, with the algorithm's state after it."""


@dataclass(frozen=True)
class Run:
    """What a coordinator needs to know of a run.

    Attributes:
      name: How contexts and ledgers call it.
      invitation: What the sites are sent with the roll call, signed.
      keys: Identity keys of the sites; ``None`` where contributions go in the clear.
      noise: What the server adds to sums; ``None`` for nothing.
      log: The server's own log, which the sites witness; ``None`` in a simulation.
      received: Told of every payload that left a site, as it comes.
      floors: The charter's; ``None`` where FSA1's own are all there are.
      nodes: Node of each site, where it follows from its key; ``None`` in a simulation.
    """

    job: Job
    federation: str
    name: str
    invitation: bytes
    keys: Keys | None
    timing: Timing
    noise: CentralNoise | None = field(default=None, repr=False)
    log: Witnesses | None = field(default=None, repr=False)
    received: Callable[[SiteId, Sent], None] = lambda _site, _sent: None
    purpose: str = "training"
    asset: str = "training records"
    floors: Floors | None = None
    nodes: Mapping[SiteId, int] | None = None

    @property
    def fewest(self) -> int:
        """Fewest sites with which anything is tried."""
        return FLOOR if self.floors is None else max(FLOOR, self.floors.cohort)


@dataclass(frozen=True)
class Conducted:
    """Outcome of the rounds; public.

    Attributes:
      rounds: In order, those before a resumption included.
      stopped: Why the run ended before its last round; empty if it did not.
      lost_attempts: Begun at the round after the last, and never ended; sites may have paid for them.
      conformance: The report's claim about the release paths that sites and server tested; ``None`` without noise.
    """

    model: Vector
    rounds: tuple[RoundRecord, ...]
    exchange: Exchange
    roster: Roster
    stopped: str = ""
    lost_attempts: int = 0
    conformance: dict[str, Any] | None = None

    @property
    def attempts(self) -> int:
        """Attempts of all rounds: as many as a site without a statement may have paid for."""
        return sum(record.attempts for record in self.rounds) + self.lost_attempts

    @property
    def egress(self) -> Mapping[SiteId, Egress]:
        """What left each site, as the server received it."""
        return self.exchange.egress


def begin_transcript(folder: RunFolder, keys: Keys) -> None:
    """Writes whose signatures the transcript of a new run will hold. Raises: ConfigError: It cannot be written."""
    folder.append(TRANSCRIPT_FILE, transcript.header(keys))


def conduct(
    grid: Grid,
    run: Run,
    folder: RunFolder,
    watcher: Watcher,
    *,
    clock: Clock,
    sleep: Sleep,
    journal: Journal | None = None,
    resumed: Resumed | None = None,
) -> Conducted:
    """Calls the roll and runs the rounds over a grid.

    Args:
      grid: Any Flower grid.
      run: What to run.
      folder: Gets the transcript of secure aggregation, which was begun.
      watcher: Told what happens.
      clock: Monotonic seconds.
      sleep: Waits for seconds.
      journal: Where to write how far the run is; ``None`` if it will never be resumed. With it, the folder keeps what
        sites say at each roll call, for those that do not answer the next.
      resumed: What the journal holds of the run already.

    Raises:
      QuorumError: Too few sites answered the roll call, or no round was completed.
      PrivacyError: So many sites refused that too few are left, or the path of the server's own noise does not conform.
    """
    job = run.job
    tested = b"" if run.noise is None else check_server(run.noise.plan, secrets.token_bytes)
    watcher.step("calling the roll")
    earlier = Roster({}, {}, {}) if journal is None else kept(folder, job.sites)
    roster = _called(grid, run, clock, sleep).after(earlier, job.sites)
    if journal is not None:
        keep(folder, roster)
    for site, reason in roster.absent.items():
        watcher.note(f"{site} takes no part: {reason}")
    exchange = Exchange(grid, roster.nodes, run.timing, clock, sleep, received=run.received)
    for site, payloads in roster.received.items():
        for sent in payloads:
            run.received(site, sent)
    rounds = list(resumed.records[:-1]) if resumed is not None else []

    def on_round(record: RoundRecord, state: Any) -> None:
        rounds.append(record)
        watcher.round(record, state)

    watcher.step("training")
    driver = _driver(run, folder, exchange, roster)
    conformance = conformance_claim.claim_of({str(site): said for site, said in roster.conformance.items()}, tested)
    state = driver.run(job.algorithm.init(job.initial), on_round, journal=journal, resumed=resumed)
    _check_completed(rounds, driver.stopped)
    if driver.stopped:
        planned = job.task.training.rounds
        watcher.note(f"stopped after {len(rounds)} of {planned} rounds, the last model is kept: {driver.stopped}")
    return Conducted(
        job.algorithm.parameters(state),
        tuple(rounds),
        exchange,
        roster,
        driver.stopped,
        driver.lost_attempts,
        conformance,
    )


def _called(grid: Grid, run: Run, clock: Clock, sleep: Sleep) -> Roster:
    return call(
        grid,
        run.job.sites,
        run.invitation,
        timing=Timing(deadline=_FIRST_ANSWER * run.timing.deadline),
        clock=clock,
        sleep=sleep,
        floor=run.fewest,
        expected=run.nodes,
    )


def _driver(run: Run, folder: RunFolder, exchange: Exchange, roster: Roster) -> Driver:
    job = run.job
    training = job.task.training
    weights = {site: 1.0 if job.equal_weights else float(roster.n_records[site]) for site in roster.nodes}
    schedule = Schedule(training.rounds, training.retries)
    driver = Driver(exchange, job.algorithm, schedule, job.digest, weights, job.plan, absent=roster.absent)
    if run.keys is None:
        return driver
    if run.log is not None:
        run.log.saw(roster.seen)
    collector = SecureCollector(
        exchange,
        job.algorithm,
        job.plan,
        run.keys,
        weights,
        job.digest,
        federation=run.federation,
        run=run.name,
        purpose=run.purpose,
        asset=run.asset,
        encoding=job.encoding,
        counted_on=thresholds(len(job.sites)) if isinstance(job.sum_plan, DistributedPlan) else None,
        noise=run.noise,
        log=run.log,
        floors=run.floors,
        on_attempt=lambda record: folder.append(TRANSCRIPT_FILE, transcript.line(record)),
        first=MASKED if job.chain is None else STAGE,
    )
    driver.collect, driver.on_lost = collector.collect, collector.lost
    return driver


def _check_completed(rounds: Sequence[RoundRecord], stopped: str) -> None:
    if not rounds:
        raise BudgetExhaustedError(f"no round was begun: {stopped}")
    if all(record.skipped for record in rounds):
        last = ", ".join(f"{site}: {reason}" for site, reason in rounds[-1].missing.items())
        raise QuorumError(f"no round had {FLOOR} survivors: no model was made", hint=f"In the last round: {last}.")


def metrics_line(record: RoundRecord, loss: float | None) -> dict[str, Any]:
    """Returns the object that ``metrics.jsonl`` holds for a round; ``loss`` is an experimenter's, who sees all rows."""
    return {
        "schema": METRICS_SCHEMA,
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "still": list(record.still),
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "seconds": round(record.seconds, 6),
    }
