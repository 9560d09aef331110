"""The gate between agents: what a site asks before it holds a stage, lets values leave, or answers a question.

In order: the emergency stop, the charter, the hard floor, the site's own policy. Only an explicit Allow passes, and
the decision is on the site's log before it takes effect, either way. Charter, policy and settings are those of the
moment, so an edited policy or a new charter counts from the next question on.

See: docs/how-to-policy.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from clients.gate import PolicyRefusalError, refused_by
from privacy.charter import channel_rules
from privacy.charter.document import Charter
from privacy.errors import FederationError, PrivacyError, VerificationError
from privacy.policy import channel_floor
from privacy.policy.channel_requests import (
    AskFacts,
    HoldFacts,
    ReleaseFacts,
    ask_request,
    hold_request,
    release_request,
)
from privacy.policy.engine import CedarPolicy, Policy, Request
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from privacy.store.site_settings import AssetSettings

_LONGEST = 100  # characters of a stranger's word in the log
_UNSAFE = 2**53  # JSON has no whole numbers from here on


@dataclass(frozen=True)
class ChannelDecision:
    """What the gate decided, for the site's log; holds nothing of the records.

    Attributes:
      action: ``hold``, ``release`` or ``ask``.
      facts: What it was about, fractions as text.
      charter: Digest of the charter it was judged by, hex; empty where none could be read.
      policy: Digest of the site's policy, hex; likewise.
      by: What refused; empty if allowed.
      reason: Why, in words; empty if allowed.
    """

    allowed: bool
    action: str
    facts: Mapping[str, Any]
    charter: str
    policy: str
    by: str
    reason: str


@dataclass(frozen=True)
class ChannelGate:
    """What one site lets other agents do; everything is asked for anew at every question.

    Attributes:
      site: Its id.
      clock: Its own time, in its own zone.
      paused: Whether its emergency stop is on.
      record: Writes a decision down durably before it takes effect; raises if it cannot: then nothing passes.
    """

    site: str
    charter: Callable[[], Charter]
    policy: Callable[[], Policy]
    assets: Callable[[], Mapping[str, AssetSettings]]
    clock: Callable[[], datetime]
    paused: Callable[[], bool]
    record: Callable[[ChannelDecision], None] = field(repr=False)

    @classmethod
    def of_folder(cls, folder: SiteFolder, now: Callable[[], datetime]) -> "ChannelGate":
        """Returns the gate of a site's folder. Raises: FederationError: Its log does not hold."""
        log = folder.log()

        def record(decision: ChannelDecision) -> None:
            log.append([Record("channel-decision", asdict(decision))], folder.identity)

        return cls(
            site=folder.holder.id,
            charter=lambda: folder.charter,
            policy=lambda: _policy(folder.policy),
            assets=lambda: folder.settings.assets,
            clock=lambda: now().astimezone(folder.settings.timezone),
            paused=lambda: folder.paused,
            record=record,
        )

    def hold(self, facts: HoldFacts) -> None:
        """Lets a peer have a stage held here, or refuses. Raises: FederationError: Refused, with the one reason."""

        def judged(charter: Charter, moment: datetime) -> Request:
            channel_rules.check_hold(charter, facts, self.site, moment)
            purposes = channel_rules.hold_purposes(charter, train=facts.train)
            return hold_request(facts, purposes=purposes, moment=moment)

        self._decide("hold", facts, judged)

    def release(self, facts: ReleaseFacts) -> None:
        """Lets values of this site's records leave, or refuses; whether they are paid for, the ledger decides later.

        Raises: FederationError: Refused, with the one reason.
        """

        def judged(charter: Charter, moment: datetime) -> Request:
            channel_rules.check_release(charter, facts, self.site, moment)
            own, listed = self.assets().get(facts.asset), charter.assets[facts.asset]
            if own is None or facts.purpose not in own.purposes:
                raise PrivacyError(f"this site has no asset {facts.asset} for {facts.purpose}")
            channel_floor.check_release(facts)
            cap = listed.epsilon if own.epsilon is None else min(own.epsilon, listed.epsilon)
            return release_request(
                facts, sensitivity=own.sensitivity, purposes=own.purposes, epsilon_cap=cap, moment=moment
            )

        self._decide("release", facts, judged)

    def ask(self, facts: AskFacts) -> None:
        """Lets a question be answered, or refuses. Raises: FederationError: Refused, with the one reason."""

        def judged(charter: Charter, moment: datetime) -> Request:
            terms = channel_rules.check_ask(charter, facts, self.site, moment)
            channel_floor.check_ask(facts, self.site)
            cap = terms.noise.epsilon if terms.noise else Decimal(0)
            return ask_request(facts, site=self.site, purposes=terms.purposes, epsilon_cap=cap, moment=moment)

        self._decide("ask", facts, judged)

    def _decide(
        self, action: str, facts: HoldFacts | ReleaseFacts | AskFacts, judged: Callable[[Charter, datetime], Request]
    ) -> None:
        """Puts the decision on record, then raises the refusal if it is one."""
        charter: Charter | None = None
        policy: Policy | None = None
        refusal: FederationError | None = None
        try:
            if self.paused():
                raise PausedError
            charter, policy = self.charter(), self.policy()
            verdict = policy.decide(judged(charter, self.clock()))
            if not verdict.allowed:
                raise PolicyRefusalError(verdict.reasons)
        except FederationError as error:
            refusal = error
        decision = ChannelDecision(
            allowed=refusal is None,
            action=action,
            facts={name: _plain(value) for name, value in vars(facts).items()},
            charter=charter.digest if charter else "",
            policy=policy.digest if policy else "",
            by=_by(refusal) if refusal else "",
            reason=str(refusal) if refusal else "",
        )
        self.record(decision)
        if refusal is not None:
            raise refusal


class PausedError(PrivacyError):
    """This site's emergency stop is on."""

    def __init__(self) -> None:
        super().__init__("this site is paused", hint="collegium site pause FOLDER --resume ends that, at the site.")


def _by(error: FederationError) -> str:
    match error:
        case PausedError():
            return "paused"
        case VerificationError():  # of this site's own papers
            return "the site itself"
        case _:
            return refused_by(error)


@lru_cache(maxsize=4)
def _policy(text: str) -> CedarPolicy:
    return CedarPolicy(text, "site")


def _plain(value: Any) -> Any:
    """Returns a value that may be a stranger's as the log takes it: short, in letters that can be seen."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value[:_LONGEST]]
    if isinstance(value, bool | int) and abs(value) < _UNSAFE:
        return value
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:_LONGEST])
