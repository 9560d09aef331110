"""A site tests the noise on what leaves it through a chain, before anything does: no run or question begins without.

Made-up rows take the path that a record's values take, `Releaser.values`, under each release with noise of the plan;
A1 to A5 of `privacy.conformance` look at what comes out, and must find the defects that are made on purpose. Nothing of
it is stated to anybody: who does not pass lets nothing leave.

Symbols: ``u`` rows, ``d`` entries of a row, ``C`` clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch

from clients.chain.payer import Leaves
from clients.chain.released import Releaser
from privacy.conformance.path import Arithmetics, PathOf, Placement, Vectors
from privacy.conformance.statements import stated
from privacy.conformance.tests import conformance_of
from privacy.dp.noise import Entropy
from privacy.store.books import Link
from strategies.chain_plan import ChainPlan, leaving
from strategies.release import Crossing, Release


def check_chain(plan: ChainPlan, entropy: Entropy, *, who: str) -> None:
    """Tests the noise of every release of a plan.

    Args:
      plan: The chain; one without noise has nothing to test.
      entropy: Randomness, in production ``secrets.token_bytes``.
      who: Whose records leave, for the message.

    Raises: PrivacyError: A test failed, or one does not find a defect: nothing may leave. By chance, once in 10,000.
    """
    noised = {release: what for what, release in leaving(plan).items() if isinstance(release, Release)}
    stated([conformance_of(_path_of(plan, what, release), entropy) for release, what in noised.items()], who=who)


def _path_of(chain: ChainPlan, what: Crossing, release: Release) -> PathOf:
    def built(dimension: int, n_units: int) -> _Rows:
        return _Rows(release, chain, what, dimension, n_units)

    return built


class _Nobody:
    """Pays for made-up rows: there is nobody whose budget they could cost."""

    def pay(self, what: Leaves) -> tuple[Link, ...]:
        del what
        return ()

    def released(self, links: Sequence[Link]) -> None:
        del links


@dataclass(frozen=True)
class _Rows:
    """Every unit is a row; what is looked at is the sum of the rows that would leave."""

    plan: Release
    chain: ChainPlan
    what: Crossing
    dimension: int
    n_units: int
    placement: Placement = "local"
    path: Arithmetics = "float"
    n_keys: int = 1
    grid: None = None

    @property
    def scale(self) -> float:
        return self.plan.noise * sqrt(self.n_units)

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        releaser = Releaser(self.chain, payer=_Nobody(), entropy=entropy, record=lambda _record: None)
        releaser.pay(1)
        releaser.admit(None)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there, and a row like any other
            rows = torch.from_numpy(vectors.astype(np.float32))
        return np.asarray(releaser.values(self.what, rows).double().sum(dim=0).numpy() / self.plan.clip)
