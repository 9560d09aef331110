"""The one-shot estimate against published figures and numerical integration."""

import math

import pytest
from scipy.integrate import quad
from scipy.stats import norm

from privacy.attacks.gaussian_pair import epsilon_of
from privacy.attacks.one_shot import estimate

DIMENSION = 10_000
NULL = 1 / math.sqrt(DIMENSION)


# Andrew et al., table 1: the Gaussian mechanism at delta 1e-6.
@pytest.mark.parametrize(("sigma", "epsilon"), [(4.22, 1.0), (1.54, 3.0), (0.541, 10.0)])
def test_equal_deviations_are_the_gaussian_mechanism(sigma: float, epsilon: float) -> None:
    found = estimate(NULL / sigma, NULL, DIMENSION, 1e-6)
    assert found == pytest.approx(epsilon, rel=5e-3)
    assert found == pytest.approx(epsilon_of(1 / sigma, 1e-6), rel=1e-6)


def integrated(mean: float, sd: float, epsilon: float) -> float:
    """The larger hockey-stick divergence of N(mean, sd^2) and N(0, 1), by quadrature."""

    def gap(x: float, sign: int) -> float:
        p, q = norm.pdf(x, mean, sd), norm.pdf(x)
        return float(max(0.0, p - math.exp(epsilon) * q if sign > 0 else q - math.exp(epsilon) * p))

    return max(float(quad(gap, -15, 15, args=(sign,), limit=2000, epsabs=1e-13)[0]) for sign in (1, -1))


@pytest.mark.parametrize(("mean", "sd"), [(1.0, 0.7), (1.0, 1.4), (0.0, 1.3), (2.0, 0.95), (-1.0, 1.1), (0.0, 0.6)])
def test_unequal_deviations_agree_with_quadrature(mean: float, sd: float) -> None:
    found = estimate(mean * NULL, sd * NULL, DIMENSION, 1e-3)
    assert integrated(mean, sd, found) == pytest.approx(1e-3, rel=1e-3)


def test_canaries_that_look_unseen_estimate_nothing() -> None:
    assert estimate(0.0, NULL, DIMENSION, 1e-5) == pytest.approx(0, abs=1e-9)


def test_a_model_that_shows_them_plainly_estimates_much() -> None:
    assert estimate(0.5, 0.01, DIMENSION, 1e-5) > 500


def test_one_and_the_same_score_has_no_law() -> None:
    with pytest.raises(ValueError, match="no law"):
        estimate(0.1, 0.0, DIMENSION, 1e-5)
