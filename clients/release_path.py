"""The production path from vectors of units to what may leave, as one function that an audit can call.

Nothing is imitated: vectors enter as gradients or updates, and clipping, sampling, noise and denominator are those of a
run. Whoever wants to see a release without its noise calls `release` twice with the same randomness and subtracts; no
switch turns the noise off.

How a vector becomes a record's gradient: of a linear model without intercept, weights 0, and one record ``(x, y)``, the
gradient of the binary loss is ``(sigmoid(0) - y) x``, so that ``x = 2 v`` and ``y = 0`` give v (to float32). A patient
is two records of half the vector each: then a clip per record shows.

Symbols: ``u`` units, ``d`` entries of a vector, ``C`` clip.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import skip_init

from clients.clipping import INTEGER_PARAMETERS
from clients.records import Records
from clients.training import integer_sum, private_gradient
from privacy.conformance.path import Arithmetics, Placement, ReleasePath, Vectors
from privacy.conformance.sums import NoisedSum, over_sites
from privacy.dp.events import Arithmetic, SamplingType
from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.errors import UnsupportedEventError
from strategies.losses import record_losses


def path_of(plan: PrivacyPlan, *, dimension: int, n_units: int, floating: bool = False) -> ReleasePath:
    """Returns the path that a run with this plan takes.

    Args:
      plan: Clip, noise and sampling are used as they are; a record plan's number of units becomes ``n_units``.
      dimension: d >= 1; at most 4,096 for a record plan on the integer path, as in a run.
      n_units: Rows of every release.
      floating: Take the path of large models; record plans only.

    Raises: UnsupportedEventError: No such path.
    """
    torch.set_num_threads(1)  # as in training
    if isinstance(plan, RecordPlan):
        return _Steps.of(plan, dimension, n_units, floating=floating)
    if isinstance(plan, SitePlan) and not floating:
        return NoisedSum(plan, dimension, n_units)
    if isinstance(plan, DistributedPlan) and not floating:
        return _Shares(plan, dimension, n_units)
    raise UnsupportedEventError("there is no such release path")


class _Large(nn.Module):
    """A linear model beside frozen parameters, which make it one that takes the float path."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.frozen = nn.Parameter(torch.zeros(INTEGER_PARAMETERS), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x)
        return logits


@dataclass(frozen=True)
class _Steps:
    """Noise in a training step: the model's gradient after `private_gradient`."""

    plan: RecordPlan
    path: Arithmetics
    dimension: int
    placement: Placement = "local"

    @classmethod
    def of(cls, plan: RecordPlan, dimension: int, n_units: int, *, floating: bool) -> "_Steps":
        if not floating and dimension > INTEGER_PARAMETERS:
            raise UnsupportedEventError(f"models of {dimension} parameters do not take the integer path")
        own = replace(plan, n_records=n_units, arithmetic=Arithmetic.FLOAT if floating else plan.arithmetic)
        return cls(own, "float" if floating else "integer", dimension)

    @property
    def n_units(self) -> int:
        return self.plan.n_records

    @property
    def scale(self) -> float:
        return float(self.plan.noise_multiplier)

    @property
    def n_keys(self) -> int:
        # A full batch draws a key for its coins, too, and all come up.
        return 2 if self.plan.sampling.type is SamplingType.POISSON else 1

    @property
    def grid(self) -> ClippedSum | None:
        return self.plan.mechanism if self.path == "integer" else None

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        private_gradient(_records(vectors, self.plan.unit), self.plan, entropy=entropy)(self._model, 0)
        (trained,) = (each for each in self._model.parameters() if each.requires_grad)
        if trained.grad is None:
            raise UnsupportedEventError("a training step released nothing")
        mean = trained.grad.reshape(-1).double().numpy()
        return np.asarray(mean * (self.plan.expected_batch / float(self.plan.clip)))

    @cached_property
    def _model(self) -> nn.Module:
        """A step sets the gradient of its parameter, never the parameter."""
        linear = _linear(self.dimension)
        return _Large(linear) if self.path == "float" else linear


@dataclass(frozen=True)
class _Shares:
    """Every site constrains its update, or its records' gradients; the shares counted on make the noise."""

    plan: DistributedPlan
    dimension: int
    n_units: int
    placement: Placement = "distributed"
    path: Arithmetics = "integer"

    @property
    def scale(self) -> float:
        return sqrt(self.n_keys * self.plan.noise.share_variance()) / self.plan.units

    @property
    def n_keys(self) -> int:
        return self.plan.noise.counted

    @property
    def grid(self) -> ClippedSum:
        return self.plan.mechanism

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        total = self._sum(vectors)
        for _ in range(self.plan.noise.counted):
            total = total + self.plan.share(self.dimension, self.plan.noise.counted + self.plan.colluders, entropy)
        return np.asarray(total / self.plan.units)

    def _sum(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        if self.plan.unit is Unit.SITE:
            return over_sites(self.plan, vectors)
        records, sizes = _records(vectors, self.plan.unit).of_units(np.ones(len(vectors), dtype=np.bool_))
        batch = torch.from_numpy(records.x), torch.from_numpy(records.y), sizes
        return integer_sum(self._model, record_losses, batch, self.plan.mechanism)

    @cached_property
    def _model(self) -> nn.Linear:
        return _linear(self.dimension)


def _linear(dimension: int) -> nn.Linear:
    # Without a draw from torch's generator, which is the application's.
    linear: nn.Linear = skip_init(nn.Linear, dimension, 1, bias=False)  # type: ignore[no-untyped-call]
    nn.init.zeros_(linear.weight)
    return linear


def _records(vectors: Vectors, unit: Unit) -> Records:
    """Returns records whose gradients, added up for each unit, are the vectors."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there, and a record like any other
        if unit is not Unit.PATIENT:
            return Records((2.0 * vectors).astype(np.float32), np.zeros(len(vectors), np.float32))
        halves = np.repeat(vectors, 2, axis=0).astype(np.float32)
    return Records(halves, np.zeros(len(halves), np.float32), np.repeat(np.arange(len(vectors)), 2))
