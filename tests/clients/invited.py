"""Real sites of a small federation and its coordinator, in this process: messages in, answers out, nothing listens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from clients.fleet import payload_of
from clients.real_site import RealSite
from clients.server_log import ServerLog
from privacy.audit.testimony import keys_of, server_log
from privacy.dp.plan import Unit
from privacy.secagg.context import Roster
from privacy.store.application import application_digest
from server import real_run
from server.conduct import Conducted
from server.exchange import Answers, Exchange, Timing
from server.real_run import Coordinator
from server.secure import SecureCollector
from server.superlink import node_id
from server.witnesses import Witnesses
from simulations.local_grid import LocalGrid, SiteApp
from strategies.invitation import Invitation, invite, resolve_job
from strategies.job import Job
from strategies.messages import HELLO, MASKED, RoundTask
from strategies.task import SiteId
from tests.clients.node import question
from tests.federation import ASSET, NAME, PURPOSE, Federation

RUN = "first"
TIMING = Timing(deadline=20.0)
NUMBERS = {"rounds": "3", "retries": "1", "local_steps": "1", "batch": "0", "learning_rate": "0.5"}


@dataclass
class Clock:
    """Everybody's clock."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.moment

    def pass_by(self, **time: float) -> None:
        self.moment += timedelta(**time)


@dataclass
class Parties:
    """The coordinator and every site's agent, as their processes hold them.

    Attributes:
      contexts: Flower's memory at a site, by Flower's number of the run.
      lines: What the coordinator told people.
    """

    federation: Federation
    clock: Clock = field(default_factory=Clock)
    agents: dict[str, RealSite] = field(default_factory=dict)
    contexts: dict[tuple[str, int], Context] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def agent(self, site: str) -> RealSite:
        if site not in self.agents:
            self.agents[site] = RealSite.opened(self.federation.folders[site], self.clock)
        return self.agents[site]

    def restart(self, site: str) -> None:
        """Its agent is killed; what it does next it does as a new process."""
        self.agents.pop(site, None)
        for key in [key for key in self.contexts if key[0] == site]:
            del self.contexts[key]

    @property
    def coordinator(self) -> Coordinator:
        return Coordinator.opened(self.federation.hub, self.clock, self.lines.append)

    def job(self, *privacy: str, strategy: str = "fedavg", sites: tuple[str, ...] = (), **changes: Any) -> Job:
        numbers = {name: changes.pop(name, value) for name, value in NUMBERS.items()}
        terms = {"seed": 1, "unit": Unit.RECORD, "epsilon": Decimal(1), "delta": Decimal("0.001"), **changes}
        named = tuple(map(SiteId, sites or self.federation.sites))
        decimals = {name: Decimal(value) for name, value in numbers.items()}
        return resolve_job(self.federation.study, strategy, decimals, sites=named, privacy=privacy, **terms)

    def invitation(self, job: Job, **changes: Any) -> Invitation:
        """What the coordinator would write, or a coordinator that has no scruples."""
        made = invite(
            job,
            federation=NAME,
            run=RUN,
            charter=self.federation.charter.digest,
            application=application_digest(),
            study=self.federation.study.digest,
            purpose=PURPOSE,
            asset=ASSET,
        )
        return replace(made, **changes)

    def signed(self, job: Job, **changes: Any) -> bytes:
        return self.invitation(job, **changes).signed(self.federation.hub.identity)

    def ask(self, site: str, kind: str, data: bytes, number: int = 1) -> Message:
        context = self.contexts.setdefault((site, number), Context(number, 7, {}, RecordDict(), {}))
        return self.agent(site).answer(question(kind, data), context)

    def run(self, job: Job, name: str = RUN) -> Conducted:
        """A whole run, from the coordinator's invitation to its end."""
        coordinator = self.coordinator
        coordinator.begin(job, coordinator.invite(job, run=name, purpose=PURPOSE, asset=ASSET))
        return self.drive(name)

    def drive(self, name: str = RUN) -> Conducted:
        """Goes on with a run that was begun."""
        with patch.object(real_run, "session", self.session):
            return self.coordinator.drive(name, TIMING)

    def hello(self, site: str, data: bytes, number: int = 1) -> Message:
        return self.ask(site, HELLO, data, number)

    def start(
        self, site: str, job: Job, *, round_number: int = 1, attempt: int = 1, asked: tuple[str, ...] = (), **told: Any
    ) -> bytes:
        """What a site is sent as the START of an attempt at these sites, all by default, with a true FSA1 context."""
        exchange = _Asked(TIMING)
        charter = self.federation.charter
        witnesses = Witnesses(self.federation.hub.log())
        witnesses.saw({SiteId(site): self.server_log(site).seen})
        collector = SecureCollector(
            exchange,
            job.algorithm,
            job.plan,
            Roster(charter.version, keys_of(charter)),
            dict.fromkeys(job.sites, 1.0) if job.equal_weights else dict.fromkeys(job.sites, 60.0),
            job.digest,
            **{"federation": NAME, "run": RUN, "purpose": PURPOSE, "asset": ASSET, "log": witnesses, **told},
            encoding=job.encoding,
        )
        arrays = job.algorithm.broadcast(job.algorithm.init(job.initial))
        task = RoundTask(job.digest, round_number, attempt, (0, 0), arrays)
        with suppress(_EnoughError):
            collector.collect(arrays, dict.fromkeys(map(SiteId, asked or job.sites), task), round_number, attempt)
        return exchange.questions[SiteId(site)]

    def server_log(self, site: str) -> ServerLog:
        return ServerLog(self.federation.folders[site].path, server_log(self.federation.charter))

    def stored(self, site: str) -> list[Path]:
        """What lies in the site's folder for runs."""
        return sorted((self.federation.folders[site].path / "runs").rglob("*"))

    def decisions(self, site: str) -> list[Mapping[str, Any]]:
        entries = self.federation.folders[site].log().entries()
        return [entry.record.content for entry in entries if entry.record.kind == "decision"]

    def debits(self, site: str) -> int:
        return len(list(self.federation.folders[site].ledger().debits()))

    @contextmanager
    def session(self, _socket: Path) -> Iterator[tuple[Grid, int]]:
        """In the place of ``server.superlink.session``: the sites' agents, and the next number of a run."""
        number = 1 + max((key[1] for key in self.contexts), default=0)
        apps: dict[int, SiteApp] = {}
        for site in self.federation.sites:
            node = node_id(self.federation.folders[site].enrolment.flower)
            self.contexts[site, number] = Context(number, node, {}, RecordDict(), {})
            apps[node] = self._app(site)
        grid = LocalGrid(apps, run_id=number, node_configs={node: {} for node in apps})
        try:
            yield grid, number
        finally:
            grid.close()

    def _app(self, site: str) -> SiteApp:
        def app(message: Message, context: Context) -> Message:
            reply = self.agent(site).answer(message, context)
            if payload := payload_of(reply):
                told = message.metadata
                self.agent(site).sent(context.run_id, told.message_type, told.group_id, payload)
            return reply

        return app


class _EnoughError(Exception):
    """Everything that was wanted was asked."""


class _Asked(Exchange):
    """Hears the first question and goes no further."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.questions: Mapping[SiteId, bytes] = {}

    def ask(self, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
        assert (kind, group) == (MASKED, group)
        self.questions = questions
        raise _EnoughError
