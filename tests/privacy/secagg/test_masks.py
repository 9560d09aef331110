"""Keystreams on vectors: the same as adding whole streams, in Python integers, one by one."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import LocalProtocolError
from privacy.secagg.masks import PIECE_BYTES, Mask, apply_streams
from privacy.secagg.ring import Ring, from_ring, ring_dtype
from privacy.secagg.suite import RealSuite

STREAM = RealSuite().stream


def zeros(lengths: dict[int, int], bits: int) -> dict[int, Ring]:
    return {k: np.zeros(length, dtype=ring_dtype(bits)) for k, length in lengths.items()}


def by_hand(lengths: dict[int, int], masks: list[Mask], bits: int) -> dict[int, list[int]]:
    """One whole stream per key, regions cut out of it at multiples of 16, added as integers."""
    size = bits // 8
    totals = {k: [0] * length for k, length in lengths.items()}
    for mask in masks:
        stream = Cipher(algorithms.AES(mask.key), modes.CTR(bytes(16))).encryptor()
        whole = stream.update(bytes(sum((lengths[k] * size + 15) // 16 * 16 for k in mask.regions)))
        start = 0
        for k in mask.regions:
            for j in range(lengths[k]):
                word = int.from_bytes(whole[start + j * size : start + (j + 1) * size], "little")
                totals[k][j] = (totals[k][j] + mask.sign * word) % 2**bits
            start += (lengths[k] * size + 15) // 16 * 16
    return totals


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_streams_over_regions(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([32, 64]))
    lengths = dict(enumerate(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))))
    count = data.draw(st.integers(0, 5))
    masks = [
        Mask(
            bytes([i]) * 32,
            data.draw(st.sampled_from([1, -1])),
            tuple(sorted(data.draw(st.sets(st.sampled_from(sorted(lengths)))))),
        )
        for i in range(count)
    ]
    vectors = zeros(lengths, bits)
    apply_streams(vectors, masks, bits, STREAM)
    assert {k: [int(v) for v in vector] for k, vector in vectors.items()} == by_hand(lengths, masks, bits)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("extra", [-1, 0, 1, 5])
def test_more_than_one_piece(bits: int, extra: int) -> None:
    length = 2 * PIECE_BYTES * 8 // bits + extra
    lengths = {0: length, 1: 3}
    masks = [Mask(b"a" * 32, 1, (0, 1)), Mask(b"b" * 32, -1, (0, 1))]
    vectors = zeros(lengths, bits)
    apply_streams(vectors, masks, bits, STREAM)
    expected = by_hand(lengths, masks, bits)
    assert all(vectors[k].tolist() == expected[k] for k in lengths)


def test_masks_of_opposite_sign_cancel_whatever_else_is_there() -> None:
    lengths = {0: 1001, 1: 7, 2: 5}
    one, two = zeros(lengths, 64), zeros(lengths, 64)
    shared = Mask(b"s" * 32, 1, (0, 2))
    apply_streams(one, [Mask(b"x" * 32, 1, (0, 1, 2)), shared], 64, STREAM)
    apply_streams(two, [Mask(b"s" * 32, -1, (0, 2)), Mask(b"y" * 32, -1, (1,))], 64, STREAM)
    total = {k: one[k] + two[k] for k in lengths}
    apply_streams(total, [Mask(b"x" * 32, -1, (0, 1, 2)), Mask(b"y" * 32, 1, (1,))], 64, STREAM)
    assert all(not from_ring(vector, 64).any() for vector in total.values())


def test_misuse_is_a_bug_of_ours() -> None:
    key = b"k" * 32
    with pytest.raises(LocalProtocolError, match="two streams"):
        apply_streams(zeros({0: 1}, 32), [Mask(key, 1, (0,)), Mask(key, -1, (0,))], 32, STREAM)
    with pytest.raises(LocalProtocolError, match="not here"):
        apply_streams(zeros({0: 1}, 32), [Mask(key, 1, (1,))], 32, STREAM)
    with pytest.raises(LocalProtocolError, match="contiguous"):
        apply_streams(zeros({0: 1}, 64), [Mask(key, 1, (0,))], 32, STREAM)
    with pytest.raises(LocalProtocolError, match="contiguous"):
        apply_streams({0: np.zeros(4, dtype="<u4")[::2]}, [Mask(key, 1, (0,))], 32, STREAM)
    assert "6b6b" not in repr(Mask(key, 1, (0,)))
    assert "kkkk" not in repr(Mask(key, 1, (0,)))
