"""Conducts a simulated run: what a coordinator does (``server.conduct``), with an experimenter looking on.

``Trained`` is what a real coordinator would have at the end, but for the loss. Scores come from
``simulations.reference``.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.serverapp import Grid

from privacy.store.run_folder import METRICS_FILE, RunFolder
from server.conduct import Run, begin_transcript, conduct, metrics_line
from server.exchange import Egress, Exchange, Sleep, Timing
from server.roster import Roster
from server.rounds import RoundRecord
from server.secure import CentralNoise
from simulations.accounts import SERVER, Accounts, federation_asset, server_plans
from simulations.demo_charter import ASSET, PURPOSE, federation_of, pinned, simulated_application
from simulations.identities import Identities
from simulations.job import Job
from simulations.progress import Observer
from strategies.contribution import Vector
from strategies.invitation import invite
from strategies.task import SiteId


@dataclass(frozen=True)
class Trained:
    """Outcome of the rounds; public.

    Attributes:
      rounds: Every round with the loss after it, the experimenter's view.
      egress: What left each site in the rounds.
      exchange: Asks the sites, once the rounds are over.
      stopped: Why the run ended before its last round; empty if it did not.
      conformance: The report's claim about tested release paths; ``None`` without noise.
    """

    model: Vector
    rounds: tuple[tuple[RoundRecord, float], ...]
    egress: Mapping[SiteId, Egress]
    roster: Roster
    exchange: Exchange = field(repr=False)
    stopped: str = ""
    conformance: dict[str, Any] | None = None


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
      folder: Holds the charter and the identity keys; gets a line of ``metrics.jsonl`` after every round.
      accounts: Budget ledgers; here, the server's.
      observer: Told what happens.
      loss_of: The experimenter's loss of a model; no app is asked for it.
      sleep: Waits for seconds.

    Raises: FederationError: As ``server.conduct.conduct``; ConfigError if keys or charter are not there.
    """
    watcher = _Experimenter(job, folder, observer, loss_of)
    run = _run(job, folder, accounts)
    if run.keys is not None:
        begin_transcript(folder, run.keys)
    done = conduct(grid, run, folder, watcher, clock=time.monotonic, sleep=sleep)
    rounds = tuple(zip(done.rounds, watcher.losses, strict=True))
    left = {site: replace(account) for site, account in done.egress.items()}  # what is asked later is not of the rounds
    return Trained(done.model, rounds, left, done.roster, done.exchange, done.stopped, done.conformance)


@dataclass
class _Experimenter:
    """Sees all rows, and so the loss after every round."""

    job: Job
    folder: RunFolder
    observer: Observer
    loss_of: Callable[[Vector], float]
    losses: list[float] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.observer.step(text)

    def note(self, text: str) -> None:
        self.observer.note(text)

    def round(self, record: RoundRecord, state: Any) -> None:
        loss = self.loss_of(self.job.algorithm.parameters(state))
        self.losses.append(loss)
        self.folder.append(METRICS_FILE, metrics_line(record, loss))
        self.observer.round(record, self.job.task.training.rounds, loss)


def _run(job: Job, folder: RunFolder, accounts: Accounts) -> Run:
    identities, plans = Identities(folder.path), server_plans(job)
    invitation = invite(
        job,
        federation=federation_of(job),
        run=accounts.run,
        charter=pinned(folder.path).digest,
        application=simulated_application(),
        study=job.scenario.study.digest,
        purpose=PURPOSE,
        asset=ASSET,
    )
    return Run(
        job,
        federation_of(job),
        accounts.run,
        invitation.signed(identities.coordinator),
        identities.roster if job.secagg else None,
        Timing(deadline=job.deadline),
        CentralNoise(plans[0], accounts.open(SERVER), federation_asset(job), accounts.run) if plans else None,
    )
