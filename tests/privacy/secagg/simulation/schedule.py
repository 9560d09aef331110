"""What one seed decides before anything runs: cohort, thresholds, regions, ring, and how bad the network is."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Literal

import numpy as np

from privacy.keys.signing import SigningKey
from privacy.secagg.admission import LocalInput
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
from privacy.secagg.coordinator import CoordinatorConfig
from privacy.secagg.suite import RealSuite
from tests.privacy.secagg.ideal_suite import UnsafeIdealSuite
from tests.privacy.secagg.parties import JOB, PLAN, RUN, identity, random_input, site_ids, values_digest

SuiteName = Literal["real", "ideal"]
SUITES: dict[SuiteName, RealSuite] = {"real": RealSuite(), "ideal": UnsafeIdealSuite()}
MAX_ATTEMPTS = 3


@lru_cache
def signing_key(site: str) -> SigningKey:
    return identity(site)


@lru_cache
def roster(n: int) -> Roster:
    return Roster(1, {site: signing_key(site).public_key for site in (*site_ids(n), "spare")})


def source(*seed: object) -> Random:
    """Random choices of a schedule; none of them is a key."""
    return Random(hashlib.sha256(repr(seed).encode()).digest())  # noqa: S311 -- schedules must be reproducible


@dataclass(frozen=True)
class Network:
    """How bad it is.

    Attributes:
      drop: Probability that a message is lost.
      duplicate: Probability that it comes twice.
      delay: Longest delay, in seconds.
      crash: Probability that a site dies before any one effect, or behind a record.
      server_crash: Probability that the coordinator dies at any one event.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    crash: float = 0.0
    server_crash: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """One world; everything else in it follows from ``seed``.

    Attributes:
      seed: Of everything.
      suite: Cryptography.
      cohort: Sites.
      limits: Thresholds.
      regions: Who holds what.
      bits: Ring.
      fixed_set: §2.5; a retry then masks the same input again, else every attempt has a fresh one.
      rounds: How many.
      network: How bad.
      malicious: The server is not the coordinator but one that tries everything.
      active: Sites that obey the malicious server, at most ``n_c``.
      run: Run id.
      frozen: Regions that an attempt leaves out, by attempt from the first; numbered as in ``regions``.
      again: A retry masks the same input again, as under the unit `record` (§6.2).
    """

    seed: int
    suite: SuiteName
    cohort: tuple[str, ...]
    limits: Thresholds
    regions: tuple[Region, ...]
    bits: int = 32
    fixed_set: bool = False
    rounds: int = 1
    network: Network = Network()
    malicious: bool = False
    active: frozenset[str] = frozenset()
    run: bytes = RUN
    frozen: tuple[frozenset[int], ...] = ()
    again: bool = False

    @property
    def crypto(self) -> RealSuite:
        return SUITES[self.suite]

    @property
    def replay(self) -> str:
        return f"replay: python -m tests.privacy.secagg.simulation {self.seed} {self.suite}"

    def kept(self, attempt: int) -> tuple[int, ...]:
        """Returns which regions an attempt is over; its context numbers them anew."""
        frozen = self.frozen[attempt - 1] if attempt <= len(self.frozen) else frozenset()
        return tuple(k for k in range(len(self.regions)) if k not in frozen)

    def digests(self, attempt: int = 1) -> tuple[bytes, ...]:
        kept = [(k, self.regions[k]) for k in self.kept(attempt)]
        return tuple(region_digest(i, r.length, r.holders, values_digest(k)) for i, (k, r) in enumerate(kept))

    def context(self, number: int = 1, attempt: int = 1) -> RoundContext:
        regions = tuple(self.regions[k] for k in self.kept(attempt))
        return RoundContext(
            federation="simulation", run=self.run, round=number, attempt=attempt,
            roster=roster(len(self.cohort)).digest, cohort=self.cohort, thresholds=self.limits, bits=self.bits,
            fraction_bits=4, regions=regions, model_root=model_root(PLAN, self.digests(attempt)), job=JOB,
            purpose="a test", asset="numbers", durations=Durations(60, 60, 60, 60), fixed_set=self.fixed_set,
        )  # fmt: skip

    def coordinator(self, context: RoundContext) -> CoordinatorConfig:
        return CoordinatorConfig(context, roster(len(self.cohort)), self.digests(context.attempt), self.crypto)

    def input_id(self, context: RoundContext) -> tuple[int, int]:
        """Names the input of an attempt: with a fixed set, all attempts at a round have the same one."""
        return (context.round, 0 if self.fixed_set or self.again else context.attempt)

    def own(self, site: str, context: RoundContext) -> LocalInput:
        """Returns the site's input by its own plan, whatever regions the server shows it."""
        seed = (self.seed, self.cohort.index(site), *self.input_id(context))
        whole = replace(self, frozen=()).context(context.round)
        own = random_input(whole, site, np.random.default_rng(seed))
        for vector in own.vectors.values():
            vector[0] = vector[0] or 1  # §3.5: an all-zero update is refused
        held = {i: k for i, k in enumerate(self.kept(context.attempt)) if k in own.vectors}
        return LocalInput(
            {i: own.vectors[k] for i, k in held.items()}, PLAN, {i: values_digest(k) for i, k in held.items()}
        )


