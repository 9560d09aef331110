"""What a plan lets out of the owner's organisation, put before the owner's own gate: receiver by receiver."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from clients.chain.payer import Payer, leaves
from clients.channel_gate import ChannelGate
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

    Each is judged by what the asset will have cost once all of them have left, not that one alone.

    Args:
      gate: The owner's.
      plan: Whose crossings.
      payer: Whose budget would pay.
      purpose: What for.
      times: How often any one record would leave, of each kind of value.
      study: Digest, hex, of the study whose run it is; empty: the charter names the plan.

    Raises: FederationError: Refused, and on record; nothing may leave.
    """
    found, noisy = released(plan), leaves(plan, times)
    after = payer.after(noisy) if noisy else Decimal(0)
    for to, releases in found.items():
        for release, what in releases.items():
            facts = ReleaseFacts(to, payer.asset, plan.digest, purpose, what, study=study)
            gate.release(_with_terms(facts, release, after))
    return found


def _with_terms(facts: ReleaseFacts, release: AnyRelease, after: Decimal) -> ReleaseFacts:
    if not isinstance(release, Release):
        return replace(facts, reason=release.reason)
    clip, noise = exact(release.clip), exact(release.noise)
    return replace(facts, clip=clip, noise=noise, most=release.most, epsilon_after=after)
