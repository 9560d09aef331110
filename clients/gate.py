"""The gate: what a site asks before it acts on anything that the coordinator sends. Only an explicit Allow passes.

In order: the coordinator's signature, the charter's rules, the hard floor, the site's own policy. An invitation is
judged when it comes and again at the start of every attempt, because time passes, policies change and budgets shrink.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from privacy.charter import rules
from privacy.charter.document import Charter
from privacy.dp.plan import PrivacyPlan
from privacy.errors import FederationError, PrivacyError, RemoteProtocolError, VerificationError
from privacy.policy.floor import FloorRefusalError
from privacy.secagg.context import RoundContext
from strategies.invitation import Invitation, open_invitation
from strategies.job import Job
from strategies.secure_sum import run_digest
from strategies.task import SiteId


@dataclass(frozen=True)
class Decision:
    """What the gate decided, for the site's log; holds nothing of the records.

    Attributes:
      run: Named by whoever asked; untrusted until ``allowed``.
      strategy: Likewise.
      invitation: SHA-256 of what was judged, hex.
      charter: Digest of the charter it was judged by, hex.
      policy: Digest of the site's policy, hex; empty without one.
      by: What refused: a clause of the charter, a rule of the floor or of the policy, a check; empty if allowed.
      reason: Why, in words; empty if allowed.
    """

    allowed: bool
    run: str
    strategy: str
    invitation: str
    charter: str
    policy: str
    by: str
    reason: str


class Judge(Protocol):
    """A site's own policy; it can be stricter than the charter and never laxer."""

    @property
    def digest(self) -> str:
        """SHA-256 of the policy, hex."""

    def judge(
        self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan], context: RoundContext | None = None
    ) -> None:
        """Refuses by raising PrivacyError; returns nothing.

        Args:
          invitation: Checked.
          job: As the site resolved it.
          plans: Noise that the site adds, priced for the whole run.
          context: Of one attempt, with the sites that are really in it; ``None``: about the whole run.
        """


@dataclass(frozen=True)
class Gate:
    """What one site lets pass.

    Attributes:
      charter: Pinned and verified.
      application: Digest of the application that is installed here, hex.
      clock: The site's own time, with its time zone.
      record: Writes a decision down durably before it takes effect; raises if it cannot: then nothing passes.
      own: The site's own policy; ``None`` in simulations, where the charter is all there is.
      unsafe_without_masks: Lets a simulation compare with updates in the clear; no charter can.
    """

    site: SiteId
    charter: Charter
    application: str
    clock: Callable[[], datetime]
    record: Callable[[Decision], None] = field(repr=False)
    own: Judge | None = None
    unsafe_without_masks: bool = False

    def open(self, data: bytes) -> Invitation:
        """Reads an invitation and checks that the charter's coordinator signed it, for this federation and site.

        Raises: RemoteProtocolError, VerificationError: It is not for this site.
        """
        invitation = open_invitation(data, self.charter.server.identity)
        if invitation.federation != self.charter.federation or self.site not in invitation.sites:
            raise VerificationError(f"the invitation is not for {self.site} of {self.charter.federation}")
        if invitation.application != self.application:
            raise VerificationError("the coordinator runs another application than the one installed here")
        return invitation

    def check(self, data: bytes, job: Job, plans: Sequence[PrivacyPlan]) -> None:
        """Lets a job pass, or refuses it; either way the decision is on record first.

        Args:
          data: The invitation, as it came.
          job: As this site resolved it.
          plans: Noise that this site adds, priced for the whole run.

        Raises: FederationError: Refused, with the one reason.
        """
        invitation = self.open(data)
        try:
            self._judge(invitation, job, plans)
        except FederationError as error:
            self.refused(data, error, invitation)
            raise
        self.record(self._decision(data, invitation))

    def check_context(self, invitation: Invitation, context: RoundContext) -> None:
        """Checks that an attempt belongs to the run that was let pass, with no fewer sites than the charter asks for.

        Sites may be away, so a cohort can be smaller than was invited; FSA1's own machine checks the rest.

        Raises: CharterRefusalError, RemoteProtocolError: It does not.
        """
        agreed = (invitation.federation, run_digest(invitation.run), invitation.purpose, invitation.asset)
        if (context.federation, context.run, context.purpose, context.asset) != agreed:
            raise RemoteProtocolError(f"{self.site} agreed to another run, purpose or asset", phase="train")
        floors, limits = self.charter.floors, context.thresholds
        counts = {
            "cohort": (len(context.cohort), floors.cohort),
            "survivors": (limits.min_survivors, floors.survivors),
            "threshold": (limits.t, floors.threshold),
            "cover": (limits.min_cover, floors.cover),
        }
        for clause, (found, least) in counts.items():
            if found < least:
                raise rules.CharterRefusalError(clause, f"{found} in an attempt are fewer than {least}")
        if not set(context.cohort) <= set(invitation.sites):
            raise rules.CharterRefusalError("members", "an attempt has sites that were not invited")

    def refused(
        self, data: bytes, error: FederationError, invitation: Invitation | None = None, *, by: str = ""
    ) -> None:
        """Puts a refusal on record that was found before or after the job was judged; ``by`` names what refused."""
        decision = self._decision(data, invitation)
        self.record(replace(decision, allowed=False, by=by or refused_by(error), reason=str(error)))

    def _judge(self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan]) -> None:
        if invitation.job != job.digest:
            raise RemoteProtocolError(f"{self.site} agreed to other settings than the server proposes", phase="hello")
        proposal = invitation.proposal(job, tuple(plans), self.charter.floors)
        rules.check(self.charter, proposal, self.clock(), unsafe_without_masks=self.unsafe_without_masks)
        if self.own is not None:
            self.own.judge(invitation, job, plans)

    def _decision(self, data: bytes, invitation: Invitation | None) -> Decision:
        return Decision(
            allowed=True,
            run=invitation.run if invitation else "",
            strategy=invitation.strategy if invitation else "",
            invitation=hashlib.sha256(data).hexdigest(),
            charter=self.charter.digest,
            policy=self.own.digest if self.own else "",
            by="",
            reason="",
        )


class PolicyRefusalError(PrivacyError):
    """The site's own policy does not allow a job, or has no answer.

    Attributes:
      rules: Ids of the rules that decided.
    """

    def __init__(self, rules: tuple[str, ...]) -> None:
        super().__init__(f"this site's policy does not allow it: {', '.join(rules)}")
        self.rules = rules


def refused_by(error: FederationError) -> str:
    """Names what refused, for a log."""
    match error:
        case rules.CharterRefusalError(clause=clause):
            return f"charter: {clause}"
        case FloorRefusalError(clause=clause):
            return f"floor: {clause}"
        case PolicyRefusalError(rules=named):
            return f"policy: {', '.join(named)}"
        case PrivacyError():
            return "budget or asset"
        case VerificationError() | RemoteProtocolError():
            return "invitation"
        case _:
            return "the site itself"
