"""One agent's side of an ensemble answer: it checks everything that the asker says, then runs FSA1's client machine.

In order: the form of the question; the context, which must be the one that the agent would have written itself; the
gate (charter, floor, policy, how often this asker asked), on record; without noise, the set, which must be the one that
was fixed; only then the model sees the queries. What leaves is what the machine sends: keys, sealed shares, one masked
vector, a signature, shares of secrets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from clients.channel.message import Message
from clients.channel.session import Session
from clients.joint.terms import Queries, Scores, Terms, queries_digest
from privacy.errors import LocalProtocolError, RemoteProtocolError
from privacy.keys.signing import SigningKey
from privacy.secagg import client, effects, wire
from privacy.secagg.admission import ClientConfig, LocalInput, SitePolicy
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import RoundContext
from privacy.secagg.encoding import Entropy
from privacy.secagg.suite import RealSuite
from privacy.store.admissions import Admissions

ASK = "ask"
"""Kind of the message with the queries, and START in its body; every other one is ``SECAGG``."""
SECAGG = "secagg"
QUERIES = "queries"
LONGEST_WAIT = 120
"""Seconds that an agent waits, at most, for each message of an attempt."""


@dataclass(frozen=True)
class Member:
    """An agent that answers; one for all askers, used by several threads.

    Attributes:
      site: Own id.
      terms: The terms for an asker and a purpose under the charter in force; raises if there are none.
      score: Own model; what it returns is secret.
      n_inputs: Width of a query.
      allow: Asks the gate about a batch of that many queries, and counts it; raises to refuse.
      pay: Writes down what a batch of that many queries takes, a price or the one set of agents, before a masked vector
        leaves; raises if it cannot.
    """

    site: str
    key: SigningKey = field(repr=False)
    terms: Callable[[str, str], Terms]
    score: Callable[[Queries], Scores] = field(repr=False)
    n_inputs: int
    admissions: Admissions
    allow: Callable[[Terms, int], None]
    pay: Callable[[Terms, effects.Debit, int], None]
    suite: RealSuite = field(repr=False)
    entropy: Entropy = field(repr=False)

    def answer(self, session: Session, message: Message) -> None:
        """Takes part in one batch.

        Raises: FederationError: Refused, or the asker gave up; nothing more leaves for this batch.
        """
        queries = self.read(message)
        terms = self.terms(session.peer, session.opening.purpose)
        self._check(terms, queries, message.body)
        self.allow(terms, len(queries))
        attempt = _Attempt(self, session, terms, len(queries), message.step)
        attempt.run(message.body, self._input(terms, queries))

    def read(self, message: Message) -> Queries:
        """Returns the queries of a question. Raises: RemoteProtocolError: It is none."""
        queries = message.tensors.get(QUERIES)
        refuse_unless(message.kind == ASK and len(message.tensors) == 1 and queries is not None, "this is no question")
        if queries is None or queries.dtype != np.float32 or queries.ndim != 2 or not len(queries):
            raise RemoteProtocolError("queries are rows of 32-bit numbers, at least one")
        refuse_unless(queries.shape[1] == self.n_inputs, f"a query of this study has {self.n_inputs} inputs")
        refuse_unless(bool(np.isfinite(queries).all()), "a query has an entry that is no finite number")
        return queries

    def _check(self, terms: Terms, queries: Queries, data: bytes) -> None:
        start = wire.decode(data)
        if not isinstance(start, wire.Start):
            raise RemoteProtocolError("a question begins with START")
        theirs = RoundContext.decode(start.context)
        own = terms.context(queries, theirs.round, theirs.durations)
        why = f"the asker proposes another sum than the charter gives for these queries and the model {terms.model}"
        refuse_unless(theirs == own, why)

    def _input(self, terms: Terms, queries: Queries) -> LocalInput:
        units = terms.units(self.score(queries), self.site, self.entropy)
        return LocalInput({0: units}, terms.plan_digest, {0: queries_digest(queries)})

    def config(self, terms: Terms) -> ClientConfig:
        """Returns what the machine is run with: a fixed set unless there is noise, thresholds as in the terms."""
        last = {terms.run: self.admissions.last(self.site, terms.run)}
        floors = terms.thresholds
        policy = SitePolicy(floors.n_c, floors.min_survivors, fixed_set=terms.noise is None, longest_wait=LONGEST_WAIT)
        return ClientConfig(self.site, self.key, terms.roster, terms.job, last, self.entropy, self.suite, policy)


@dataclass
class _Attempt:
    """FSA1's machine at work on one session; its secrets live as long as this object."""

    member: Member
    session: Session
    terms: Terms
    n_queries: int
    number: int

    def run(self, start: bytes, own: LocalInput) -> None:
        """Drives the machine from START to its end. Raises: FederationError: It aborted, or the asker is gone."""
        config, state, data = self.member.config(self.terms), client.idle(own), start
        while True:
            state, out = client.step(config, state, effects.Received(data))
            seconds = self._perform(out)
            if state.phase is client.Phase.DONE:
                return
            message = self.session.receive(timeout=seconds)
            refuse_unless(message.kind == SECAGG and not message.tensors, "this is no message of secure aggregation")
            data = message.body

    def _perform(self, out: tuple[effects.Effect, ...]) -> float:
        """Does what the machine asks for, in its order; returns how long to wait for the next message, in seconds."""
        for effect in out:
            match effect:
                case effects.Persist(effects.Attempt() as record):
                    self.member.admissions.admit(self.member.site, record)
                case effects.Persist(effects.Debit() as record):
                    self.member.pay(self.terms, record, self.n_queries)
                case effects.Send(data):
                    self.session.send(Message(SECAGG, self.number, data))
                case effects.Timer(seconds):
                    return float(seconds)
                case effects.Aborted(reason):
                    raise RemoteProtocolError(f"{self.member.site} aborted: {reason}", site_id=self.member.site)
                case _:
                    pass
        if not out:
            raise LocalProtocolError(f"{self.member.site} has nothing to say to that")
        return 0.0
