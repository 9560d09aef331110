"""Shamir's secret sharing of 32 bytes over the field of order ``p = 2^257 - 93`` (§4.3).

``t`` shares give the secret; ``t - 1`` shares are independent of it. A place is a site's place in the cohort, from 0;
its share is the polynomial's value at place + 1. Not constant-time: Python integers are not.

See: docs/protocol.md §1.6, §4.3; Shamir, How to share a secret (CACM 1979).
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from privacy.errors import LocalProtocolError, RemoteProtocolError
from privacy.secagg.encoding import Entropy, draw

P = 2**257 - 93
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, *, t: int, places: Iterable[int], entropy: Entropy) -> dict[int, bytes]:
    """Shares ``secret`` so that any ``t`` of the shares give it back.

    Args:
      secret: 32 bytes. Secret.
      t: Threshold, at least 1.
      places: From 0, without repetition.
      entropy: For the ``t - 1`` other coefficients.

    Returns: 33 bytes, big-endian, below ``p``, for each place. Secret.
    Raises: LocalProtocolError: A secret of another length, or fewer places than ``t``.
    """
    where = list(places)
    if len(secret) != SECRET_BYTES or not 1 <= t <= len(where) or len(set(where)) != len(where) or min(where) < 0:
        raise LocalProtocolError("a secret of 32 bytes is shared among at least t distinct places")
    # §4.3, §4.7: lowest degree first.
    coefficients = [int.from_bytes(secret, "big"), *(_coefficient(entropy) for _ in range(t - 1))]
    return {place: _evaluate(coefficients, place + 1).to_bytes(SHARE_BYTES, "big") for place in where}


def check_share(share: bytes) -> int:
    """Returns the share as a number.

    Raises: RemoteProtocolError: Not 33 bytes, or not below ``p``: ``share + p`` must not pass for another share.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= P:
        raise RemoteProtocolError("a share is not in its one encoding")  # §1.6
    return value


def combine(shares: Mapping[int, bytes], t: int) -> bytes:
    """Returns the secret.

    Args:
      shares: By place; surplus shares are checked against the polynomial of the others. Secret.
      t: Threshold.

    Returns: 32 bytes. Secret.
    Raises: RemoteProtocolError: Fewer than ``t`` shares, one that is not canonical or lies elsewhere, or a constant
      term that is no 32-byte secret.
    """
    values = {place + 1: check_share(shares[place]) for place in sorted(shares)}
    if not 1 <= t <= len(values):
        raise RemoteProtocolError(f"{len(values)} shares do not open a secret that takes {t}")
    known = tuple(values)[:t]
    for extra in tuple(values)[t:]:
        if _interpolate(values, known, extra) != values[extra]:
            raise RemoteProtocolError("the shares of one secret do not lie on one polynomial")
    secret = _interpolate(values, known, 0)
    if secret >> (8 * SECRET_BYTES):
        raise RemoteProtocolError("the shares do not give a 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _coefficient(entropy: Entropy) -> int:
    while True:
        fresh = draw(entropy, SHARE_BYTES)
        # §4.3: 257 random bits; drawn again while not below p, so that every element is equally likely.
        value = int.from_bytes(bytes([fresh[0] & 1]) + fresh[1:], "big")
        if value < P:
            return value


def _evaluate(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % P
    return value


def _interpolate(values: Mapping[int, int], known: tuple[int, ...], at: int) -> int:
    weights = _lagrange(known, at)
    return sum(weight * values[x] for weight, x in zip(weights, known, strict=True)) % P


@lru_cache(maxsize=512)
def _lagrange(known: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Returns the weights of the values at ``known`` in the value at ``at``; public, the same for every secret."""
    weights = []
    for x in known:
        above, below = 1, 1
        for other in known:
            if other != x:
                above = above * (at - other) % P
                below = below * (x - other) % P
        weights.append(above * pow(below, -1, P) % P)
    return tuple(weights)
