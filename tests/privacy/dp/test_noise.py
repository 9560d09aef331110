"""Do three unlike samplers agree, and is nothing random kept?

Chi-square against the exact probabilities at a million draws; keys are fixed, so that no luck is involved.
"""

import itertools
import multiprocessing
import secrets
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from multiprocessing.connection import Connection

import numpy as np
import opendp.prelude as dp
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from privacy.dp import noise
from privacy.dp.exact import Law, RoundedGaussian, Skellam
from privacy.dp.noise import (
    EXACT_UP_TO,
    Entropy,
    Number,
    exact_is_cheap,
    rounded_gaussian,
    rounded_gaussian_exact,
    skellam_exact,
)
from tests.privacy.dp import reference_samplers as reference

Integers = NDArray[np.int64]
Cdf = Callable[[Integers], NDArray[np.float64]]
MILLION = 10**6


def keyed(salt: int) -> Entropy:
    """Gives ``salt``, then ``salt + 2^64``, and so on: parts of one draw must not share a key."""
    salts = itertools.count(salt, 2**64)
    return lambda n: next(salts).to_bytes(n, "big")


def gaussian_cdf(sigma: float) -> Cdf:
    return lambda k: special.ndtr((k + 0.5) / sigma)


def skellam_cdf(variance: float) -> Cdf:
    """From the exponentially scaled Bessel function; where scipy has none, a Gaussian is within 1 / (24 variance)."""
    if variance > 2**24:
        return gaussian_cdf(variance**0.5)
    far = int(40 * variance**0.5) + 40
    sums = np.cumsum(special.ive(np.abs(np.arange(-far, far + 1)), variance))
    return lambda k: sums[np.clip(k + far, 0, 2 * far)]


def p_value(draws: Integers, cdf: Cdf, sigma: float) -> float:
    """Chi-square over at most 200 bins of integers, each expected at least 20 times."""
    edges = np.unique(np.floor(sigma * special.ndtri(np.linspace(0.0005, 0.9995, 199))).astype(np.int64))
    bounds = np.concatenate([[0.0], cdf(edges), [1.0]])
    expected = np.diff(bounds) * len(draws)
    observed = np.diff(np.concatenate([[0], np.searchsorted(np.sort(draws), edges, side="right"), [len(draws)]]))
    kept = expected >= 20
    rest = (observed[~kept].sum(), expected[~kept].sum())
    observed, expected = np.append(observed[kept], rest[0]), np.append(expected[kept], rest[1])
    used = expected > 0
    statistic = np.sum(np.square(observed[used] - expected[used]) / expected[used])
    return float(stats.chi2.sf(statistic, used.sum() - 1))


def alike(first: Integers, second: Integers) -> float:
    """Chi-square of two samples, over at most 49 edges that cut the first evenly."""
    edges = np.unique(np.quantile(first, np.linspace(0.002, 0.998, 49)).astype(np.int64))
    table = [np.bincount(np.searchsorted(edges, each), minlength=len(edges) + 1) for each in (first, second)]
    return float(stats.chi2_contingency(np.array(table)[:, np.sum(table, axis=0) > 0]).pvalue)


