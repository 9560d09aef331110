"""Closed forms against scipy.stats, and p-values that are uniform where nothing is wrong."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from privacy.conformance.statistics import (
    Draws,
    Measured,
    chi_square,
    correlation,
    kolmogorov_smirnov,
    no_correlation,
    normality,
    spread,
)


def draws(seed: int, n: int = 5000, scale: float = 3.0) -> Draws:
    return np.random.default_rng(seed).normal(scale=scale, size=n)


@pytest.mark.parametrize("n", [3, 50, 5000, 100_000])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 2.0])
def test_the_two_tails_of_chi_square(n: int, ratio: float) -> None:
    wanted = 2 * min(stats.chi2.cdf(n * ratio, n), stats.chi2.sf(n * ratio, n))
    assert chi_square(n, ratio) == pytest.approx(min(1.0, wanted), rel=1e-8, abs=1e-300)


def test_the_spread_of_draws_is_their_mean_square_over_the_variance() -> None:
    found = spread(draws(1), 3.0)
    assert found.n == 5000
    assert found.statistic == pytest.approx(np.mean(draws(1) ** 2) / 9.0)
    assert spread(draws(1), 3.0 * 1.1).p_value < 1e-10
    assert spread(np.zeros(100), 1.0).p_value == 0.0


def test_the_distance_and_p_value_of_kolmogorov_and_smirnov() -> None:
    found, exact = normality(draws(2), 3.0), stats.kstest(draws(2) / 3.0, "norm")
    assert found.statistic == pytest.approx(exact.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(exact.pvalue, abs=2e-3)
    # In the tail that decides, from exact values of the finite law.
    for p in (1e-3, 1e-5):
        assert kolmogorov_smirnov(100_000, stats.kstwo.isf(p, 100_000)) == pytest.approx(p, rel=0.02)


def test_normals_of_another_width_or_another_shape_are_found() -> None:
    assert normality(draws(3, 100_000), 3.0).p_value > 1e-3
    assert normality(draws(3, 100_000) * 1.03, 3.0).p_value < 1e-5
    uniform = np.random.default_rng(3).uniform(-1, 1, 100_000) * 3.0 * np.sqrt(3.0)
    assert normality(uniform, 3.0).p_value < 1e-30


def test_correlation_around_zero() -> None:
    x, y = draws(4), draws(5)
    assert correlation(x, y).statistic == pytest.approx(float(x @ y / np.sqrt((x @ x) * (y @ y))))
    assert correlation(x, y).p_value == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.02)
    assert correlation(x, x).p_value == 0.0
    assert correlation(np.zeros(9), np.zeros(9)).statistic == 1.0
    assert no_correlation(10_000, 0.04) == pytest.approx(2 * stats.norm.sf(4.0))


@pytest.mark.parametrize("tested", [spread, normality])
def test_p_values_are_uniform_where_nothing_is_wrong(tested: Callable[[Draws, float], Measured]) -> None:
    found = [tested(draws(seed, 400), 3.0).p_value for seed in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 1e-3
