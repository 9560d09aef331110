"""The release path whose noise the server adds: every site constrains its update, the sum gets the noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.conformance.path import Arithmetics, Placement, Vectors
from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy
from privacy.dp.plan import SitePlan, SumPlan


@dataclass(frozen=True)
class NoisedSum:
    """A `ReleasePath`. All fields are public."""

    plan: SitePlan
    dimension: int
    n_units: int
    placement: Placement = "central"
    path: Arithmetics = "integer"
    n_keys: int = 1

    @property
    def scale(self) -> float:
        """See `ReleasePath`."""
        return float(self.plan.noise_multiplier)

    @property
    def grid(self) -> ClippedSum:
        """See `ReleasePath`."""
        return self.plan.mechanism

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        """See `ReleasePath.release`."""
        return np.asarray(self.plan.noised(over_sites(self.plan, vectors), entropy) / self.plan.units)


def over_sites(plan: SumPlan, vectors: Vectors) -> npt.NDArray[np.int64]:
    """Sums updates as the sites of a round do, each having constrained its own; shape ``(d,)``, grid units."""
    return sum((plan.mechanism.constrain(row[None]) for row in vectors), np.zeros(vectors.shape[1], np.int64))
