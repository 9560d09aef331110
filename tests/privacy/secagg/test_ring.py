"""The grid and the ring: exact where numbers are exact, refused where they do not fit."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import LocalProtocolError, SensitivityError
from privacy.secagg.ring import from_ring, quantise, ring_dtype, to_ring
from tests.privacy.secagg.parties import seeded


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.integers(0, 30))
def test_nearest_is_the_nearest_grid_point(values: list[float], bits: int) -> None:
    result = quantise(np.array(values), fraction_bits=bits, bound=100 << bits, entropy=seeded())
    for value, units in zip(values, result, strict=True):
        assert units == round(Fraction(value) * 2**bits)  # Python rounds ties to even, exactly


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.integers(0, 30))
def test_stochastic_takes_a_neighbour(values: list[float], bits: int) -> None:
    result = quantise(
        np.array(values), fraction_bits=bits, bound=100 << bits, rounding="stochastic", entropy=seeded("s")
    )
    for value, units in zip(values, result, strict=True):
        exact = Fraction(value) * 2**bits
        assert abs(exact - int(units)) < 1
        assert exact.denominator > 1 or int(units) == exact  # grid points stay


def test_stochastic_is_unbiased_and_new_each_time() -> None:
    values = np.full(200_000, -2.3)  # more than one step of the keystream
    first = quantise(values, fraction_bits=0, bound=3, rounding="stochastic", entropy=seeded(1))
    second = quantise(values, fraction_bits=0, bound=3, rounding="stochastic", entropy=seeded(2))
    assert set(first.tolist()) == {-3, -2}
    deviation = 200_000**0.5 * (0.3 * 0.7) ** 0.5
    assert abs(float(first.sum()) - 200_000 * -2.3) < 5 * deviation
    assert not np.array_equal(first, second)
    assert abs(float((first[: 2**16] == first[2**16 : 2**17]).mean()) - (0.3**2 + 0.7**2)) < 0.01


@pytest.mark.parametrize("bound", [2**31 - 1, 2**31, 2**46, 2**47 - 1])
def test_stochastic_on_a_wide_grid(bound: int) -> None:
    """Fraction and bound share 63 bits: the largest entry with the largest coin is not one bit too many."""
    edge = np.repeat([float(bound), -float(bound)], 50_000)
    values = np.concatenate([edge, np.full(100_000, -2.3)])
    found = quantise(values, fraction_bits=0, bound=bound, rounding="stochastic", entropy=seeded(3))
    assert np.array_equal(found[:100_000], edge)
    assert float(found[100_000:].mean()) == pytest.approx(-2.3, abs=0.01)  # seven standard deviations


def test_a_grid_too_wide_for_coins_is_refused() -> None:
    assert quantise(np.ones(1), fraction_bits=0, bound=2**47, entropy=seeded()).tolist() == [1]
    with pytest.raises(SensitivityError, match="does not fit"):
        quantise(np.ones(1), fraction_bits=0, bound=2**47, rounding="stochastic", entropy=seeded())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.01, -1.01, 1e308])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_what_does_not_fit_is_refused(value: float, rounding: str) -> None:
    with pytest.raises(SensitivityError):
        quantise(np.array([0.5, value]), fraction_bits=4, bound=16, rounding=rounding, entropy=seeded())  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [32, 64])
@settings(max_examples=50)
@given(data=st.data())
def test_twos_complement_sums(bits: int, data: st.DataObject) -> None:
    edge = 2 ** (bits - 1)
    a = data.draw(st.lists(st.integers(-edge // 2, edge // 2 - 1), min_size=1, max_size=20))
    b = data.draw(st.lists(st.integers(-edge // 2, edge // 2 - 1), min_size=len(a), max_size=len(a)))
    total = to_ring(np.array(a, dtype=np.int64), bits) + to_ring(np.array(b, dtype=np.int64), bits)
    assert from_ring(total, bits).tolist() == [x + y for x, y in zip(a, b, strict=True)]


def test_the_ring_is_little_endian() -> None:
    assert to_ring(np.array([-2], dtype=np.int64), 32).tobytes().hex() == "feffffff"
    assert to_ring(np.array([258], dtype=np.int64), 64).tobytes().hex() == "0201000000000000"
    with pytest.raises(LocalProtocolError):
        ring_dtype(16)
