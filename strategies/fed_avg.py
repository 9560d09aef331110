"""Federated averaging, and the same server under sites that are held near the common model.

The server adds the weighted mean of the updates with learning rate 1, which is the weighted mean of the sites'
models: ``x ← x + Δ``.

See: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", Algorithm 1;
  Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2 (FedProx).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from strategies.algorithm import LocalRule, WideVector, opening, released, require_fit, sealed
from strategies.contribution import Aggregate, Declared, Vector
from strategies.settings import require


@dataclass(frozen=True, eq=False)
class FedAvgState:
    """The common model and nothing else.

    Attributes:
      model: ``x``, shape ``(d,)``.
    """

    model: WideVector


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging; without settings."""

    name: ClassVar[str] = "fedavg"
    declared: ClassVar[Declared] = Declared(arrays=("update",))
    is_sum: ClassVar[bool] = True
    rests: ClassVar[bool] = True

    @property
    def local(self) -> LocalRule:
        """Plain gradient descent."""
        return LocalRule()

    def init(self, parameters: Vector) -> FedAvgState:
        """Starts from the given model, shape ``(d,)``."""
        return FedAvgState(opening(parameters))

    def broadcast(self, state: FedAvgState) -> Mapping[str, Vector]:
        """Sites receive the model."""
        return MappingProxyType({"model": released(state.model)})

    def apply(self, state: FedAvgState, aggregate: Aggregate, share: float) -> FedAvgState:
        """Adds the mean update; ``share`` does not matter here. See `Algorithm.apply`."""
        require_fit(aggregate, self.declared, state.model.size, share)
        return FedAvgState(sealed(state.model + aggregate.mean["update"]))

    def parameters(self, state: FedAvgState) -> Vector:
        """Returns the model, shape ``(d,)``."""
        return released(state.model)


@dataclass(frozen=True)
class FedProx(FedAvg):
    """Federated averaging of sites that minimise ``F_i(y) + μ/2 |y - x|²``.

    Attributes:
      mu: ``μ``, at least 0; 0 is federated averaging.
    """

    name: ClassVar[str] = "fedprox"
    mu: float = 0.01

    def __post_init__(self) -> None:
        require("mu", self.mu, low=0.0)

    @property
    def local(self) -> LocalRule:
        """Gradient descent with the proximal term."""
        return LocalRule(proximal=self.mu)
