"""The shape that every algorithm has: ``init`` and ``apply`` over a frozen state.

An algorithm is a value without state of its own. The driver holds the state, shows sites what `Algorithm.broadcast`
returns, averages what comes back and calls `Algorithm.apply`, which answers with a new state and leaves the old one
as it was: a round can be repeated, resumed and tested without Flower. Nothing here draws random numbers.

::

    state = algorithm.init(initial model)
    in every round:
        sites receive algorithm.broadcast(state), train by algorithm.local, send what algorithm.declared names
        aggregate = weighted_mean(contributions of the survivors, weights)
        state = algorithm.apply(state, aggregate, aggregate.weight / math.fsum(weights of all sites))
    the model is algorithm.parameters(state)

Symbols: ``d`` parameters; ``x`` the model; ``Δ`` the weighted mean of the survivors' updates ``y_i - x``.
Sign and unit: an update is added, so it points downhill, the opposite of a gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from strategies.contribution import Aggregate, Declared, Vector

S = TypeVar("S")

WideVector: TypeAlias = NDArray[np.float64]
"""A vector as the server keeps it, shape ``(d,)``, read-only: small server steps would be lost in float32."""


@dataclass(frozen=True)
class LocalRule:
    """How a site's steps differ from plain gradient descent; public.

    Attributes:
      proximal: ``μ`` of FedProx: ``μ (y - x)`` is added to the gradient.
      control: Whether the gradient is corrected by control variates, ``g - c_i + c`` (Scaffold).
    """

    proximal: float = 0.0
    control: bool = False


class Algorithm(Protocol[S]):
    """One way to turn the sites' contributions into a model."""

    @property
    def name(self) -> str:
        """The name that people type."""

    @property
    def declared(self) -> Declared:
        """Everything that a site sends in a round."""

    @property
    def local(self) -> LocalRule:
        """What a site does differently from plain gradient descent."""

    @property
    def is_sum(self) -> bool:
        """Whether `apply` needs no more than the weighted sum, so that secure aggregation can serve it."""

    @property
    def rests(self) -> bool:
        """Whether a coordinate whose mean update is 0 keeps its value, so that regions of a model can stand still."""

    def init(self, parameters: Vector) -> S:
        """Returns the state before round 1.

        Args:
          parameters: The initial model, shape ``(d,)``, finite. Public.

        Raises: ValueError: Another shape or type, or an entry that is not finite: the caller's bug.
        """

    def broadcast(self, state: S) -> Mapping[str, Vector]:
        """Returns what every site of a cohort receives: ``model``, and more where the algorithm says so."""

    def apply(self, state: S, aggregate: Aggregate, share: float) -> S:
        """Returns the state after a round; ``state`` is left as it was.

        Args:
          state: Before the round.
          aggregate: Weighted mean over the survivors, with exactly the declared arrays, each shape ``(d,)``.
          share: Weight of the survivors over the weight of all sites of the federation, in ``(0, 1]``.

        Raises: ValueError: An aggregate with other arrays or shapes, or an impossible share: the caller's bug.
        """

    def parameters(self, state: S) -> Vector:
        """Returns the model, shape ``(d,)``, float32, read-only."""


def opening(parameters: Vector) -> WideVector:
    """Returns a sealed copy of an initial model.

    Raises: ValueError: It is not what `Algorithm.init` promises to take.
    """
    if parameters.ndim != 1 or parameters.dtype != np.float32 or not np.isfinite(parameters).all():
        raise ValueError("an initial model is one finite float32 vector")
    return sealed(parameters)


def sealed(values: NDArray[np.floating]) -> WideVector:
    """Returns a read-only float64 copy, fit to be a field of a frozen state."""
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def released(values: WideVector) -> Vector:
    """Returns a read-only float32 copy, fit to be sent."""
    with np.errstate(over="ignore"):  # a diverged model is infinite; whoever takes it checks that
        vector = values.astype(np.float32)
    vector.setflags(write=False)
    return vector


def require_fit(aggregate: Aggregate, declared: Declared, size: int, share: float) -> None:
    """Checks the arguments of an `Algorithm.apply`.

    Raises: ValueError: They are not what `Algorithm.apply` promises to take.
    """
    if set(aggregate.mean) != set(declared.arrays):
        raise ValueError(f"the aggregate holds {sorted(aggregate.mean)}, declared are {sorted(declared.arrays)}")
    for name, values in aggregate.mean.items():
        if values.shape != (size,):
            raise ValueError(f"{name!r} of the aggregate has shape {values.shape}, not ({size},)")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share {share} is not in (0, 1]")
