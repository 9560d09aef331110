"""One keystream (§4.1), computed in two ways: byte for byte AES-256-CTR, in whatever pieces it is asked for."""

import json
from collections.abc import Callable
from itertools import accumulate, pairwise

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from privacy.secagg.masks import PIECE_BYTES, KeyStream, Mask, apply_streams
from privacy.secagg.ring import to_ring
from privacy.secagg.suite import Keystream, RealSuite, fastest_keystream
from tests.privacy.secagg.independent import Case
from tests.privacy.secagg.make_vectors import CASES, FOLDER

KEY = bytes(range(32))
EDGES = [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1]
either = pytest.mark.parametrize("keystream", ["ctr", "gcm"])


def drawn(stream: KeyStream, *sizes: int, data: bytes | None = None) -> bytes:
    whole, room = data or bytes(sum(sizes)), bytearray(max(sizes, default=0) + 16)
    found = b""
    for start, end in pairwise(accumulate(sizes, initial=0)):
        assert stream.update_into(whole[start:end], room) == end - start
        found += room[: end - start]
    return found


def by_ctr(key: bytes, data: bytes, block: int = 0) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(16, "big"))).encryptor().update(data)


@either
def test_the_first_blocks_are_the_published_ones(keystream: Keystream) -> None:
    """AES-256 under the zero key: the zero block; the tag and the ciphertext of McGrew and Viega's GCM cases 13 and 14.

    The tag of nothing is block 1, and the ciphertext of one zero block is block 2.
    """
    assert drawn(RealSuite(keystream).stream(bytes(32)), 48).hex() == (
        "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738bcea7403d4d606b6e074ec5d3baf39d18"
    )


@either
@pytest.mark.parametrize("size", EDGES)
def test_one_piece_of_any_size(keystream: Keystream, size: int) -> None:
    assert drawn(RealSuite(keystream).stream(KEY), size) == by_ctr(KEY, bytes(size))


@either
@given(st.lists(st.sampled_from(EDGES), max_size=6), st.binary(min_size=1, max_size=40))
def test_pieces_of_any_sizes(keystream: Keystream, sizes: list[int], pattern: bytes) -> None:
    data = (pattern * (sum(sizes) // len(pattern) + 1))[: sum(sizes)]
    assert drawn(RealSuite(keystream).stream(KEY), *sizes, data=data) == by_ctr(KEY, data)


@either
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_streams_of_the_known_answers(keystream: Keystream, case: Case) -> None:
    vector = json.loads((FOLDER / f"{case.name}.json").read_text(encoding="utf-8"))
    for secret in vector["secrets"].values():
        known = {secret["self_key"]: secret["self_stream"]}
        known |= {key: secret["pair_streams"][u] for u, key in secret["pair_keys"].items()}
        for key, stream in known.items():
            assert drawn(RealSuite(keystream).stream(bytes.fromhex(key)), len(stream) // 2).hex() == stream


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 40, PIECE_BYTES // 4, 2 * PIECE_BYTES // 4 + 3])
def test_masks_of_one_way_come_off_the_other_way(bits: int, length: int) -> None:
    plain = {k: np.arange(length, dtype=np.int64) - k for k in (0, 1)}
    vectors = {k: to_ring(units, bits) for k, units in plain.items()}
    apply_streams(vectors, [Mask(KEY, 1, (0, 1))], bits, RealSuite("gcm").stream)
    apply_streams(vectors, [Mask(KEY, -1, (0, 1))], bits, RealSuite("ctr").stream)
    assert all(np.array_equal(vectors[k], to_ring(plain[k], bits)) for k in plain)


@pytest.mark.soak
def test_the_counter_of_gcm_ends_and_does_not_wrap() -> None:
    stream, piece = RealSuite("gcm").stream(KEY), bytes(2**24)
    room = bytearray(len(piece) + 16)
    for _ in range(2**36 // len(piece)):
        stream.update_into(piece, room)
    assert bytes(room[: len(piece)]) == by_ctr(KEY, piece, 2**32 - len(piece) // 16)
    with pytest.raises(ValueError, match="maximum encrypted byte limit"):
        stream.update_into(bytes(1), room)


def clock_of(ctr: list[int], gcm: list[int]) -> Callable[[], float]:
    """Returns a clock in which the turns of the two take these times; it stops after that."""
    steps = (step for took in (*ctr, *gcm) for step in (0, took))
    return accumulate(steps).__next__


def test_the_probe_takes_the_faster_one_and_keeps_to_it() -> None:
    assert fastest_keystream(clock_of([1] * 5, [2] * 5)) == "ctr"
    clock = clock_of([2] * 5, [1, 1, 9, 1, 1])  # one turn was interrupted
    assert fastest_keystream(clock) == "gcm"
    assert fastest_keystream(clock) == "gcm"
    with pytest.raises(StopIteration):  # so it was not asked again
        clock()
