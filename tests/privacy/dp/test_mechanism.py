"""The mechanism's sensitivity as an integer fact, under gradients made to break it."""

import itertools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privacy.dp import noise
from privacy.dp.events import Arithmetic
from privacy.dp.mechanism import GRID, RoundedGaussianSum
from privacy.dp.noise import EXACT_UP_TO, Entropy, poisson_mask, rounded_gaussian, rounded_gaussian_exact
from privacy.errors import SensitivityError

hostile = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
    elements=st.floats(width=64) | st.sampled_from([1e308, -1e308, 5e-324, np.nan, np.inf, 0.0, 1.0]),
)


@given(hostile, st.floats(1e-6, 1e6))
def test_one_record_moves_the_sum_by_at_most_the_grid(records: np.ndarray, clip: float) -> None:
    mechanism = RoundedGaussianSum(clip, noise_multiplier=1.0)
    total = mechanism.constrain(records)
    for place in range(len(records)):
        without = records.copy()
        without[place] = 0.0
        moved = [int(a) - int(b) for a, b in zip(total, mechanism.constrain(without), strict=True)]
        assert sum(step * step for step in moved) <= GRID**2


def test_a_record_with_a_nan_contributes_zero_and_changes_nothing_else() -> None:
    mechanism = RoundedGaussianSum(1.0, noise_multiplier=1.0)
    clean = np.array([[0.3, 0.4], [0.1, -0.2]])
    poisoned = np.vstack([clean, [np.nan, 0.5], [np.inf, 0.0]])
    np.testing.assert_array_equal(mechanism.constrain(poisoned), mechanism.constrain(clean))


def test_small_records_pass_unclipped_and_large_ones_keep_their_direction() -> None:
    mechanism = RoundedGaussianSum(2.0, noise_multiplier=1.0)
    assert mechanism.constrain(np.array([[1.0, -0.5]])).tolist() == [GRID // 2, -GRID // 4]
    x, y = mechanism.constrain(np.array([[300.0, 400.0]]))
    assert (x / GRID, y / GRID) == pytest.approx((0.6, 0.8), abs=1e-5)


def test_no_records_are_zero() -> None:
    assert RoundedGaussianSum(1.0, noise_multiplier=1.0).constrain(np.zeros((0, 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("exact_up_to", [0, EXACT_UP_TO])
def test_the_noise_has_the_declared_scale_and_shape(exact_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1 and A2 of the conformance tests: scale by chi-square, shape by Kolmogorov-Smirnov; fixed key, so no luck."""
    monkeypatch.setattr(noise, "EXACT_UP_TO", exact_up_to)
    mechanism = RoundedGaussianSum(clip=0.5, noise_multiplier=3.0)
    draws = mechanism.add_noise(np.zeros(200_000, dtype=np.int64), lambda n: b"\x07" * n) / (0.5 * 3.0)
    statistic = float(np.square(draws).sum())
    assert 1e-4 < stats.chi2.cdf(statistic, len(draws)) < 1 - 1e-4
    assert stats.kstest(draws, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("size", "sampler", "said"),
    [(8, rounded_gaussian_exact, Arithmetic.INTEGER_EXACT), (9, rounded_gaussian, Arithmetic.FLOAT)],
)
def test_the_arithmetic_said_is_the_arithmetic_used(
    size: int,
    sampler: Callable[[float, int, Entropy], np.ndarray],
    said: Arithmetic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sum passes through unrounded: total and noise add up on the grid before the grid is left."""
    monkeypatch.setattr(noise, "EXACT_UP_TO", 8)
    mechanism = RoundedGaussianSum(clip=0.5, noise_multiplier=3.0)
    total = np.arange(size, dtype=np.int64) * 12_345
    released = mechanism.add_noise(total, lambda n: b"\x07" * n)
    drawn = sampler(3.0 * GRID, size, lambda n: b"\x07" * n)
    assert mechanism.arithmetic(size) is said
    assert (released == (total + drawn) * (0.5 / GRID)).all()


def test_noise_is_exact_unless_it_is_dear() -> None:
    mechanism = RoundedGaussianSum(1.0, noise_multiplier=20.0)
    assert mechanism.arithmetic(EXACT_UP_TO) is Arithmetic.INTEGER_EXACT
    assert mechanism.arithmetic(EXACT_UP_TO + 1) is Arithmetic.FLOAT
    assert RoundedGaussianSum(1.0, noise_multiplier=1e8).arithmetic(1) is Arithmetic.FLOAT


def test_a_decimal_multiplier_is_taken_at_its_exact_value() -> None:
    """Rounded to 8 bytes it could be a hair below what is priced."""
    multiplier, key = Decimal("1.1000000000000000000001"), b"\x07" * 32
    assert float(multiplier) == 1.1
    mechanism = RoundedGaussianSum(1.0, noise_multiplier=multiplier)
    assert mechanism._sigma == Fraction(multiplier) * GRID != Fraction(1.1) * GRID
    released = mechanism.add_noise(np.zeros(4, dtype=np.int64), lambda _: key)
    assert (released * GRID == rounded_gaussian_exact(Fraction(multiplier) * GRID, 4, lambda _: key)).all()


def test_poisson_batches_vary_as_binomials_do() -> None:
    """A fixed batch size would be another sampler than the one that is priced."""
    keys = itertools.count()
    sizes = [poisson_mask(0.1, 500, lambda n: next(keys).to_bytes(n, "big")).sum() for _ in range(400)]
    assert np.mean(sizes) == pytest.approx(50, abs=2)
    assert np.var(sizes) == pytest.approx(45, rel=0.35)


@pytest.mark.parametrize(
    ("clip", "multiplier"),
    [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("nan")), (1.0, Decimal("NaN"))],
)
def test_a_mechanism_without_clip_or_noise_cannot_be_built(clip: float, multiplier: float | Decimal) -> None:
    with pytest.raises(SensitivityError):
        RoundedGaussianSum(clip, noise_multiplier=multiplier)
