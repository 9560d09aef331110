"""What every party of a joint answer computes for itself from the charter: who is in the sum, its grid, its noise.

The asker's process is FSA1's coordinator, and nobody trusts it: an agent takes part only in the one context that it
would have written itself (`Terms.context`). A contribution is the agent's score vector of every query, on a grid of
units, times its public gate weight.

Symbols: ``n`` queries, ``k`` classes, ``w_i`` gate weight of agent i, ``w`` the largest, ``g`` units that stand for a
score of 1 of the heaviest agent, ``s`` a score vector, ``a = floor(g s w_i / w)`` what of it is added up.

It is rounded once, after the weight: a sum of ``w_i floor(g s_i)`` would tell one agent's scores modulo what divides
all the other weights.

Sensitivity, where the charter asks for noise. The unit is one agent's score vector of one query, replaced by any other.
Entries of ``a`` are whole and not negative, and sum to at most ``g w_i / w <= g``: checked once they are rounded, and
before noise. For two of them ``|a| <= g``, ``|b| <= g`` (a 2-norm is at most the 1-norm) and ``a b >= 0``, so
``|a - b|^2 = |a|^2 + |b|^2 - 2 a b <= 2 g^2``: at most ``sqrt(2) g`` apart at any weight, exactly.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np
import numpy.typing as npt

from privacy.audit.testimony import keys_of
from privacy.charter.document import Charter
from privacy.charter.inference import AnswerNoise
from privacy.dp.accounting import epsilon
from privacy.dp.events import Relation, SkellamEvent
from privacy.dp.noise import Entropy, skellam_exact
from privacy.dp.skellam import DistributedNoise
from privacy.errors import PrivacyError, SensitivityError
from privacy.secagg.context import (
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    Thresholds,
    default_n_c,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.encoding import digest, u64
from privacy.store.answers import ANSWERS_ASSET
from strategies.secure_sum import BITS, run_digest
from strategies.study import Study

Queries = npt.NDArray[np.float32]
"""Encoded rows, shape ``(n, inputs)``. Secret from nobody in the fixed set: every agent sees them."""
Scores = npt.NDArray[np.float64]
"""Shape ``(n, k)``; each row not negative and summing to one."""
FRACTION_BITS = 24
_ROOT_TWO = Decimal("1.414213562373095049")  # rounded up


@dataclass(frozen=True)
class Terms:
    """Everything that the parties of one asker's ensemble answers agree on; all public.

    Attributes:
      charter: Digest, hex.
      study: Digest, hex.
      agents: The fixed set S, sorted; without noise nothing but the sum over all of them is ever opened.
      weights: Gate weight by agent, whole numbers from 1.
      classes: k.
      model: What every agent answers with: ``home``, or ``run:NAME``. Of a sum of both, whoever has the run's model
        could work out what the others said at home.
      noise: ``None``: none.
      asker: Whose process coordinates; counts as a colluder where it is an agent itself.
    """

    federation: str
    charter: str
    study: str
    roster: Roster
    agents: tuple[str, ...]
    weights: Mapping[str, int]
    classes: int
    model: str
    asker: str
    purpose: str
    noise: AnswerNoise | None

    @classmethod
    def of(cls, charter: Charter, study: Study, *, model: str, asker: str, purpose: str) -> "Terms":
        """Reads the terms off the charter in force. Raises: PrivacyError: It allows no joint inference."""
        allowed = charter.inference
        if allowed is None:
            raise PrivacyError("the charter allows no joint inference", hint="Amend it: docs/how-to-joint.md.")
        return cls(
            charter.federation, charter.digest, study.digest, Roster(charter.version, keys_of(charter)),
            allowed.agents, allowed.weights, classes_of(study), model, asker, purpose, allowed.noise,
        )  # fmt: skip

    @cached_property
    def run(self) -> bytes:
        """What contexts call this asker's questions; 16 bytes."""
        return run_digest(f"joint inference\0{self.charter}\0{self.asker}")

    @property
    def job(self) -> bytes:
        """What was agreed, but for the queries."""
        named = self.asker.encode(), self.model.encode()
        return digest("job/answers", bytes.fromhex(self.charter), bytes.fromhex(self.study), *named)

    @cached_property
    def thresholds(self) -> Thresholds:
        """Those of FSA1, against at least one colluder where the asker is an agent."""
        n = len(self.agents)
        return thresholds(n, max(default_n_c(n), int(self.asker in self.agents)))

    @cached_property
    def shares(self) -> DistributedNoise | None:
        """Noise that the agents add together, at the heaviest agent's sensitivity; ``None`` without noise."""
        if self.noise is None:
            return None
        floors = self.thresholds
        return DistributedNoise(_ROOT_TWO, self.noise.multiplier, floors.min_survivors - floors.n_c, self.classes)

    @cached_property
    def grid(self) -> int:
        """g: with noise, as fine as an exact sampler's shares allow."""
        if self.shares is None:
            return 1 << FRACTION_BITS
        return math.isqrt(self.shares.l2**2 // 2)

    def event(self, n_queries: int) -> SkellamEvent | None:
        """Returns what a batch costs every agent in it; ``None`` without noise."""
        return None if self.shares is None else self.shares.event(n_queries)

    def epsilon(self, n_queries: int) -> float | None:
        """Prices a batch by itself, at the charter's delta; ``None`` without noise."""
        event = self.event(n_queries)
        if event is None or self.noise is None:
            return None
        return epsilon([event], self.noise.delta, Relation.REPLACE_SPECIAL, "RDP")

    def region(self, n_queries: int, queries: bytes) -> tuple[Region, bytes]:
        """Returns the one region of a batch and its digest; ``queries`` is their `queries_digest`."""
        bound = self.grid if self.shares is None else self.shares.bound(len(self.agents), bits=BITS)
        region = Region(self.agents, (Block(n_queries * self.classes, bound),))
        return region, region_digest(0, region.length, self.agents, queries)

    @property
    def plan_digest(self) -> bytes:
        """What fixes the sum: its grid and its weights."""
        weights = (part for site in self.agents for part in (site.encode(), u64(self.weights[site])))
        return digest("plan/answers", u64(self.grid), u64(self.classes), *weights)

    def context(self, queries: Queries, number: int, durations: Durations) -> RoundContext:
        """Returns the one context under which these queries may be answered.

        Args:
          queries: Named by their digest, so that nobody answers others under it.
          number: Of the batch; grows with every batch of this asker.
          durations: The asker's; an agent waits no longer than its own limit.

        Raises: ConfigError: No sum of that many agents or queries can be protected.
        """
        region, held = self.region(len(queries), queries_digest(queries))
        return RoundContext(
            federation=self.federation,
            run=self.run,
            round=number,
            attempt=1,
            roster=self.roster.digest,
            cohort=self.agents,
            thresholds=self.thresholds,
            bits=BITS,
            fraction_bits=0 if self.shares else FRACTION_BITS,
            regions=(region,),
            model_root=model_root(self.plan_digest, [held]),
            job=self.job,
            purpose=self.purpose,
            asset=ANSWERS_ASSET,
            durations=durations,
            fixed_set=self.noise is None,
        )

    def units(self, scores: Scores, site: str, entropy: Entropy) -> npt.NDArray[np.int64]:
        """Returns an agent's contribution, shape ``(n * k,)``, grid units, with its share of the noise. Secret.

        Raises: SensitivityError: Not one probability vector a query.
        """
        if scores.ndim != 2 or scores.shape[1] != self.classes or not np.isfinite(scores).all():
            raise SensitivityError(f"a score vector has {self.classes} finite entries")
        whole = self.grid * self.weights[site]
        units = np.floor(scores * (whole / self._heaviest)).astype(np.int64)
        if units.min() < 0 or units.sum(axis=1).max() > whole // self._heaviest:
            raise SensitivityError("a score vector is not negative and sums to one")
        if self.shares is None:
            return units.reshape(-1)
        # As many shares as the signed context lets into the sum, less those of colluders; fresh for every batch.
        return units.reshape(-1) + skellam_exact(self.shares.share_variance(), units.size, entropy)

    def mean(self, total: npt.NDArray[np.int64], survivors: tuple[str, ...]) -> Scores:
        """Returns the weighted mean score vectors that an opened sum, shape ``(n * k,)``, stands for."""
        weight = sum(self.weights[site] for site in survivors) / self._heaviest
        return total.reshape(-1, self.classes).astype(np.float64) / (self.grid * weight)

    @property
    def _heaviest(self) -> int:
        return max(self.weights.values())


def classes_of(study: Study) -> int:
    """Returns k: a study with one logit has two classes."""
    return study.task.target.classes


def queries_digest(queries: Queries) -> bytes:
    """Returns SHA-256 of a batch, its shape included."""
    shape = b"".join(u64(extent) for extent in queries.shape)
    return hashlib.sha256(shape + np.ascontiguousarray(queries, "<f4").tobytes()).digest()
