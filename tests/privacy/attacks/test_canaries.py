"""Coins: committed, reproducible, fair."""

import hashlib
import struct

import numpy as np
import pytest

from privacy.attacks.canaries import commitment, included, opens

SEED = bytes(range(32))


def chacha20_block(key: bytes, counter: int) -> bytes:
    """RFC 8439, 2.3, written for this test; the nonce is zero."""
    initial = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, 0, 0, 0]
    state = list(initial)

    def quarter(*at: int) -> None:
        a, b, c, d = at
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for at in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            quarter(*at)
        for at in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(*at)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(initial, state, strict=True)))


def test_coins_are_the_bits_of_the_keystream() -> None:
    key = hashlib.sha256(b"collegium canary coins v1\x00" + SEED).digest()
    stream = chacha20_block(key, 0) + chacha20_block(key, 1)
    bits = [bool(byte >> (7 - i) & 1) for byte in stream for i in range(8)]
    assert included(SEED, 1000).tolist() == bits[:1000]


def test_fewer_coins_are_the_first_of_more() -> None:
    assert (included(SEED, 4096)[:77] == included(SEED, 77)).all()
    assert included(SEED, 0).size == 0


def test_coins_are_fair_and_differ_by_seed() -> None:
    coins = included(SEED, 100_000)
    assert abs(coins.mean() - 0.5) < 0.006
    assert abs(float(np.mean(coins[1:] == coins[:-1])) - 0.5) < 0.006
    assert abs(float(np.mean(coins == included(bytes(32), 100_000))) - 0.5) < 0.006


def test_the_commitment_binds_one_seed() -> None:
    noted = commitment(SEED)
    assert noted == hashlib.sha256(b"collegium canary seed v1\x00" + SEED).hexdigest()
    assert opens(noted, SEED)
    assert not opens(noted, bytes(32))


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_has_thirty_two_bytes(seed: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        included(seed, 8)
    with pytest.raises(ValueError, match="32 bytes"):
        commitment(seed)
