"""The asker's side of an ensemble answer: it drives FSA1's coordinator over one session per agent.

It carries bytes and opens one sum; which agent said what it cannot see. Without noise every agent of the fixed set is
in the sum or nothing is opened.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, RemoteRefusalError, Session
from clients.joint.member import ASK, QUERIES, SECAGG
from clients.joint.terms import Queries, Scores, Terms, queries_digest
from privacy.errors import FederationError, QuorumError
from privacy.secagg import coordinator, effects
from privacy.secagg.context import Durations
from privacy.secagg.suite import RealSuite

_LEAST = 0.01
"""Seconds: what has arrived is taken also after the time is over."""


@dataclass(frozen=True)
class Mean:
    """What the asker learns: weighted mean score vectors, shape ``(n, k)``, and how many agents are in them."""

    scores: Scores
    agents: int


@dataclass
class Hub:
    """One batch after another over sessions that stay open; used by one thread at a time.

    Attributes:
      terms: The charter's, for this asker and purpose.
      sessions: To every agent of the fixed set that could be reached, by site id.
      reasons: Why each of the others could not be, in plain words.
      clock: Monotonic seconds.
      lost: Whose sessions were over before anybody refused: worth another try over new ones.
    """

    terms: Terms
    sessions: Mapping[str, Session]
    suite: RealSuite = field(repr=False)
    reasons: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    lost: set[str] = field(default_factory=set)

    def ask(self, queries: Queries, number: int, deadline: float) -> Mean:
        """Runs one batch.

        Args:
          queries: Shape ``(n, inputs)``; every agent sees them.
          number: Not used by this asker before, and greater than every one that was.
          deadline: Seconds; each phase may take half of what is left, so that one that waits in vain leaves time.

        Raises: QuorumError: No sum was opened, and why; the sessions are closed.
        """
        try:
            end = self._run(queries, number, deadline)
        except BaseException:
            self.close()
            raise
        if isinstance(end, effects.Finished):
            return Mean(self.terms.mean(end.sums[0], end.survivors), len(end.survivors))
        self.close()
        sites_by_reason: dict[str, list[str]] = {}
        for site, why in sorted(self.reasons.items()):
            sites_by_reason.setdefault(why, []).append(site)
        told = "; ".join(f"{', '.join(sites)}: {why}" for why, sites in sites_by_reason.items())
        raise QuorumError(f"no joint answer: {told or end.reason}")

    def close(self) -> None:
        """Ends every session."""
        for session in self.sessions.values():
            session.close()

    def _run(self, queries: Queries, number: int, deadline: float) -> effects.Finished | effects.Aborted:
        config = self._config(queries, number, deadline)
        state, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
        end = self.clock() + deadline
        while not (ended := [effect for effect in out if isinstance(effect, effects.Finished | effects.Aborted)]):
            kind, tensors = (ASK, {QUERIES: queries}) if state.phase is coordinator.Phase.ADV else (SECAGG, {})
            sends = [effect for effect in out if isinstance(effect, effects.SendTo)]
            messages = {send.site: Message(kind, number, send.data, tensors) for send in sends}
            state, out = self._phase(config, state, messages, (self.clock() + end) / 2)
            named = [effect for effect in out if isinstance(effect, effects.Audit) and effect.site]
            self.reasons.update({audit.site: audit.detail for audit in named})
        return ended[0]

    def _phase(
        self,
        config: coordinator.CoordinatorConfig,
        state: coordinator.CoordinatorState,
        messages: Mapping[str, Message],
        until: float,
    ) -> tuple[coordinator.CoordinatorState, tuple[effects.Effect, ...]]:
        """Asks everybody, takes what comes in time, and closes the phase."""
        phase = state.phase
        out: tuple[effects.Effect, ...] = ()
        for turn in self._turns(phase, [*messages]):
            for site in turn:
                self._try(site, partial(self._send, messages[site], until))
            for site in turn:
                answer = self._try(site, partial(self._receive, until))
                if answer is not None:
                    state, more = coordinator.step(config, state, effects.Received(answer, site))
                    out += more
            if self.terms.asker in self.reasons:
                break
        if state.phase is phase:
            state, more = coordinator.step(config, state, effects.Expired(phase))
            out += more
        return state, out

    def _turns(self, phase: coordinator.Phase, sites: list[str]) -> list[list[str]]:
        """The asker's own agent is shown the queries first: if its gate refuses, no other agent ever sees them."""
        own = self.terms.asker
        if phase is not coordinator.Phase.ADV or own not in sites:
            return [sites]
        return [[own], [site for site in sites if site != own]]

    def _try(self, site: str, act: Callable[[Session], bytes]) -> bytes | None:
        """Sends or receives; an agent that failed once is out of this batch and its session is over."""
        if site in self.reasons:
            return None
        try:
            return act(self.sessions[site])
        except FederationError as error:
            self.reasons[site] = error.reason if isinstance(error, RemoteRefusalError) else str(error)
            if isinstance(error, ChannelClosedError):
                self.lost.add(site)
            self.sessions[site].close()
            return None

    def _send(self, message: Message, until: float, session: Session) -> bytes:
        session.send(message, timeout=self._left(until))
        return message.body

    def _receive(self, until: float, session: Session) -> bytes:
        return session.receive(timeout=self._left(until)).body

    def _left(self, until: float) -> float:
        return max(_LEAST, until - self.clock())

    def _config(self, queries: Queries, number: int, deadline: float) -> coordinator.CoordinatorConfig:
        terms = self.terms
        # An agent that answers at once waits while the slowest is waited for, which is half of it (§7.1).
        seconds = math.ceil(deadline) + 2
        context = terms.context(queries, number, Durations(seconds, seconds, seconds, seconds))
        _, held = terms.region(len(queries), queries_digest(queries))
        return coordinator.CoordinatorConfig(context, terms.roster, (held,), self.suite)