class TestRoundedGaussian:
    @pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 2.5, 50.0, 4096.0, 1.3 * 2**20, 20.0 * 2**20, 2.0**30])
    def test_has_exactly_its_distribution(self, sigma: float) -> None:
        draws = rounded_gaussian_exact(sigma, MILLION, keyed(11))
        assert p_value(draws, gaussian_cdf(sigma), max(sigma, 0.6)) > 1e-4
        k = np.arange(-20, 21)
        small = float(np.sum(k**2 * (special.ndtr((k + 0.5) / sigma) - special.ndtr((k - 0.5) / sigma))))
        spread = small if sigma < 2 else sigma**2 + 1 / 12  # Sheppard's correction
        assert abs(draws.mean()) < 5 * spread**0.5 / 1000
        assert draws.var() == pytest.approx(spread, rel=0.01)
        if sigma >= 1:
            assert stats.kurtosis(draws) == pytest.approx(0, abs=0.03)

    @pytest.mark.parametrize(
        ("sigma", "size"), [(Fraction(5, 2), MILLION), (Fraction(1, 2), 200_000), (Fraction(1_234_567), 200_000)]
    )
    def test_agrees_with_a_sampler_without_floating_point(self, sigma: Fraction, size: int) -> None:
        draws = reference.karney(np.random.default_rng(12), sigma, size)
        assert p_value(draws, gaussian_cdf(float(sigma)), float(sigma)) > 1e-4
        assert alike(draws, rounded_gaussian_exact(sigma, MILLION, keyed(13))) > 1e-4

    @pytest.mark.parametrize(("sigma", "size"), [(2.5, 100_000), pytest.param(0.7, MILLION, marks=pytest.mark.soak)])
    def test_agrees_with_opendp(self, sigma: float, size: int) -> None:
        """OpenDP draws discrete Gaussians; one on a grid 2^30 times finer, rounded, is ours to within 2^-30.

        Its key cannot be fixed, hence the lower bar: one run in 10^8 fails by chance.
        """
        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
        fine = np.array(dp.m.make_gaussian(*space, scale=sigma * 2.0**30)([0] * size), dtype=np.int64)
        draws = (fine + 2**29) >> 30
        assert p_value(draws, gaussian_cdf(sigma), sigma) > 1e-8

    def test_agrees_with_the_floating_point_path(self) -> None:
        draws = rounded_gaussian(2.5, MILLION, keyed(14))
        assert p_value(draws, gaussian_cdf(2.5), 2.5) > 1e-4

    def test_the_check_sees_a_wrong_distribution(self) -> None:
        """One per cent of the deviation, and the discrete Gaussian in place of the rounded one, at these sizes."""
        assert p_value(rounded_gaussian_exact(2.525, MILLION, keyed(15)), gaussian_cdf(2.5), 2.5) < 1e-4
        k = np.arange(-10, 11)
        weights = np.exp(-(k**2) / (2 * 0.7**2))
        discrete = np.random.default_rng(16).choice(k, MILLION, p=weights / weights.sum())
        assert p_value(discrete, gaussian_cdf(0.7), 0.7) < 1e-4


