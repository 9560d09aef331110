"""The asker's side, for programs: one `predict` for every way to be answered.

The asker learns scores, how many agents are in them, how long it took and what it cost; never which agent said what.
Every agent of an ensemble sees the queries.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import numpy as np

from clients.chain.opening import PeerDial
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from clients.channel.message import Message
from clients.channel.session import Session
from clients.channel_gate import ChannelGate
from clients.joint.chained import Asking
from clients.joint.hub import Hub
from clients.joint.member import ASK, QUERIES
from clients.joint.model import HOME, of_run, only_asset
from clients.joint.service import ENSEMBLE, LOCAL, SCORES
from clients.joint.terms import Queries, Scores, Terms, queries_digest
from privacy.errors import ConfigError, FederationError, LocalProtocolError, QuorumError, TransportError
from privacy.policy.channel_requests import ReleaseFacts
from privacy.secagg.effects import Attempt
from privacy.secagg.suite import RealSuite, fastest_keystream
from privacy.store.admissions import Admissions
from privacy.store.log import Record
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_folder import SiteFolder
from privacy.store.site_settings import ChannelSettings
from strategies.chain_plan import ChainPlan
from strategies.study import Study, read_study

Mode = Literal["local", "ensemble", "chain"]
_HUB = "/hub"  # no site id: batches that this site asked for, beside those that it answers
_PEERS = "Addresses stand in site.toml, [channel.peers]: docs/how-to-joint.md."


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
      scores: How likely each class is, shape ``(n, k)``; with noise an entry may lie outside 0 to 1.
      mode: How it came about: the mode asked for, or ``local`` if that failed.
      agents: How many sites' models, or pieces of one, are in it.
      elapsed: Seconds.
      spent: Epsilon that this batch cost every agent in it, or in a chain the asker's own records; ``None``: no noise,
        no promise.
      fell_back: Why the mode asked for did not answer; empty: it did.
    """

    scores: Scores = field(repr=False)
    mode: Mode
    agents: int
    elapsed: float
    spent: float | None = None
    fell_back: str = ""


