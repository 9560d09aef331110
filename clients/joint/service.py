"""What a site's resident process answers over the channel: its own people (``local``), and the fixed set's sums.

Every batch meets the site as it is at that moment: charter, policy, settings, ledger. Refused or not, it was counted
and is on the site's log before anything leaves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from clients.channel.message import Message
from clients.channel.session import ChannelError, Opening, Session, told
from clients.channel_gate import ChannelGate
from clients.joint.member import Member
from clients.joint.model import OwnModel
from clients.joint.terms import Terms
from privacy.charter.document import Charter
from privacy.dp.filters import Filter
from privacy.errors import BudgetExhaustedError, FederationError, PrivacyError
from privacy.policy.channel_requests import AskFacts
from privacy.secagg import effects
from privacy.store.answers import ANSWERS_ASSET, ANSWERS_CLAIM, Answers, answers_asset
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from privacy.store.log import Record
from strategies.study import Study
from strategies.task import SiteId

LOCAL = "local"
ENSEMBLE = "ensemble"
SCORES = "scores"


@dataclass(frozen=True)
class Desk:
    """What a site checks and writes down before it answers anybody.

    Attributes:
      site: Own id.
      model: What answers here: ``home``, or ``run:NAME``.
      asset: Whose records that model was made of.
      charter: In force at that moment.
      record: Puts an entry on the site's log, durably.
      note_ledger: Puts the ledger's head on the log, before what it paid for leaves.
    """

    site: str
    model: str
    asset: str
    study: Study
    charter: Callable[[], Charter]
    gate: ChannelGate
    answers: Answers
    ledger: Ledger = field(repr=False)
    record: Callable[[Record], None] = field(repr=False)
    note_ledger: Callable[[], None] = field(repr=False)

    def terms(self, asker: str, purpose: str) -> Terms:
        """Returns the terms for an asker. Raises: PrivacyError: There are none, or this site is no agent of them."""
        terms = Terms.of(self.charter(), self.study, model=self.model, asker=asker, purpose=purpose)
        if self.site not in terms.agents:
            raise PrivacyError(f"{self.site} is no agent of this charter")
        return terms

    def allow_local(self, asker: str, purpose: str, n_queries: int) -> None:
        """Lets the site's own people ask, or refuses. Raises: FederationError: Refused."""
        today, ever = self._count(asker, n_queries)
        self.gate.ask(AskFacts(asker, LOCAL, purpose, n_queries, today, ever, (self.site,), 0))

    def allow(self, terms: Terms, n_queries: int) -> None:
        """Lets an agent take part in a sum, or refuses. Raises: FederationError: Refused."""
        today, ever = self._count(terms.asker, n_queries)
        facts = AskFacts(
            terms.asker, ENSEMBLE, terms.purpose, n_queries, today, ever, terms.agents, terms.thresholds.n_c
        )
        if terms.noise is not None:
            facts = AskFacts(
                **{**vars(facts), "noise": terms.noise.multiplier, "epsilon_after": self._after(terms, n_queries)}
            )
        self.gate.ask(facts)
        if terms.noise is None:
            self.answers.check_set(self.asset, self._members(terms))

    def pay(self, terms: Terms, attempt: effects.Debit, n_queries: int) -> None:
        """Writes down what a batch takes, durably: noise is debited, a sum without noise fixes the one set of agents.

        Raises: FederationError: Nothing may leave.
        """
        event = terms.event(n_queries)
        if event is None:
            self.answers.fix_set(self.asset, self._members(terms))
            return
        run = f"answers to {terms.asker} {terms.charter[:12]}"
        limit = self._budget().room(Decimal(0), event)
        debit = Debit(
            ANSWERS_ASSET, attempt.round, attempt.attempt, event,
            limit=limit, run=run, purpose=ANSWERS_ASSET, claim=ANSWERS_CLAIM,
        )  # fmt: skip
        self.ledger.release(self.ledger.reserve([debit]))
        self.note_ledger()

    def refused(self, asker: str, mode: str, error: FederationError) -> None:
        """Puts on record that a question got no answer, whoever was the reason."""
        self.record(Record("unanswered", {"asker": asker, "mode": mode, "reason": str(error)}))

    def _members(self, terms: Terms) -> Mapping[str, str]:
        """Returns by agent what a charter or a study could change about it alone: its weight, its part of the model."""
        parts = {agent: self.study.division.part_of(SiteId(agent)) for agent in terms.agents}
        return {
            agent: f"weight {terms.weights[agent]}"
            + (f", width {part.width}" if part.width != 1 else "")
            + (f", depth {part.depth}" if part.depth else "")
            for agent, part in parts.items()
        }

    def _count(self, asker: str, n_queries: int) -> tuple[int, int]:
        return self.answers.count(asker, self.gate.clock().date(), n_queries)

    def _budget(self) -> Filter:
        """Returns the budget of all answers; the first charter that asks for noise fixes it for ever."""
        with self.ledger.reading() as books:
            known = books.assets.get(ANSWERS_ASSET)
        if known is None:
            known = answers_asset(self.charter())
            if known is None:
                raise PrivacyError("the charter asks for no noise, so there is no budget of answers")
            self.ledger.declare(known)
        budget = known.budgets[ANSWERS_CLAIM]
        if not isinstance(budget, Filter):
            raise BudgetExhaustedError("the ledger has no budget of answers")
        return budget

    def _after(self, terms: Terms, n_queries: int) -> Decimal:
        """Returns what all answers will have cost this site, over all askers, with this batch."""
        budget, event = self._budget(), terms.event(n_queries)
        with self.ledger.reading() as books:
            before = books.spent(ANSWERS_ASSET, ANSWERS_CLAIM)
        spent = budget.spent([*before, *([] if event is None else [event])])
        return Decimal(str(budget.epsilon_of(spent)))


