"""What a run leaves open that its report does not tell by itself, in words; the rest is in ``privacy.audit.limits``."""

from collections.abc import Sequence

from privacy.audit import division, words
from privacy.secagg.context import thresholds
from strategies.job import Job
from strategies.secure_sum import summed
from strategies.task import SiteId

_PRIVATE = "Private parameters never leave their site: only it sees them."
_IN_NO_SUM = " They are in no sum, so no epsilon of noise in the sum is about them."
_IN_STEPS = " They are trained in the same noisy steps as the rest, and covered by the epsilon of those steps."


def server_view(job: Job, sites: Sequence[SiteId], *, unequal: bool) -> str:
    """Returns what the server saw of single sites, in words.

    Args:
      job: What ran.
      sites: Who answered the roll call.
      unequal: Whether sites hold different parts of the model, so that an attempt opens one sum for each region.
    """
    if not job.secagg:
        return words.SINGLE_UPDATES
    limits, floor = thresholds(len(sites)), thresholds(len(sites)).min_survivors
    if unequal:
        held = [region.holders for region in summed(job.plan, sites, limits.min_cover)]
        floor = division.fewest_holders(held, {"sites": sites, **vars(limits)})
    return words.sums_seen(len(sites), limits.n_c, floor, fixed_set=False, unequal=unequal)


def of_private(job: Job) -> list[str]:
    """Returns what is said of parameters that sites keep to themselves; nothing where they keep none."""
    if not job.division.private:
        return []
    in_sum = _IN_NO_SUM if set(job.privacy) & {"site", "distributed"} else ""
    return [_PRIVATE + in_sum + (_IN_STEPS if job.record_privacy else "")]
