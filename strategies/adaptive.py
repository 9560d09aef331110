"""Servers that take the mean update for a gradient and adapt the step to each coordinate.

With ``Δ`` the mean update, ``m`` and ``v`` starting at 0, all operations by coordinate::

    m ← β1 m + (1 - β1) Δ
    v ← β2 v + (1 - β2) Δ²                       FedAdam
    v ← v - (1 - β2) Δ² sign(v - Δ²)             FedYogi
    v ← v + Δ²                                   FedAdagrad
    x ← x + η m / (√v + τ)

There is no bias correction, as in the paper. The paper starts ``v`` at no less than ``τ²``; here it starts at 0 as in
FLamby's released runs, so that figures compare: the first step of FedAdam is ``η (1 - β1) / √(1 - β2)`` in every
coordinate whose update is large against ``τ``.

See: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2; the defaults are its own:
  ``β1`` .9, ``β2`` .99, ``τ`` 1e-3.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from strategies.algorithm import LocalRule, WideVector, opening, released, require_fit, sealed
from strategies.contribution import Aggregate, Declared, Vector
from strategies.settings import require


@dataclass(frozen=True, eq=False)
class AdaptiveState:
    """The common model and the two moments of its updates; all shape ``(d,)``.

    Attributes:
      model: ``x``.
      momentum: ``m``.
      second_moment: ``v``, never negative.
    """

    model: WideVector
    momentum: WideVector
    second_moment: WideVector


@dataclass(frozen=True)
class _Adaptive(ABC):
    """What the three share.

    Attributes:
      server_learning_rate: ``η``, greater than 0.
      beta1: ``β1``, in ``[0, 1)``; 0 is no momentum.
      tau: ``τ``, greater than 0: coordinates whose updates are small against it move little.
    """

    name: ClassVar[str]
    declared: ClassVar[Declared] = Declared(arrays=("update",))
    local: ClassVar[LocalRule] = LocalRule()
    is_sum: ClassVar[bool] = True
    rests: ClassVar[bool] = False
    server_learning_rate: float = 0.01
    beta1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        require("server_learning_rate", self.server_learning_rate, low=0.0, above=True)
        require("beta1", self.beta1, low=0.0, below=1.0)
        require("tau", self.tau, low=0.0, above=True)

    @abstractmethod
    def second_moment(self, previous: WideVector, squared: WideVector) -> WideVector:
        """Returns the new ``v`` from the old one and ``Δ²``; all shape ``(d,)``."""

    def init(self, parameters: Vector) -> AdaptiveState:
        """Starts from the given model, shape ``(d,)``, with both moments 0."""
        nothing = np.zeros(parameters.shape)
        return AdaptiveState(opening(parameters), sealed(nothing), sealed(nothing))

    def broadcast(self, state: AdaptiveState) -> Mapping[str, Vector]:
        """Sites receive the model; the moments stay at the server."""
        return MappingProxyType({"model": released(state.model)})

    def apply(self, state: AdaptiveState, aggregate: Aggregate, share: float) -> AdaptiveState:
        """Takes one adaptive step; ``share`` does not matter here. See `Algorithm.apply`."""
        require_fit(aggregate, self.declared, state.model.size, share)
        update = aggregate.mean["update"]
        momentum = self.beta1 * state.momentum + (1.0 - self.beta1) * update
        second = self.second_moment(state.second_moment, update * update)
        step = self.server_learning_rate * momentum / (np.sqrt(second) + self.tau)
        return AdaptiveState(sealed(state.model + step), sealed(momentum), sealed(second))

    def parameters(self, state: AdaptiveState) -> Vector:
        """Returns the model, shape ``(d,)``."""
        return released(state.model)


@dataclass(frozen=True)
class _Decaying(_Adaptive):
    """An adaptive server that forgets.

    Attributes:
      beta2: ``β2``, in ``[0, 1)``.
    """

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        require("beta2", self.beta2, low=0.0, below=1.0)


@dataclass(frozen=True)
class FedAdam(_Decaying):
    """Adam at the server: ``v`` is a running mean of squared updates."""

    name: ClassVar[str] = "fedadam"

    def second_moment(self, previous: WideVector, squared: WideVector) -> WideVector:
        """``v ← β2 v + (1 - β2) Δ²``."""
        return self.beta2 * previous + (1.0 - self.beta2) * squared


@dataclass(frozen=True)
class FedYogi(_Decaying):
    """Yogi at the server: ``v`` moves towards the squared update by a step that does not depend on ``v``."""

    name: ClassVar[str] = "fedyogi"

    def second_moment(self, previous: WideVector, squared: WideVector) -> WideVector:
        """``v ← v - (1 - β2) Δ² sign(v - Δ²)``; never negative, as it shrinks only where ``v > Δ²``."""
        return previous - (1.0 - self.beta2) * squared * np.sign(previous - squared)


@dataclass(frozen=True)
class FedAdagrad(_Adaptive):
    """Adagrad at the server: ``v`` is the sum of all squared updates, so steps only get shorter."""

    name: ClassVar[str] = "fedadagrad"

    def second_moment(self, previous: WideVector, squared: WideVector) -> WideVector:
        """``v ← v + Δ²``."""
        return previous + squared