@dataclass(frozen=True)
class EnsembleService:
    """Takes part in sums over the fixed set, for whoever the gate lets ask."""

    desk: Desk
    member: Member

    def admit(self, peer: str, opening: Opening) -> bytes:
        """Refuses a session under which nothing could be asked. Raises: FederationError: Refused, and on record."""
        try:
            self.desk.terms(peer, opening.purpose)
        except FederationError as error:
            self.desk.refused(peer, ENSEMBLE, error)
            raise
        return b""

    def run(self, session: Session) -> None:
        """Answers one batch after another until the asker leaves or is refused."""
        _converse(self.desk, session, ENSEMBLE, lambda message: self.member.answer(session, message))


@dataclass(frozen=True)
class LocalService:
    """Answers the site's own people with its own model alone; nobody else, since that would be one agent's answer."""

    desk: Desk
    member: Member
    model: OwnModel

    def admit(self, peer: str, opening: Opening) -> bytes:
        """Refuses everybody but the site itself. Raises: PrivacyError: Refused, and on record."""
        del opening
        if peer != self.desk.site:
            error = PrivacyError("a local answer is for the site itself")
            self.desk.refused(peer, LOCAL, error)
            raise error
        return b""

    def run(self, session: Session) -> None:
        """Answers one batch after another."""

        def answer(message: Message) -> None:
            queries = self.member.read(message)
            self.desk.allow_local(session.peer, session.opening.purpose, len(queries))
            session.send(Message(SCORES, message.step, tensors={SCORES: self.model.score(queries)}))

        _converse(self.desk, session, LOCAL, answer)


def _converse(desk: Desk, session: Session, mode: str, answer: Callable[[Message], None]) -> None:
    """Answers until the session is over; an error ends it, with the one plain line that the asker may hear."""
    while True:
        try:
            message = session.receive()
        except ChannelError:
            return
        try:
            answer(message)
        except FederationError as error:
            desk.refused(session.peer, mode, error)
            session.close(told(error))
            return