class Client:
    """Asks as the site of a folder; its sessions stay open until `close`. For one thread at a time.

    Raises: FederationError: The folder is not one of a site that joined, or has no ``[channel]``.
    """

    def __init__(self, folder: SiteFolder, *, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._study = read_study(folder.study, where=folder.settings.study)
        self._identity = Identity.of_folder(folder, now)
        self._limits = Limits()
        self._dialler = Dialler(self._identity, limits=self._limits)
        self._admissions = Admissions(folder.path / LEDGER_FILE)
        self._suite = RealSuite(fastest_keystream(time.perf_counter))
        self._hub: Hub | None = None
        self._local: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def study(self) -> Study:
        """What a row means."""
        return self._study

    def close(self) -> None:
        """Ends all sessions."""
        self._forget_hub()
        if self._local is not None:
            self._local.close()
        self._dialler.close()

    def predict(
        self,
        x: Queries,
        *,
        mode: Mode = "local",
        deadline: float = 10.0,
        purpose: str = "",
        plan: ChainPlan | None = None,
        run: str = "",
    ) -> Answer:
        """Asks for the classes of rows.

        Args:
          x: Encoded by the study, shape ``(n, inputs)``, float32. In an ensemble every agent sees them.
          mode: Own model alone; the mean over the charter's agents, which falls back to the own model; or a chain.
          deadline: Seconds for an answer; as many again for the fall-back.
          purpose: One that the charter allows; may be left out where it allows one only.
          plan: Of the chain.
          run: Whose trained pieces are the chain's, empty: the initial ones; or whose model the agents of an ensemble
            answer with, empty: their home models. All with the same, or none.

        Raises: FederationError: Neither way gave an answer; the message has the reason.
        """
        start = time.monotonic()
        purpose = purpose or self._only_purpose()
        if mode == "local":
            return self._timed(self._ask_home(x, purpose, deadline), start)
        if mode == "chain":
            return self._timed(self._ask_chain(x, plan, run, purpose, deadline), start)
        try:
            answer = self._ask_all(x, self._terms(purpose, run), deadline)
        except (QuorumError, TransportError) as error:
            fallen = self._ask_home(x, purpose, deadline, after=error)
            answer = replace(fallen, fell_back=str(error))
        return self._timed(answer, start)

    def _ask_chain(self, x: Queries, plan: ChainPlan | None, run: str, purpose: str, deadline: float) -> Answer:
        if plan is None:
            raise ConfigError("which chain?", hint="Name a plan that the charter lists: --plan plan.json.")
        folder, log, ledger = self._folder, self._folder.log(), self._folder.ledger()

        def record(entry: Record) -> None:
            log.append([entry], folder.identity)

        def note_ledger() -> None:
            log.note_ledger(ledger, folder.identity)

        gate = ChannelGate.of_folder(folder, self._identity.now)
        dial = PeerDial(self._dialler, lambda: self._channel.peers)
        asking = Asking(folder, self._study, only_asset(folder).name, gate, ledger, dial, record, note_ledger)
        scores, spent = asking.ask(plan, x, run=run, purpose=purpose, deadline=deadline)
        organisations = {plan.owner, *(stage.organisation for stage in plan.held)}
        return Answer(scores, "chain", len(organisations), 0.0, spent)

    def _timed(self, answer: Answer, start: float) -> Answer:
        return replace(answer, elapsed=time.monotonic() - start)

    def _only_purpose(self) -> str:
        allowed = self._identity.charter().inference
        if allowed is None:
            raise ConfigError("the charter allows no joint inference", hint="Amend it: docs/how-to-joint.md.")
        if len(allowed.purposes) != 1:
            raise ConfigError("which purpose?", hint=f"The charter allows: {', '.join(allowed.purposes)}.")
        return allowed.purposes[0]

    def _ask_home(self, x: Queries, purpose: str, deadline: float, after: FederationError | None = None) -> Answer:
        try:
            scores = self._exchange(x, purpose, deadline)
        except TransportError as error:
            if after is not None:
                raise after from error
            raise
        return Answer(scores, "local", 1, 0.0)

    def _exchange(self, x: Queries, purpose: str, deadline: float) -> Scores:
        session = self._local
        if session is None or session.opening.purpose != purpose:
            session = self._open(self._identity.site, LOCAL, purpose, deadline)
        self._local = None
        session.send(Message(ASK, tensors={QUERIES: x}), timeout=deadline)
        scores = session.receive(timeout=deadline).tensors.get(SCORES)
        if scores is None:
            raise LocalProtocolError("the site's own process answered something else")
        self._local = session
        return np.array(scores)

    def _ask_all(self, x: Queries, terms: Terms, deadline: float) -> Answer:
        """Asks the fixed set; over sessions that were left open first, and if that fails once more over new ones."""
        kept = self._kept_hub(terms)
        if kept is not None:
            try:
                return self._ask(kept, x, deadline)
            except QuorumError:
                self._forget_hub()
                if not kept.lost:
                    raise
        return self._ask(self._new_hub(terms, deadline), x, deadline)

    def _ask(self, hub: Hub, x: Queries, deadline: float) -> Answer:
        self._release(hub.terms, x)
        mean = hub.ask(x, self._next_number(hub.terms), deadline)
        if hub.reasons:
            self._forget_hub()
        return Answer(mean.scores, "ensemble", mean.agents, 0.0, hub.terms.epsilon(len(x)))

    def _kept_hub(self, terms: Terms) -> Hub | None:
        hub = self._hub
        if hub is None or hub.terms == terms:
            return hub
        self._forget_hub()  # another purpose, another model, or another charter since
        return None

    def _terms(self, purpose: str, run: str) -> Terms:
        model = of_run(run) if run else HOME
        return Terms.of(self._identity.charter(), self._study, model=model, asker=self._identity.site, purpose=purpose)

    def _release(self, terms: Terms, x: Queries) -> None:
        """Asks the own gate whether these rows may be shown to the agents; of an agent, its own process asks it.

        Raises: FederationError: They may not; nothing has left.
        """
        if terms.asker in terms.agents:
            return
        gate, asset = ChannelGate.of_folder(self._folder, self._identity.now), only_asset(self._folder).name
        digest, why = queries_digest(x).hex(), "shown to the agents of an ensemble"
        for agent in terms.agents:
            gate.release(ReleaseFacts(agent, asset, digest, terms.purpose, ("inputs",), reason=why, study=terms.study))

    def _new_hub(self, terms: Terms, deadline: float) -> Hub:
        sessions, reasons = {}, {}
        for site in terms.agents:
            try:
                sessions[site] = self._open(site, ENSEMBLE, terms.purpose, deadline)
            except (TransportError, ConfigError) as error:
                reasons[site] = str(error)
        self._hub = Hub(terms, sessions, self._suite, reasons)
        return self._hub

    def _forget_hub(self) -> None:
        if self._hub is not None:
            self._hub.close()
        self._hub = None

    def _open(self, site: str, kind: str, purpose: str, deadline: float) -> Session:
        return self._dialler.open(self._address(site), site, kind=kind, purpose=purpose, deadline=deadline)

    def _address(self, site: str) -> str:
        channel = self._channel
        address = channel.peers.get(site, channel.listen if site == self._identity.site else "")
        if not address:
            raise ConfigError(f"site.toml does not say where {site} listens", hint=_PEERS)
        return address

    @property
    def _channel(self) -> ChannelSettings:
        channel = self._folder.settings.channel
        if channel is None:
            raise ConfigError(f"{self._folder.path / self._folder.settings_file} has no [channel]", hint=_PEERS)
        return channel

    def _next_number(self, terms: Terms) -> int:
        """Takes the next number for a batch, durably: a number that was used once is used up, whatever becomes of it.

        Raises: ConfigError: It cannot be written down.
        """
        while True:
            number = self._admissions.last(_HUB, terms.run)[0] + 1
            try:
                self._admissions.admit(_HUB, Attempt(terms.run, number, 1))
            except LocalProtocolError:  # another process of this site took it
                continue
            return number
