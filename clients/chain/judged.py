"""What a plan lets out of the owner's organisation, put before the owner's own gate: receiver by receiver."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from clients.chain.released import Payer, event
from clients.channel_gate import ChannelGate
from privacy.dp.events import Event
from privacy.dp.filters import Filter
from privacy.policy.channel_requests import ReleaseFacts
from strategies.chain_plan import ChainPlan, check_crossings, crossings
from strategies.job import exact
from strategies.release import AnyRelease, Release

Released = Mapping[str, Mapping[AnyRelease, tuple[str, ...]]]
"""By receiver and release: what crosses under it."""


def released(plan: ChainPlan) -> Released:
    """Returns what reaches other organisations than the owner's.

    Raises: PrivacyError: Something has no release (`check_crossings`).
    """
    check_crossings(plan)
    at = {plan.home: plan.owner, **{stage.device: stage.organisation for stage in plan.stages}}
    found: dict[str, dict[AnyRelease, set[str]]] = defaultdict(lambda: defaultdict(set))
    for what, giver, taker in crossings(plan):
        release = plan.release(what, at[taker])
        if at[taker] not in {at[giver], plan.owner} and release is not None:
            found[at[taker]][release].add(str(what))
    return {to: {release: tuple(sorted(what)) for release, what in of.items()} for to, of in found.items()}


def check_releases(
    gate: ChannelGate, plan: ChainPlan, payer: Payer, *, purpose: str, times: int, study: str = ""
) -> Released:
    """Asks the gate about every receiver and release; returns them once all may pass.

    Args:
      gate: The owner's.
      plan: Whose crossings.
      payer: Whose budget would pay.
      purpose: What for.
      times: How often any one record would leave, of each kind of value.
      study: Digest, hex, of the study whose run it is; empty: the charter names the plan.

    Raises: FederationError: Refused, and on record; nothing may leave.
    """
    found = released(plan)
    for to, releases in found.items():
        for release, what in releases.items():
            facts = ReleaseFacts(to, payer.asset, plan.digest, purpose, what, study=study)
            gate.release(_with_terms(facts, release, payer, times * len(what)))
    return found


def _with_terms(facts: ReleaseFacts, release: AnyRelease, payer: Payer, times: int) -> ReleaseFacts:
    if not isinstance(release, Release):
        return replace(facts, reason=release.reason)
    return replace(
        facts,
        clip=exact(release.clip),
        noise=exact(release.noise),
        most=release.most,
        epsilon_after=_after(payer, event(release, times)),
    )


def _after(payer: Payer, wanted: Event) -> Decimal:
    """Returns what the asset will have cost under its dearest claim once this has left."""
    with payer.ledger.reading() as books:
        asset = books.asset(payer.asset)
        found = [
            Decimal(str(budget.epsilon_of(budget.spent([*books.spent(asset.name, claim), wanted]))))
            for claim, budget in asset.budgets.items()
            if isinstance(budget, Filter)
        ]
    return max(found, default=Decimal("Infinity"))