class TestSkellam:
    @pytest.mark.parametrize("variance", [0.1, 1.0, 8.0, 2500.0, 2.0**24, 2.5 * 2**24])
    def test_has_exactly_its_distribution(self, variance: float) -> None:
        draws = skellam_exact(variance, MILLION, keyed(21))
        assert p_value(draws, skellam_cdf(variance), max(variance**0.5, 0.6)) > 1e-4
        assert abs(draws.mean()) < 5 * variance**0.5 / 1000
        assert draws.var() == pytest.approx(variance, rel=0.02)
        assert stats.kurtosis(draws) == pytest.approx(1 / variance, rel=0.1, abs=0.03)

    @pytest.mark.parametrize("mean", [1, 4])
    def test_agrees_with_a_sampler_without_floating_point(self, mean: int) -> None:
        draws = reference.skellam(np.random.default_rng(22), mean, MILLION // 2)
        assert p_value(draws, skellam_cdf(2.0 * mean), (2.0 * mean) ** 0.5) > 1e-4
        assert alike(draws, skellam_exact(2 * mean, MILLION, keyed(23))) > 1e-4

    def test_agrees_with_numpys_poisson_difference(self) -> None:
        rng = np.random.default_rng(24)
        draws = rng.poisson(1250.0, MILLION) - rng.poisson(1250.0, MILLION)
        assert p_value(draws, skellam_cdf(2500.0), 50.0) > 1e-4

    def test_the_check_sees_a_gaussian_of_the_same_variance(self) -> None:
        assert p_value(rounded_gaussian_exact(2.0**0.5, MILLION, keyed(25)), skellam_cdf(2.0), 2.0**0.5) < 1e-4

    def test_large_variances_are_parts_with_their_own_keys(self) -> None:
        asked: list[int] = []

        def entropy(n: int) -> bytes:
            asked.append(n)
            return len(asked).to_bytes(n, "big")

        draws = skellam_exact(3 * 2**24, 5, entropy)
        parts = [skellam_exact(2**24, 5, keyed(salt)) for salt in (1, 2, 3)]
        assert asked == [32, 32, 32]
        assert draws.tolist() == np.sum(parts, axis=0).tolist()


def _child(pipe: Connection, name: str) -> None:
    pipe.send(SAMPLERS[name](secrets.token_bytes).tolist())


SAMPLERS: dict[str, Callable[[Entropy], Integers]] = {
    "gaussian": lambda entropy: rounded_gaussian_exact(1e6, 8, entropy),
    "skellam": lambda entropy: skellam_exact(10**6, 8, entropy),
    "float": lambda entropy: rounded_gaussian(1e6, 8, entropy),
}


@pytest.mark.parametrize("name", SAMPLERS)
class TestNothingRandomIsKept:
    def test_two_calls_and_two_forks_differ(self, name: str) -> None:
        seen = [tuple(SAMPLERS[name](secrets.token_bytes)) for _ in range(2)]
        fork = multiprocessing.get_context("fork")
        for _ in range(2):
            ours, theirs = fork.Pipe()
            child = fork.Process(target=_child, args=(theirs, name))
            child.start()
            seen.append(tuple(ours.recv()))
            child.join()
        assert len(set(seen)) == 4

    def test_a_key_a_call_and_the_key_alone_decides(self, name: str) -> None:
        asked: list[int] = []

        def entropy(n: int) -> bytes:
            asked.append(n)
            return b"\x05" * n

        np.random.seed(1)  # noqa: NPY002 - the global generator is the point
        first = SAMPLERS[name](entropy)
        np.random.seed(2)  # noqa: NPY002
        assert (SAMPLERS[name](entropy) == first).all()
        assert len(asked) == 2
        assert min(asked) >= 16
        assert (SAMPLERS[name](lambda n: b"\x05" * (n - 1) + b"\x06") != first).any()

    def test_keys_differ_in_more_than_32_bits(self, name: str) -> None:
        assert (SAMPLERS[name](keyed(5)) != SAMPLERS[name](keyed(5 + 2**32))).any()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 2.0**50, Decimal("NaN"), Decimal("1e400")])
def test_parameters_out_of_range_are_the_callers_bug(bad: Number) -> None:
    for sampler in (rounded_gaussian_exact, skellam_exact):
        with pytest.raises(ValueError, match="out of range"):
            sampler(bad, 3, keyed(1))


def test_parameters_are_taken_at_their_exact_value(monkeypatch: pytest.MonkeyPatch) -> None:
    laws: list[Law] = []

    def draws(law: Law, size: int, _: bytes) -> Integers:
        laws.append(law)
        return np.zeros(size, dtype=np.int64)

    monkeypatch.setattr(noise, "draws", draws)
    rounded_gaussian_exact(Decimal("0.3"), 1, keyed(1))
    skellam_exact(Decimal("1e8"), 1, keyed(1))
    skellam_exact(0.1, 1, keyed(1))
    assert laws == [
        RoundedGaussian(Fraction(3, 10)),
        *[Skellam(Fraction(10**8, 6))] * 6,
        Skellam(Fraction(3602879701896397, 2**55)),
    ]


def test_exact_noise_is_the_default_while_it_is_cheap() -> None:
    assert exact_is_cheap(20.0 * 2**20, EXACT_UP_TO)
    assert not exact_is_cheap(20.0 * 2**20, EXACT_UP_TO + 1)
    assert not exact_is_cheap(2.0**40, 10)
