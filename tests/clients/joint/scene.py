"""A federation whose sites answer together in one process: real folders, gates, ledgers and machines, memory sessions.

Each agent scores by a linear model of its own, so that what the sum must be is plain arithmetic.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from clients.channel.memory import pair
from clients.channel.message import Message
from clients.channel.session import Opening, Session
from clients.channel_gate import ChannelGate
from clients.joint.hub import Hub
from clients.joint.member import Member
from clients.joint.model import HOME
from clients.joint.service import ENSEMBLE, Desk, EnsembleService
from clients.joint.terms import Queries, Scores, Terms
from privacy.secagg.suite import RealSuite
from privacy.store.admissions import Admissions
from privacy.store.answers import ANSWERS_FILE, Answers
from privacy.store.log import Record, ledger_head
from privacy.store.run_folder import LEDGER_FILE
from strategies.study import read_study
from tests.federation import ASSET, SITES, Federation, federate, study_of

PURPOSE = "triage"
INPUTS = 3
CLASSES = 3
AGENTS = SITES
POLICY = """
@id("asks")
permit (principal, action == Action::"ask", resource) when { resource.purposes.contains(context.purpose) };
"""
STUDY = """
name = "clinics"
title = "Illness in small clinics"
sites = {sites}
features = [
  {{ name = "a", kind = "continuous", range = [0, 1] }},
  {{ name = "b", kind = "continuous", range = [0, 1] }},
  {{ name = "c", kind = "continuous", range = [0, 1] }},
]

[target]
name = "kind"
classes = 3

[model]
kind = "logistic"

[training]
rounds = 3
learning_rate = 0.5
clip = 1.0
"""
NOISE = {"multiplier": "5", "epsilon": "100", "delta": "0.00001"}


def inference(**changes: Any) -> dict[str, Any]:
    """What the charter says about joint answers unless ``changes`` says otherwise."""
    return {
        "agents": list(AGENTS),
        "weights": dict.fromkeys(AGENTS, 1),
        "modes": ["ensemble", "local"],
        "purposes": [PURPOSE],
        "most_queries": 100,
        "noise": None,
        **changes,
    }


def clinics(path: Path, **changes: Any) -> Federation:
    """A federation that answers together."""
    return federate(path, study=study_of(text=STUDY), policy=POLICY, inference=inference(**changes))


def linear(site: str) -> Callable[[Queries], Scores]:
    """The model of a site."""
    weights = np.random.default_rng(sum(site.encode())).normal(size=(INPUTS, CLASSES))

    def score(queries: Queries) -> Scores:
        grown = np.exp(queries.astype(np.float64) @ weights)
        scores: Scores = grown / grown.sum(axis=1, keepdims=True)
        return scores

    return score


def queries(n: int = 5, seed: int = 1) -> Queries:
    """Rows to ask about."""
    return np.random.default_rng(seed).uniform(-1, 1, (n, INPUTS)).astype(np.float32)


@dataclass
class Tapped:
    """A session that keeps what its end sent, and may fall silent.

    Attributes:
      silent_after: Messages after which this end sends nothing any more; ``None``: never.
    """

    inner: Session
    sent: list[Message] = field(default_factory=list)
    silent_after: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Sends, unless silent."""
        if self.silent_after is None or len(self.sent) < self.silent_after:
            self.sent.append(message)
            self.inner.send(message, timeout)


@dataclass
class Scene:
    """The agents at work, and what each of them sent.

    Attributes:
      taps: By agent, its end of the session that was opened last.
      silent: Agents that send so many messages and then none.
      served: Agents that answer with something else than their home models.
      numbers: Fresh ones for batches.
    """

    federation: Federation
    model: Callable[[str], Callable[[Queries], Scores]] = linear
    taps: dict[str, Tapped] = field(default_factory=dict)
    silent: dict[str, int] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    services: dict[str, EnsembleService] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def terms(self, asker: str, model: str = HOME) -> Terms:
        """What everybody computes."""
        return Terms.of(self.federation.charter, self.federation.study, model=model, asker=asker, purpose=PURPOSE)

    def amend(self, **changes: Any) -> None:
        """Has other terms of joint answers adopted, and all processes started anew."""
        self.federation.amend(inference=inference(**changes))
        self.services.clear()

    def service(self, site: str) -> EnsembleService:
        """What a site's process answers with; one for all sessions."""
        if site not in self.services:
            self.services[site] = EnsembleService(*self._desk(site))
        return self.services[site]

    def _desk(self, site: str) -> tuple[Desk, Member]:
        folder = self.federation.folders[site]
        log, ledger = folder.log(), folder.ledger()

        def record(entry: Record) -> None:
            log.append([entry], folder.identity)

        def note() -> None:
            with ledger.reading() as books:
                record(ledger_head(books.ledger, books.head))

        desk = Desk(
            site,
            self.served.get(site, HOME),
            ASSET,
            read_study(folder.study, where="study.toml"),
            lambda: folder.charter,
            ChannelGate.of_folder(folder, lambda: datetime.now(UTC)),
            Answers(folder.path / ANSWERS_FILE),
            ledger,
            record,
            note,
        )
        member = Member(
            site=site,
            key=folder.identity,
            terms=desk.terms,
            score=self.model(site),
            n_inputs=INPUTS,
            admissions=Admissions(folder.path / LEDGER_FILE),
            allow=desk.allow,
            pay=desk.pay,
            suite=RealSuite(),
            entropy=secrets.token_bytes,
        )
        return desk, member

    def open(self, asker: str, *sites: str) -> Mapping[str, Session]:
        """Opens a session to each agent, or to some."""
        self.taps.clear()
        return {site: self._open(asker, site) for site in sites or self.terms(asker).agents}

    def _open(self, asker: str, site: str) -> Session:
        opening = Opening(ENSEMBLE, secrets.token_bytes(16), purpose=PURPOSE)
        near, far = pair(asker, site, opening)
        self.taps[site] = Tapped(far, silent_after=self.silent.get(site))
        service = self.service(site)
        service.admit(asker, opening)
        threading.Thread(target=service.run, args=(self.taps[site],), daemon=True).start()
        return near

    def hub(self, asker: str) -> Hub:
        """The asker's side, with a session to everybody."""
        return Hub(self.terms(asker), self.open(asker), RealSuite())

    def opened(self, mean: Scores) -> Scores:
        """The sum that was opened, on the grid, of a mean over all agents."""
        terms = self.terms(AGENTS[0])
        total: Scores = np.rint(mean * terms.grid * sum(terms.weights.values()) / max(terms.weights.values()))
        return total

    def plain_sum(self, x: Queries, *sites: str) -> Scores:
        """The sum on the grid, by plain arithmetic: what must come out, to the unit."""
        terms = self.terms(AGENTS[0])
        shares = {site: weight / max(terms.weights.values()) for site, weight in terms.weights.items()}
        parts = [np.floor(self.model(site)(x) * (terms.grid * shares[site])) for site in sites or AGENTS]
        total: Scores = sum(parts[1:], start=parts[0])
        return total
