"""The gate by itself: signature, charter, own policy, in that order; on record before it takes effect or not at all."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from clients.gate import Decision, Gate, PolicyRefusalError
from privacy.charter.document import Charter, Floors
from privacy.charter.rules import CharterRefusalError
from privacy.dp.plan import PrivacyPlan
from privacy.errors import ConfigError, FederationError, PrivacyError, RemoteProtocolError, VerificationError
from privacy.policy.floor import FloorRefusalError
from privacy.secagg import wire
from privacy.secagg.context import RoundContext
from privacy.store.application import application_digest
from strategies.invitation import Invitation
from strategies.job import Job
from strategies.messages import SecureTask
from strategies.task import SiteId
from tests.clients.invited import Parties
from tests.federation import Federation

ALBA = SiteId("alba")


@dataclass
class Own:
    """A site's own policy that answers as it is told."""

    error: FederationError | None = None
    digest: str = "ab" * 32
    asked: list[Invitation] = field(default_factory=list)

    def judge(
        self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan], context: RoundContext | None = None
    ) -> None:
        assert (invitation.job, list(plans), context) == (job.digest, [], None)
        self.asked.append(invitation)
        if self.error is not None:
            raise self.error


@dataclass
class Scene:
    gate: Gate
    job: Job
    data: bytes
    parties: Parties
    decisions: list[Decision]

    def refused(self, error: type[FederationError], by: str, data: bytes | None = None) -> Decision:
        with pytest.raises(error) as caught:
            self.gate.check(self.data if data is None else data, self.job, ())
        if not self.decisions:  # it was refused unread, by `open`, which its caller puts on record
            self.gate.refused(self.data if data is None else data, caught.value)
        (decision,) = self.decisions
        assert (decision.allowed, decision.by, decision.reason) == (False, by, str(caught.value))
        return decision


@pytest.fixture
def scene(founded: Federation) -> Scene:
    parties, decisions = Parties(founded), list[Decision]()
    job = parties.job()
    gate = Gate(
        ALBA,
        founded.charter,
        application_digest(),
        lambda: datetime.now(UTC),
        decisions.append,
        Own(),
    )
    return Scene(gate, job, parties.signed(job), parties, decisions)


def test_what_everybody_allows_passes_and_is_on_record(scene: Scene) -> None:
    scene.gate.check(scene.data, scene.job, ())
    (decision,) = scene.decisions
    assert decision == Decision(
        True, "first", "fedavg", decision.invitation, scene.gate.charter.digest, "ab" * 32, by="", reason=""
    )
    assert len(decision.invitation) == 64


def test_a_gate_without_a_policy_of_its_own_asks_the_charter(scene: Scene) -> None:
    replace(scene.gate, own=None).check(scene.data, scene.job, ())
    assert [decision.policy for decision in scene.decisions] == [""]


@pytest.mark.parametrize(
    ("error", "by"),
    [
        (PolicyRefusalError(("small-cohort", "day-time")), "policy: small-cohort, day-time"),
        (FloorRefusalError("noise", "too little"), "floor: noise"),
        (PrivacyError("nothing left"), "budget or asset"),
        (VerificationError("not signed"), "invitation"),
        (RemoteProtocolError("odd", phase="hello"), "invitation"),
        (ConfigError("a file is unreadable"), "the site itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_refusal_is_on_record_by_who_refused(error: FederationError, by: str, scene: Scene) -> None:
    gate = replace(scene.gate, own=Own(error))
    replace(scene, gate=gate).refused(type(error), by)


def test_the_charter_is_asked_before_the_policy(scene: Scene) -> None:
    own = Own(PrivacyError("never asked"))
    gate = replace(scene.gate, own=own, clock=lambda: datetime(2001, 1, 1, tzinfo=UTC))
    replace(scene, gate=gate).refused(PrivacyError, "charter: not before")
    assert own.asked == []


def test_a_policy_is_never_laxer_than_the_charter(scene: Scene) -> None:
    data = scene.parties.signed(scene.job, purpose="marketing")
    scene.refused(PrivacyError, "charter: purpose", data)


def test_another_job_than_was_resolved_does_not_pass(scene: Scene) -> None:
    other = replace(scene, job=scene.parties.job(seed=2))
    other.refused(RemoteProtocolError, "invitation")


@pytest.mark.parametrize(
    "changes", [{"federation": "south"}, {"application": "00" * 32}, {"sites": ("brno", "cork", "dole")}], ids=str
)
def test_an_invitation_that_is_not_for_this_site_is_refused(changes: dict[str, str], scene: Scene) -> None:
    data = scene.parties.signed(scene.job, **changes)
    decision = scene.refused(VerificationError, "invitation", data)
    assert (decision.run, decision.strategy) == ("", ""), "an unchecked name is not put on record as one"


def test_only_the_charters_coordinator_invites(scene: Scene) -> None:
    made = scene.parties.invitation(scene.job)
    scene.refused(VerificationError, "invitation", made.signed(scene.parties.federation.folders["alba"].identity))


@pytest.mark.parametrize("allowed", [True, False])
def test_what_cannot_be_put_on_record_does_not_pass(allowed: bool, scene: Scene) -> None:
    class DiskFullError(FederationError):
        """It is."""

    def full(_decision: Decision) -> None:
        raise DiskFullError("no space left")

    gate = replace(scene.gate, record=full, own=Own(None if allowed else PrivacyError("no")))
    with pytest.raises(DiskFullError):
        gate.check(scene.data, scene.job, ())


def test_updates_in_the_clear_pass_where_a_simulation_asks_for_them_and_nowhere_else(scene: Scene) -> None:
    clear = replace(scene.job, secagg=False)
    data = scene.parties.signed(clear)
    replace(scene, job=clear).refused(PrivacyError, "charter: secure aggregation", data)
    scene.decisions.clear()
    replace(scene.gate, unsafe_without_masks=True).check(data, clear, ())
    assert [decision.allowed for decision in scene.decisions] == [True]


def test_an_attempt_is_one_of_the_run_that_was_let_pass(scene: Scene) -> None:
    start = wire.decode(SecureTask.decode(scene.parties.start("alba", scene.job)).start)
    assert isinstance(start, wire.Start)
    context = RoundContext.decode(start.context)
    sent = scene.parties.invitation(scene.job)
    scene.gate.check_context(sent, context)
    with pytest.raises(CharterRefusalError, match="not invited"):
        scene.gate.check_context(replace(sent, sites=sent.sites[:3]), context)
    others = [replace(sent, federation="south"), replace(sent, run="another"), replace(sent, purpose="trade")]
    for other in (*others, replace(sent, asset="lungs")):
        with pytest.raises(RemoteProtocolError, match="another run, purpose or asset"):
            scene.gate.check_context(other, context)
    for clause in ("cohort", "survivors", "threshold", "cover"):
        floors = replace(scene.gate.charter.floors, **{clause: 5})
        charter = replace_floors(scene.gate.charter, floors)
        with pytest.raises(CharterRefusalError) as caught:
            replace(scene.gate, charter=charter).check_context(sent, context)
        assert caught.value.clause == clause


def replace_floors(charter: Charter, floors: Floors) -> Charter:
    """A charter with floors that its own number of sites could not meet."""
    made = copy(charter)
    object.__setattr__(made, "floors", floors)
    return made
