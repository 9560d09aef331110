"""Flower's SecAgg+ as a benchmark calls it: the functions of its mod and its workflow, in their order, no network.

Its masks come from a seed of at most 32 bits (flwrlabs/flower#7522), ours from AES-256: whoever compares speed compares
with a weaker primitive. Only a benchmark may use these private names.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

from privacy.errors import LocalProtocolError

CLIP = 8.0
STEPS = 2**22
MODULUS = 2**32
"""Flower's defaults: entries in [-8, 8] on 2^22 steps, sums modulo 2^32."""
_Vectors = list[NDArray[Any]]


@dataclass(frozen=True)
class Graph:
    """Who masks with whom when ``n // 10`` sites drop out after their shares; ``neighbours`` include the site itself.

    ``opened``: whose secrets the server puts together, all sites or a part of them, the same part on both sides.
    """

    neighbours: tuple[tuple[int, ...], ...]
    dropped: frozenset[int]
    opened: tuple[int, ...]

    @classmethod
    def ring(cls, n: int, k: int, one_in: int) -> "Graph":
        """Returns Flower's graph: ``k / 2`` sites on either side; ``k = n - 1`` is the complete one."""
        reach = range(n) if k == n - 1 else range(-(k // 2), k // 2 + 1)
        neighbours = tuple(tuple(sorted((i + step) % n for step in reach)) for i in range(n))
        return cls(neighbours, frozenset(range(0, n, 10)), tuple(range(n))[: n // one_in])

    @property
    def t(self) -> int:
        """More than half of the shares, the same on both sides."""
        return len(self.neighbours[0]) // 2 + 1

    def alive(self, site: int) -> list[int]:
        """Returns the neighbours whose shares the server gets."""
        return [u for u in self.neighbours[site] if u not in self.dropped]

    def pairs(self) -> list[tuple[int, int]]:
        """Returns the masks that come off for sites that dropped out: (dropped, neighbour), the other dropped too."""
        return [(i, u) for i in self.opened if i in self.dropped for u in self.neighbours[i] if u != i]


def rounded_as_shipped(update: NDArray[np.float32]) -> _Vectors:
    """Flower's clip and stochastic rounding, coins from its Mersenne Twister."""
    parameters: _Vectors = [update]
    return list(quantize(parameters, CLIP, STEPS))


def rounded(update: NDArray[np.float32]) -> _Vectors:
    """Flower's clip and rounding, its coins replaced by those that ours uses: AES-256-CTR."""
    stream = Cipher(algorithms.AES(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()

    def coins(size: int) -> NDArray[np.float64]:
        drawn = np.frombuffer(stream.update(bytes(4 * size)), dtype="<u4")
        return drawn * 2.0**-32

    with patch.object(np.random, "rand", coins):
        return rounded_as_shipped(update)


def masked(quantised: _Vectors, seeds: Sequence[bytes]) -> list[bytes]:
    """Flower's masking stage, as in its mod: self mask, then one mask a neighbour, half of them subtracted."""
    vectors: _Vectors = factor_combine(1, quantised)
    shapes = [vector.shape for vector in vectors]
    vectors = parameters_addition(vectors, pseudo_rand_gen(seeds[0], MODULUS, shapes))
    for place, seed in enumerate(seeds[1:]):
        combined = parameters_addition if place % 2 else parameters_subtraction
        vectors = combined(vectors, pseudo_rand_gen(seed, MODULUS, shapes))
    return [ndarray_to_bytes(vector) for vector in parameters_mod(vectors, MODULUS)]


def agree(k: int) -> Callable[[], None]:
    """Returns the job of agreeing on a mask seed with ``k`` neighbours, from stored bytes, as the mod does it."""
    (private, public), *_ = _key_bytes(1)

    def job() -> None:
        for _ in range(k):
            generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))

    return job


def share(secret: bytes, n: int, t: int) -> None:
    """Shares ``secret`` and puts it together again from ``t`` shares."""
    if combine_shares(create_shares(secret, t, n)[-t:]) != secret:
        raise LocalProtocolError("Flower's shares do not give the secret")


def private_key() -> bytes:
    """Returns the other secret that a site of Flower's shares: a PEM of 306 bytes."""
    return _key_bytes(1)[0][0]


def _key_bytes(n: int) -> list[tuple[bytes, bytes]]:
    pairs = [generate_key_pairs() for _ in range(n)]
    return [(private_key_to_bytes(private), public_key_to_bytes(public)) for private, public in pairs]


def recovery(graph: Graph, total: NDArray[np.int64]) -> Callable[[], NDArray[Any]]:
    """Returns the unmask stage of Flower's workflow, from the shares that arrived to ``total``."""
    private, public = zip(*_key_bytes(len(graph.neighbours)), strict=True)
    secret = {i: private[i] if i in graph.dropped else secrets.token_bytes(32) for i in graph.opened}
    dealt = {}
    for i in graph.opened:
        shares = create_shares(secret[i], graph.t, len(graph.neighbours[i]))
        by_site = dict(zip(graph.neighbours[i], shares, strict=True))
        dealt[i] = [by_site[u] for u in graph.alive(i)]
    under: _Vectors = [total]
    for i in set(graph.opened) - graph.dropped:
        under = parameters_addition(under, pseudo_rand_gen(secret[i], MODULUS, [total.shape]))
    for i, u in graph.pairs():
        under = _pair(under, private[u], public[i], add=i < u)
    under = parameters_mod(under, MODULUS)

    def job() -> NDArray[Any]:
        vectors = under
        for i, shares in dealt.items():
            opened = combine_shares(shares)
            if i not in graph.dropped:
                mask = pseudo_rand_gen(opened, MODULUS, get_parameters_shape(vectors))
                vectors = parameters_subtraction(vectors, mask)
                continue
            for u in graph.neighbours[i]:
                if u != i:  # the workflow does not leave out neighbours that dropped out too
                    vectors = _pair(vectors, opened, public[u], add=i > u)
        return parameters_mod(vectors, MODULUS)[0]

    return job


def _pair(vectors: _Vectors, private: bytes, public: bytes, *, add: bool) -> _Vectors:
    shared = generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))
    combined = parameters_addition if add else parameters_subtraction
    return combined(vectors, pseudo_rand_gen(shared, MODULUS, get_parameters_shape(vectors)))
