"""What may leave a site, whether it does leave in that form, and the weighted mean of what arrived.

Symbols: ``d`` parameters of the model, ``n`` survivors of the round.

A site declares nothing of its own: the algorithm names every array and every scalar (`Declared`), the site checks what
it is about to send and the server checks what it got, with the same function. Values never appear in a message.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import LocalProtocolError, RemoteProtocolError
from strategies.task import SiteId

Vector: TypeAlias = NDArray[np.float32]
"""All parameters of a model, or a change of them, in the order of a layout: shape ``(d,)``."""

_NAME_LENGTH = 40
"""Characters of a peer's name for something that are repeated in a message."""


@dataclass(frozen=True)
class Declared:
    """The names of everything that may leave a site in one round; public and fixed before the run.

    Attributes:
      arrays: Vectors of shape ``(d,)``.
      scalars: Single numbers, such as a training loss.
    """

    arrays: tuple[str, ...]
    scalars: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one site sends in one round. Secret until it is masked or noised.

    Attributes:
      arrays: Vectors by name, each shape ``(d,)``, float32.
      scalars: Numbers by name.
    """

    arrays: Mapping[str, Vector]
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The weighted mean over the survivors of a round.

    Attributes:
      mean: Arrays by name, each shape ``(d,)``, float64, read-only.
      weight: Exactly rounded sum of the survivors' weights, so it never exceeds ``math.fsum`` over all sites.
      scalars: Weighted means of the scalars, by name.
    """

    mean: Mapping[str, NDArray[np.float64]]
    weight: float
    scalars: Mapping[str, float] = field(default_factory=dict)


def violation(contribution: Contribution, declared: Declared, size: int) -> str | None:
    """Says how a contribution differs from what was declared.

    Args:
      contribution: What is sent or was received. Secret: the answer names things, it never shows a value.
      declared: What may leave the site.
      size: ``d``.

    Returns: One plain clause, or None if the contribution is exactly as declared: same names, every array float32 of
      shape ``(d,)``, every number finite.
    """
    return next(_violations(contribution, declared, size), None)


def check_sent(contribution: Contribution, declared: Declared, size: int) -> None:
    """Checks at the site, before anything leaves it.

    Raises: LocalProtocolError: The contribution is not as declared.
    """
    if reason := violation(contribution, declared, size):
        raise LocalProtocolError(f"nothing was sent: {reason}")


def check_received(contribution: Contribution, declared: Declared, size: int, *, site_id: SiteId) -> None:
    """Checks at the server, before anything is summed.

    Raises: RemoteProtocolError: The contribution is not as declared; drop the site.
    """
    if reason := violation(contribution, declared, size):
        raise RemoteProtocolError(f"{site_id}: {reason}", site_id=site_id, phase="train")


def weighted_mean(contributions: Sequence[tuple[SiteId, Contribution]], weights: Mapping[SiteId, float]) -> Aggregate:
    """Averages contributions with public weights.

    Guarantees: float64 throughout, ``(w_1 x_1 + w_2 x_2 + …) / (w_1 + w_2 + …)`` summed strictly in the order given,
    so the same contributions in the same order give the same bits in every engine.

    Args:
      contributions: Those that passed `check_received`, in the order of the federation's site list.
      weights: Public weight per site; sites that did not answer may be listed too.

    Raises: ValueError: No contribution, a site twice, a weight that is missing, not positive or not finite, or
      contributions with different names: the caller's bug.
    """
    sites = [site for site, _ in contributions]
    if not sites or len(set(sites)) != len(sites):
        raise ValueError("a mean needs at least one contribution and each site at most once")
    for site in sites:
        if site not in weights or not (math.isfinite(weights[site]) and weights[site] > 0):
            raise ValueError(f"{site} has no positive, finite weight")
    first = contributions[0][1]
    for site, contribution in contributions:
        if (set(contribution.arrays), set(contribution.scalars)) != (set(first.arrays), set(first.scalars)):
            raise ValueError(f"{site} contributes other names than {sites[0]}")
    total = math.fsum(weights[site] for site in sites)
    mean = {name: _mean([(c.arrays[name], weights[site]) for site, c in contributions], total) for name in first.arrays}
    scalars = {
        name: math.fsum(c.scalars[name] * weights[site] for site, c in contributions) / total for name in first.scalars
    }
    return Aggregate(MappingProxyType(mean), total, MappingProxyType(scalars))


def _mean(weighted: Sequence[tuple[Vector, float]], total: float) -> NDArray[np.float64]:
    accumulated = np.zeros(weighted[0][0].shape, dtype=np.float64)
    for vector, weight in weighted:  # a plain loop: np.sum pairs terms up in an order of its own
        accumulated += vector.astype(np.float64) * weight
    accumulated /= total
    accumulated.setflags(write=False)
    return accumulated


def _violations(contribution: Contribution, declared: Declared, size: int) -> Iterator[str]:
    """Yields names first: the checks of values rely on every declared name being present."""
    yield from _name_violations("array", contribution.arrays, declared.arrays)
    yield from _name_violations("scalar", contribution.scalars, declared.scalars)
    for name in declared.arrays:
        array: object = contribution.arrays[name]
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != (size,):
            yield f"array {name!r} is not float32 of shape ({size},)"
        elif not np.isfinite(array).all():
            yield f"array {name!r} has entries that are not finite"
    for name in declared.scalars:
        scalar: object = contribution.scalars[name]
        if not isinstance(scalar, float) or not math.isfinite(scalar):
            yield f"scalar {name!r} is not a finite number"


def _name_violations(kind: str, present: Mapping[str, object], declared: tuple[str, ...]) -> Iterator[str]:
    for name in present:
        if name not in declared:
            yield f"undeclared {kind} {str(name)[:_NAME_LENGTH]!r}"
    for name in declared:
        if name not in present:
            yield f"missing {kind} {name!r}"
