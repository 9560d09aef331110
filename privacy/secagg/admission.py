"""What a site checks before it takes part: the context, its own floors, the model it trained on (§3.0).

Nothing is sent and no key is drawn before all of it holds, and none of it depends on the site's records: a refusal here
costs the server nothing. The entries of the input are looked at where they are paid for (§3.5, `check_entries`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privacy.errors import ConfigError, SensitivityError
from privacy.keys.signing import SigningKey
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import MIN_SITES, Roster, RoundContext, default_n_c, model_root, region_digest
from privacy.secagg.encoding import Entropy
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Start


@dataclass(frozen=True)
class SitePolicy:
    """What this site demands of a context beyond its being well-formed; public.

    Attributes:
      n_c: Fewest colluding sites that the thresholds must withstand; None demands the default of §2.2.
      min_survivors: Fewest survivors.
      fixed_set: Whether the context must demand one fixed set (§2.5).
      longest_wait: Seconds; caps the context's durations (§5).
    """

    n_c: int | None = None
    min_survivors: int = MIN_SITES
    fixed_set: bool = False
    longest_wait: int = 3600

    def check(self, context: RoundContext) -> None:
        """Refuses a context that protects less; raises RemoteProtocolError."""
        wanted = default_n_c(len(context.cohort)) if self.n_c is None else self.n_c
        enough = context.thresholds.n_c >= wanted and context.thresholds.min_survivors >= self.min_survivors
        refuse_unless(enough, "the context's thresholds are below this site's floor")
        refuse_unless(context.fixed_set or not self.fixed_set, "this site takes part with one fixed set only")


@dataclass(frozen=True)
class ClientConfig:
    """What a site brings to every attempt.

    Attributes:
      site: Own id.
      key: Own identity key; shows its key id only.
      roster: Pinned; the server has no say in it.
      job: Own digest of what was agreed: strategy, privacy plan, code (§2.1).
      admitted: Highest persisted ``(round, attempt)`` by run, read back from the store (§6.1).
      entropy: Source of keys, seeds and coefficients.
      suite: The primitives.
      policy: Own floors.
    """

    site: str
    key: SigningKey
    roster: Roster
    job: bytes
    admitted: Mapping[bytes, tuple[int, int]]
    entropy: Entropy = field(repr=False)
    suite: RealSuite = field(repr=False)
    policy: SitePolicy = SitePolicy()

    def __post_init__(self) -> None:
        if self.roster.keys.get(self.site) != self.key.public_key:
            raise ConfigError(f"the pinned roster does not have this key for the site {self.site}")


@dataclass(frozen=True)
class LocalInput:
    """What a site contributes, and what it trained on. Training ended before the machine is fed START.

    Attributes:
      vectors: By region that it holds: units of the grid, int64, shape ``(length_k,)``. Secret.
      plan_digest: Of the plan that cuts the model into regions (§2.4).
      values_digests: By region that it holds: SHA-256 of the values it trained on, computed from its own tensors.
      noised: Whether the plan has noise added to the sum. A region of zeros is then summed like any other: it is what
        the neighbour of a protected site contributes, and a refusal would tell the two apart.
    """

    vectors: Mapping[int, NDArray[np.int64]] = field(repr=False)
    plan_digest: bytes
    values_digests: Mapping[int, bytes]
    noised: bool = False


def admit(config: ClientConfig, own: LocalInput, message: Start) -> RoundContext:
    """Returns the context of a START that this site may take part in, whatever the entries of its input are.

    Raises:
      RemoteProtocolError: The server proposes what this site did not agree to or has no input for, or an attempt that
        was admitted before.
    """
    context = RoundContext.decode(message.context)  # §2
    refuse_unless(context.digest == message.ctx, "START is bound to another context")
    last = config.admitted.get(context.run, (0, 0))
    refuse_unless((context.round, context.attempt) > last, "this attempt was admitted before")  # §6.1
    refuse_unless(config.site in context.cohort, "this site is not in the cohort")
    refuse_unless(context.roster == config.roster.digest, "the context names another roster than the pinned one")
    refuse_unless(set(context.cohort) <= set(config.roster.keys), "the cohort has a site that the roster lacks")
    refuse_unless(context.job == config.job, "the context names another job than this site agreed to")
    config.policy.check(context)
    _check_model_root(config.site, context, own, message.others)  # §2.4
    shapes = {k: (vector.dtype, vector.shape) for k, vector in own.vectors.items()}
    agreed = {k: (np.dtype(np.int64), (context.regions[k].length,)) for k in context.held(config.site)}
    refuse_unless(shapes == agreed, "the input is not of the regions that this site holds, or of another shape or type")
    return context


def check_entries(context: RoundContext, own: LocalInput) -> None:
    """§3.5: every entry within its bound; without noise, no region all zero. What comes of it depends on the records.

    Raises: SensitivityError: The input does not keep what the context promises, or would expose another site.
    """
    for k, vector in own.vectors.items():
        blocks = context.regions[k].blocks
        ends = np.cumsum([block.length for block in blocks])
        for block, part in zip(blocks, np.split(vector, ends[:-1]), strict=True):
            if int(part.max()) > block.bound or int(part.min()) < -block.bound:
                why = "it is not finite, or larger than any honest one; a lower learning_rate may help"
                raise SensitivityError(f"the update of region {k} is outside its bound: {why}")
        if not (own.noised or vector.any()):
            why = "the sum would be another site's; are its units dead? Another seed or more width may help"
            raise SensitivityError(f"the update of region {k} is all zero: {why}")


def _check_model_root(site: str, context: RoundContext, own: LocalInput, others: Mapping[int, bytes]) -> None:
    held = context.held(site)
    refuse_unless(set(others) == set(range(len(context.regions))) - set(held), "START does not list the other regions")
    refuse_unless(set(own.values_digests) == set(held), "this site trained on other regions than it holds")
    digests = dict(others)
    for k in held:
        region = context.regions[k]
        digests[k] = region_digest(k, region.length, region.holders, own.values_digests[k])
    root = model_root(own.plan_digest, [digests[k] for k in sorted(digests)])
    refuse_unless(root == context.model_root, "the context names another model than this site trained on")
