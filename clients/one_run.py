"""The one-run audit of a site's release path: canaries in one production release, and in broken copies of it.

``T`` releases with noise ``z`` show as much as one with noise ``z / sqrt(T)``, all units in every batch; so one release
with that noise stands for a whole run. Canary ``i`` is a unit of its own, and its vector points along coordinate ``i``
alone. The attacker of the definition knows everybody else's contribution, here nothing, so what is released in that
coordinate is the canary's score (docs/privacy-rules.md, 18).

Every canary is 20 times longer than the clip. Where clipping works it counts C; where it is missing, it stands out.

Symbols: ``m`` canaries, ``C`` clip.
"""

from dataclasses import replace
from decimal import Decimal

import numpy as np

from clients.release_path import path_of
from privacy.attacks.canaries import included
from privacy.attacks.gaussian_pair import shape_of
from privacy.audit.measured.one_run import DEFECTS, Defect, Measurement, PathAudit
from privacy.conformance.path import zeros
from privacy.dp.events import FULL_BATCH
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan

CANARIES = 4096
"""As many as a record plan's path has coordinates for on the integer path."""

_TOO_LONG = 20
_NO_NOISE = Decimal("0.002")
"""Noise multiplier where noise is off: not 0, which no plan can have, but a canary stands out by 500 deviations."""
_PLACES = Decimal("1e-12")


def audit_path(
    plan: PrivacyPlan, *, seed: bytes, entropy: Entropy, canaries: int = CANARIES, floating: bool = False
) -> PathAudit:
    """Measures the path that a run with this plan takes, and its broken copies by the same code.

    Args:
      plan: Clip, noise and number of executions are audited; batches are full, since sampling has tests of its own.
      seed: Decides which canaries are in: 32 random bytes, committed to before. Secret until then.
      entropy: Randomness of the noise, in production ``secrets.token_bytes``.
      canaries: m; at most 4,096 for a record plan on the integer path.
      floating: Take the path of large models; record plans only.

    Returns: What ``one_run_claim`` takes. Public: the data are made up.
    Raises: PrivacyError: There is no such path. ConfigError: The grid of distributed noise cannot hold m coordinates.
    """
    noise = noise_over_run(plan)
    vectors = np.diag(np.where(included(seed, canaries), _TOO_LONG * float(plan.clip), 0.0))

    def measured(defect: Defect | None) -> Measurement:
        copy = _once(plan, noise, defect, canaries)
        keys = bytes if defect == "seed fixed" else entropy  # ``bytes(n)`` are n zeros
        empty = path_of(copy, dimension=canaries, n_units=1, floating=floating)
        quiet, again = (empty.release(zeros(empty), keys) for _ in range(2))
        path = path_of(copy, dimension=canaries, n_units=canaries, floating=floating)
        # A release is in units of the copy's clip, scores are in units of the plan's.
        scores = path.release(vectors, keys) * float(copy.clip / plan.clip)
        return Measurement(scores, shape_of(quiet), repeated=np.array_equal(quiet, again))

    correct = path_of(plan, dimension=canaries, n_units=canaries, floating=floating)
    return PathAudit(
        placement=correct.placement,
        path=correct.path,
        noise_multiplier=noise,
        correct=measured(None),
        controls={defect: measured(defect) for defect in DEFECTS},
    )


def noise_over_run(plan: PrivacyPlan) -> Decimal:
    """Returns the noise multiplier of the one full-batch release that is worth all executions of the plan."""
    return (plan.noise_multiplier / Decimal(plan.max_executions).sqrt()).quantize(_PLACES)


def _once(plan: PrivacyPlan, noise: Decimal, defect: Defect | None, dimension: int) -> PrivacyPlan:
    """Returns the plan of one full-batch release with that noise, in the production path or with a defect."""
    clip = plan.clip
    if defect == "noise halved":
        noise /= 2
    elif defect == "noise off":
        noise = _NO_NOISE
    elif defect == "clipping off":
        # A clip that no canary reaches, and noise as before.
        clip, noise = _TOO_LONG * clip, noise / _TOO_LONG
    once = replace(plan, clip=clip, noise_multiplier=noise, steps_per_attempt=1, max_attempts=1)
    if isinstance(once, RecordPlan):
        return replace(once, sampling=FULL_BATCH)
    if isinstance(once, DistributedPlan):
        shares = replace(once.noise, clip=clip, noise_multiplier=noise, dimension=dimension)
        return replace(once, noise=shares)
    return once
