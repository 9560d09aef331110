"""The format of tensors, from its documentation: written by hand here, and broken in every field."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clients.channel import tensors
from clients.channel.message import DTYPES, Array
from privacy.errors import LocalProtocolError, RemoteProtocolError

SESSION = bytes(range(16))


def by_hand(
    values: bytes, shape: tuple[int, ...], code: int, name: bytes = b"x", session: bytes = SESSION, step: int = 7
) -> bytes:
    """Writes a record as the table in the module says."""
    head = b"COLT" + bytes([1, code, len(shape), len(name)]) + session + step.to_bytes(8, "little")
    head += b"".join(size.to_bytes(4, "little") for size in shape) + name
    head += bytes(-len(head) % 16)
    return head + values + bytes(-len(values) % 16)


def written(given: dict[str, Array], step: int = 7) -> bytes:
    return b"".join(tensors.encode(given, SESSION, step))


def read(record: bytes) -> dict[str, Array]:
    return tensors.decode(memoryview(record), SESSION, 7)


@pytest.mark.parametrize(
    ("array", "values", "code"),
    [
        (np.array([1.0, -2.0], np.float32), struct.pack("<2f", 1, -2), 0),
        (np.array([[0.1]], np.float64), struct.pack("<d", 0.1), 1),
        (np.array([-3], np.int64), struct.pack("<q", -3), 2),
        (np.array([2**64 - 1], np.uint64), b"\xff" * 8, 3),
        (np.array([True, False]), b"\x01\x00", 4),
    ],
)
def test_the_bytes_are_those_of_the_documentation(array: Array, values: bytes, code: int) -> None:
    record = by_hand(values, array.shape, code)
    assert written({"x": array}) == record
    (got,) = read(record).values()
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=16).filter(str.isprintable),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3))
        ),
        max_size=16,
    )
)
def test_whatever_is_written_is_read(given: dict[str, Array]) -> None:
    got = read(written(given))
    assert list(got) == list(given)
    for name, array in given.items():
        assert (got[name].dtype, got[name].shape, got[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert got[name].flags.writeable
        assert got[name].flags.aligned


GOOD = by_hand(struct.pack("<6f", *range(6)), (2, 3), 0)
BROKEN: dict[str, Callable[[], bytes]] = {
    "other magic": lambda: b"COLU" + GOOD[4:],
    "other version": lambda: GOOD[:4] + b"\x02" + GOOD[5:],
    "no such type": lambda: GOOD[:5] + b"\x05" + GOOD[6:],
    "nine dimensions": lambda: by_hand(bytes(4), (1,) * 9, 0),
    "no name": lambda: by_hand(bytes(4), (1,), 0, b""),
    "a long name": lambda: by_hand(bytes(4), (1,), 0, b"x" * 65),
    "a name that is not text": lambda: by_hand(bytes(4), (1,), 0, b"\xff"),
    "a name that nobody sees": lambda: by_hand(bytes(4), (1,), 0, b"a\x1b[31m"),
    "other session": lambda: by_hand(bytes(4), (1,), 0, session=bytes(16)),
    "other step": lambda: by_hand(bytes(4), (1,), 0, step=8),
    "one value too few": lambda: by_hand(bytes(20), (2, 3), 0)[:-16],
    "shape larger than the bytes": lambda: by_hand(bytes(24), (2, 2**32 - 1), 0),
    "a shape of 2^256 values": lambda: by_hand(b"", (2**32 - 1,) * 8, 1),
    "an empty shape that numpy cannot make": lambda: by_hand(b"", (0, *(2**32 - 1,) * 7), 1),
    "padding that says something": lambda: GOOD[:41] + b"\x01" + GOOD[42:],
    "padding at the end that says something": lambda: GOOD[:-1] + b"\x01",
    "no padding at the end": lambda: GOOD[:-8],
    "a truth value of 2": lambda: by_hand(b"\x02", (1,), 4),
    "two of one name": lambda: GOOD + GOOD,
    "seventeen": lambda: b"".join(by_hand(bytes(4), (1,), 0, bytes([97 + i])) for i in range(17)),
    "something after the last": lambda: GOOD + bytes(16),
}


@pytest.mark.parametrize("what", BROKEN)
def test_anything_else_is_refused(what: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read(BROKEN[what]())


def test_every_cut_is_refused() -> None:
    for end in range(1, len(GOOD)):
        with pytest.raises(RemoteProtocolError):
            read(GOOD[:end])
    assert read(GOOD)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\n"])
def test_a_name_without_a_place_is_our_own_mistake(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        tensors.encode({name: np.zeros(1)}, SESSION, 7)
