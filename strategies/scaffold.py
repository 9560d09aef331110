"""Stochastic controlled averaging: sites steer by the common direction instead of each by its own.

Every site ``i`` keeps a control variate ``c_i``, the server keeps ``c``; all start at 0, and ``c`` is always the
weighted mean of the ``c_i``. In a round, a site that starts at ``x`` takes ``K`` steps ``y ← y - lr (g - c_i + c)``,
then (option II) sets ``c_i ← c_i - c + (x - y) / (K lr)`` and sends its update ``y - x`` and the change of ``c_i``.
The server::

    x ← x + η Δ
    c ← c + share · (weighted mean of the changes)

``share`` is the paper's ``|S| / N`` in weights: a site that did not answer keeps its ``c_i``. Option II makes ``c_i``
the mean gradient along the path that was walked, so a privately computed path needs no further budget; option I would
look at the data once more and is not offered.

See: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from strategies.algorithm import LocalRule, WideVector, opening, released, require_fit, sealed
from strategies.contribution import Aggregate, Declared, Vector
from strategies.settings import require


@dataclass(frozen=True, eq=False)
class ScaffoldState:
    """The common model and the common direction; both shape ``(d,)``.

    Attributes:
      model: ``x``.
      control: ``c``, in units of a gradient.
    """

    model: WideVector
    control: WideVector


@dataclass(frozen=True)
class Scaffold:
    """Scaffold with option II.

    Attributes:
      server_learning_rate: ``η``, greater than 0.
    """

    name: ClassVar[str] = "scaffold"
    declared: ClassVar[Declared] = Declared(arrays=("update", "control"))
    local: ClassVar[LocalRule] = LocalRule(control=True)
    is_sum: ClassVar[bool] = True
    rests: ClassVar[bool] = False
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        require("server_learning_rate", self.server_learning_rate, low=0.0, above=True)

    def init(self, parameters: Vector) -> ScaffoldState:
        """Starts from the given model, shape ``(d,)``, with no direction."""
        return ScaffoldState(opening(parameters), sealed(np.zeros(parameters.shape)))

    def broadcast(self, state: ScaffoldState) -> Mapping[str, Vector]:
        """Sites receive the model and ``c``."""
        return MappingProxyType({"model": released(state.model), "control": released(state.control)})

    def apply(self, state: ScaffoldState, aggregate: Aggregate, share: float) -> ScaffoldState:
        """Moves the model and the common direction. See `Algorithm.apply`."""
        require_fit(aggregate, self.declared, state.model.size, share)
        return ScaffoldState(
            model=sealed(state.model + self.server_learning_rate * aggregate.mean["update"]),
            control=sealed(state.control + share * aggregate.mean["control"]),
        )

    def parameters(self, state: ScaffoldState) -> Vector:
        """Returns the model, shape ``(d,)``."""
        return released(state.model)


def next_control(own: Vector, common: Vector, update: Vector, *, steps: int, learning_rate: float) -> Vector:
    """Returns a site's control variate after a round, by option II: ``c_i - c + (x - y) / (K lr)``.

    The change of it, the new one minus ``own``, is what the site sends as ``control``.

    Args:
      own: ``c_i`` before the round, shape ``(d,)``. Secret.
      common: ``c`` as received, shape ``(d,)``.
      update: ``y - x``, shape ``(d,)``. Secret, unless it is noised already.
      steps: ``K``, the steps taken, at least 1.
      learning_rate: ``lr`` of those steps, greater than 0.

    Returns: Shape ``(d,)``, float32; computed in float64. As secret as ``own`` and ``update``.
    Raises: ValueError: Vectors of different shapes, no steps, or no learning rate: the caller's bug.
    See: Karimireddy et al. 2020, Algorithm 1, line 12 (ii).
    """
    if not own.shape == common.shape == update.shape:
        raise ValueError(f"shapes {own.shape}, {common.shape} and {update.shape} differ")
    if steps < 1 or not learning_rate > 0.0:
        raise ValueError("option II needs at least one step and a positive learning rate")
    walked = update.astype(np.float64) / (steps * learning_rate)
    control: Vector = (own.astype(np.float64) - common - walked).astype(np.float32)
    return control