def _limits(r: Random, n: int) -> Thresholds:
    usual = default_n_c(n)
    n_c = r.choice([0, usual, usual, usual, min(usual + 1, n - 2)])
    least = thresholds(n, n_c)
    t = r.choice([least.t, least.t, least.t, r.randint(least.t, n)])
    floor = max(t, least.min_survivors)
    survivors = r.choice([floor, floor, r.randint(floor, n)])
    cover = r.choice([least.min_cover, least.min_cover, least.min_cover + r.randint(0, 2)])
    return Thresholds(n_c, t, survivors, cover)


def _regions(r: Random, cohort: tuple[str, ...]) -> tuple[Region, ...]:
    def blocks() -> tuple[Block, ...]:
        return tuple(Block(r.randint(1, 6), r.choice([3, 1000, 2**24])) for _ in range(r.randint(1, 2)))

    count = r.choice([1, 2, 2, 3, 3])
    whole = r.random() < 0.8
    holders = [cohort if whole else tuple(sorted(r.sample(cohort, r.randint(3, len(cohort)))))]
    holders += [tuple(sorted(r.sample(cohort, r.randint(2, len(cohort))))) for _ in range(count - 1)]
    r.shuffle(holders)
    return tuple(Region(held, blocks()) for held in holders)


def draw(seed: int, suite: SuiteName) -> Schedule:
    """Returns the schedule of ``seed``."""
    r = source("schedule", seed)
    n = r.choice([3, 4, 4, 5, 5, 6, 6, 7, 7, 7] * 3 + [10])
    cohort = site_ids(n)
    limits = _limits(r, n)
    malicious = r.random() < 0.3
    bad = r.choice([0.0, 0.0, 0.02, 0.1, 0.25])
    network = Network(
        drop=bad,
        duplicate=r.choice([0.0, 0.05, 0.2]),
        delay=r.choice([0.1, 3.0, 25.0]),
        crash=r.choice([0.0, 0.0, 0.005, 0.02]),
        server_crash=r.choice([0.0, 0.0, 0.0, 0.005]),
    )
    return Schedule(
        seed=seed, suite=suite, cohort=cohort, limits=limits, regions=_regions(r, cohort), bits=r.choice([32, 64]),
        fixed_set=r.random() < 0.15, rounds=r.choice([1, 1, 2]), network=network, malicious=malicious,
        active=frozenset(r.sample(cohort, r.randint(0, limits.n_c))) if malicious else frozenset(),
    )  # fmt: skip
