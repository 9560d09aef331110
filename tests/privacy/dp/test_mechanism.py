"""The mechanism's sensitivity as an integer fact, under gradients made to break it."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privacy.dp.mechanism import GRID, RoundedGaussianSum
from privacy.dp.noise import poisson_mask, rounded_gaussian
from privacy.errors import SensitivityError

hostile = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
    elements=st.floats(width=64) | st.sampled_from([1e308, -1e308, 5e-324, np.nan, np.inf, 0.0, 1.0]),
)


@given(hostile, st.floats(1e-6, 1e6))
def test_one_record_moves_the_sum_by_at_most_the_grid(records: np.ndarray, clip: float) -> None:
    mechanism = RoundedGaussianSum(clip, 1.0)
    total = mechanism.constrain(records)
    for place in range(len(records)):
        without = records.copy()
        without[place] = 0.0
        moved = [int(a) - int(b) for a, b in zip(total, mechanism.constrain(without), strict=True)]
        assert sum(step * step for step in moved) <= GRID**2


def test_a_record_with_a_nan_contributes_zero_and_changes_nothing_else() -> None:
    mechanism = RoundedGaussianSum(1.0, 1.0)
    clean = np.array([[0.3, 0.4], [0.1, -0.2]])
    poisoned = np.vstack([clean, [np.nan, 0.5], [np.inf, 0.0]])
    np.testing.assert_array_equal(mechanism.constrain(poisoned), mechanism.constrain(clean))


def test_small_records_pass_unclipped_and_large_ones_keep_their_direction() -> None:
    mechanism = RoundedGaussianSum(2.0, 1.0)
    assert mechanism.constrain(np.array([[1.0, -0.5]])).tolist() == [GRID // 2, -GRID // 4]
    x, y = mechanism.constrain(np.array([[300.0, 400.0]]))
    assert (x / GRID, y / GRID) == pytest.approx((0.6, 0.8), abs=1e-5)


def test_no_records_are_zero() -> None:
    assert RoundedGaussianSum(1.0, 1.0).constrain(np.zeros((0, 3))).tolist() == [0, 0, 0]


def test_the_noise_has_the_declared_scale_and_shape() -> None:
    """A1 and A2 of the conformance tests: scale by chi-square, shape by Kolmogorov-Smirnov; fixed key, so no luck."""
    mechanism = RoundedGaussianSum(clip=0.5, noise_multiplier=3.0)
    draws = mechanism.add_noise(np.zeros(200_000, dtype=np.int64), lambda n: b"\x07" * n) / (0.5 * 3.0)
    statistic = float(np.square(draws).sum())
    assert 1e-4 < stats.chi2.cdf(statistic, len(draws)) < 1 - 1e-4
    assert stats.kstest(draws, "norm").pvalue > 1e-4


def test_noise_comes_fresh_from_the_given_entropy() -> None:
    first = rounded_gaussian(1e6, 8, lambda n: b"\x01" * n)
    again = rounded_gaussian(1e6, 8, lambda n: b"\x01" * n)
    other = rounded_gaussian(1e6, 8, lambda n: b"\x01" * (n - 1) + b"\x02")
    assert (first == again).all()
    assert (first != other).all()


def test_keys_differ_in_more_than_32_bits() -> None:
    """On the CPU, torch's generator gives equal noise for seeds 5 and 5 + 2^32; a 128-bit key must not."""
    low = rounded_gaussian(1e6, 8, lambda n: (5).to_bytes(n, "big"))
    high = rounded_gaussian(1e6, 8, lambda n: (5 + 2**32).to_bytes(n, "big"))
    assert (low != high).any()


def test_noise_ignores_the_seeds_of_numpy_and_torch() -> None:
    import secrets  # noqa: PLC0415 - the production entropy, nowhere else in the tests

    np.random.seed(1)  # noqa: NPY002 - the global generator is the point
    first = rounded_gaussian(1e6, 8, secrets.token_bytes)
    np.random.seed(1)  # noqa: NPY002
    assert (first != rounded_gaussian(1e6, 8, secrets.token_bytes)).any()


def test_poisson_batches_vary_as_binomials_do() -> None:
    """A fixed batch size would be another sampler than the one that is priced."""
    keys = itertools.count()
    sizes = [poisson_mask(0.1, 500, lambda n: next(keys).to_bytes(n, "big")).sum() for _ in range(400)]
    assert np.mean(sizes) == pytest.approx(50, abs=2)
    assert np.var(sizes) == pytest.approx(45, rel=0.35)


@pytest.mark.parametrize(("clip", "multiplier"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_a_mechanism_without_clip_or_noise_cannot_be_built(clip: float, multiplier: float) -> None:
    with pytest.raises(SensitivityError):
        RoundedGaussianSum(clip, multiplier)
