"""What a run does not protect and what its claims rest on, in words: the part of a report that nobody may leave out."""

from collections.abc import Mapping, Sequence
from typing import Any

from privacy.audit import division, division_words, words
from privacy.dp.events import SamplingType
from privacy.dp.plan import RecordPlan, Unit
from privacy.secagg.context import thresholds
from server.claims import Placement, PrivacyClaim, is_exact
from strategies.job import Job
from strategies.secure_sum import summed
from strategies.task import SiteId

_NOT_AGAINST: dict[Placement, str] = {
    "central": "The server adds the noise and sees the sums without it: the claim does not hold against the server.",
    "distributed": "A site knows its own share of the noise: against it, one share fewer counts (hypothetical values).",
}
_PATIENTS = "A patient in several hospitals is protected less than one in a single hospital."
_RECORDS = "A patient with several records, or in several hospitals, is protected less than one with a single record."
_SUPPRESSION = (
    "Sites hold different parts of the model: a malicious server could send some of them values with which the update"
    " of a single other site stands out in the sum of a region."
)
_UNEQUAL = (
    "With unequal sub-models, that nothing but sums is seen holds against a server that follows the protocol; against"
    " one that does not, only distributed noise "
)
_NOISY_STEPS = " What protects a record even then is the noise of its site's own steps."
_UNEQUAL_SHARES = (
    "A region with more holders than the fewest gets a smaller share of noise from each: every region has the declared"
    " noise if as many of its holders as are counted on there drew theirs."
)
_PRIVATE = "Private parameters never leave their site: only it sees them."
_IN_NO_SUM = " They are in no sum, so no epsilon of noise in the sum is about them."
_IN_STEPS = " They are trained in the same noisy steps as the rest, and covered by the epsilon of those steps."
_RESTS_ON: dict[Placement, str] = {
    "central": "Every site clipped its update as agreed: under masks the server cannot see whether it did.",
    "distributed": "As many sites as were counted on drew their shares of the noise honestly and told nobody.",
}


def server_view(job: Job, sites: Sequence[SiteId], *, unequal: bool) -> str:
    """Returns what the server saw of single sites, in words.

    Args:
      job: What ran.
      sites: Who answered the roll call.
      unequal: Whether sites hold different parts of the model, so that an attempt opens one sum for each region.
    """
    if not job.secagg:
        return "The server sees every site's single update: there was no secure aggregation."
    limits, floor = thresholds(len(sites)), thresholds(len(sites)).min_survivors
    if unequal:
        held = [region.holders for region in summed(job.plan, sites, limits.min_cover)]
        floor = division.fewest_holders(held, {"sites": sites, **vars(limits)})
    return words.sums_seen(len(sites), limits.n_c, floor, fixed_set=False, unequal=unequal)


def of_privacy(job: Job, claims: Sequence[PrivacyClaim], own: str) -> list[str]:
    """Returns what differential privacy does not cover; ``own`` says whose view no epsilon covers."""
    if not job.privacy:
        return ["No differential privacy was applied: updates and model may give away training records."]
    lines = [_NOT_AGAINST[claim.placement] for claim in claims if claim.placement in _NOT_AGAINST]
    if all(claim.plan.unit is Unit.SITE for claim in claims):
        lines.append("The unit is the site: a record is hidden only as a part of what its whole site adds.")
    return [
        *lines,
        own,
        _PATIENTS if any(claim.plan.unit is Unit.PATIENT for claim in claims) else _RECORDS,
        "What was learnt about everybody, also about people who never took part, is not protected by any epsilon.",
    ]


def of_division(job: Job, found: Mapping[str, Any] | None, n_rounds: int, *, unequal: bool) -> list[str]:
    """Returns what comes with a divided model, beside what holds for every run; ``found`` is ``submodels``."""
    if found is None:
        return []
    lines = division_words.about_slack(found)
    if any(region["still"] for region in found["regions"]):
        lines.append(division_words.about_still(found, n_rounds))
    if unequal:
        lines.append(_SUPPRESSION)
        had = "protects a site's update." if "distributed" in job.privacy else "would protect, and this run had none."
        lines.append(_UNEQUAL + had + (_NOISY_STEPS if job.record_privacy else ""))
    if job.division.private:
        in_sum = _IN_NO_SUM if set(job.privacy) & {"site", "distributed"} else ""
        lines.append(_PRIVATE + in_sum + (_IN_STEPS if job.record_privacy else ""))
    return lines


def assumptions(claims: Sequence[PrivacyClaim], *, unequal: bool) -> list[str]:
    """Returns what claims of differential privacy rest on."""
    if not claims:
        return []
    plans = [spent.plan for claim in claims for spent in claim.spent.values()]
    exact = all(is_exact(event) for claim in claims for s in claim.spent.values() for event in s.events)
    lines = [
        "Numbers of records, weights, clip, rates, rounds and scaling constants are public and fixed beforehand.",
        "Neighbouring data sets are training sets after the split into training and test rows.",
        "Noise and sampling come from the operating system's randomness.",
        "Noise is drawn as exact integers on a public grid; its timing is not constant."
        if exact
        else "The Gaussian is a 64-bit floating-point one, rounded to a public grid: epsilon is asserted, not proved.",
        "Each ledger was debited before anything that it pays for left; the events listed are those debits.",
    ]
    if unequal and any(claim.placement == "distributed" for claim in claims):
        lines.append(_UNEQUAL_SHARES)
    lines += [_RESTS_ON[claim.placement] for claim in claims if claim.placement in _RESTS_ON]
    records = [plan for plan in plans if isinstance(plan, RecordPlan)]
    if any(plan.sampling.type is SamplingType.POISSON for plan in records):
        lines.append("Nobody outside a site learns which of its records entered a batch.")
    if any(plan.delta * plan.n_records >= 1 for plan in records):
        lines.append("Delta is not below 1/N at every site: a smaller --delta is advisable there.")
    return lines
