"""Bounds from right guesses, against high precision, published figures and brute force."""

import math
from decimal import Decimal

import mpmath
import numpy as np
import pytest

from privacy.attacks import one_run
from privacy.attacks.gaussian_pair import epsilon_of
from privacy.attacks.one_run import FDP_GRID, GRID, Guesses, tally

DELTA = 1e-5


def exact_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Steinke, Nasr and Jagielski, theorem 5.2, term by term at 60 digits."""
    with mpmath.workdps(60):
        q = 1 / (1 + mpmath.exp(-mpmath.mpf(epsilon)))
        mass = [mpmath.binomial(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
        tails = [mpmath.fsum(mass[k:]) for k in range(r + 2)]
        beta = tails[v]
        alpha = max([(tails[v - i] - beta) / i for i in range(1, v + 1)], default=mpmath.mpf(0))
        return float(min(mpmath.mpf(1), beta + 2 * m * mpmath.mpf(delta) * max(alpha, 0)))


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"),
    [
        (100, 100, 100, 2.8, 1e-5),
        (100, 20, 0, 1.0, 1e-5),
        (1000, 100, 95, 2.0, 1e-5),
        (1000, 100, 95, 2.5, 0.0),
        (1000, 100, 95, 0.0, 1e-3),
        (1000, 100, 61, 0.3, 1e-5),
        (4096, 162, 150, 2.1, 1e-5),
        (4096, 400, 320, 1.1, 1e-5),
    ],
)
def test_the_p_value_agrees_with_sixty_digits(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert abs(one_run.p_value(m, r, v, epsilon, delta) - exact_p_value(m, r, v, epsilon, delta)) < 1e-9


def test_delta_is_paid_for() -> None:
    assert one_run.p_value(4096, 162, 150, 2.1, 1e-5) > one_run.p_value(4096, 162, 150, 2.1, 0.0)


def test_without_delta_the_p_value_is_that_of_randomised_response() -> None:
    # The mechanism that keeps every coin with probability q is (epsilon, 0)-DP and exactly as revealing as that allows.
    rng = np.random.default_rng(5)
    right = rng.binomial(40, 1 / (1 + math.exp(-0.7)), 200_000)
    for v in (27, 30, 33):
        assert one_run.p_value(40, 40, v, 0.7, 0.0) == pytest.approx(float(np.mean(right >= v)), abs=4e-3)


# ``auditing.py`` of google-deepmind/jax_privacy (2026) gives these for one strategy at significance 0.05.
def test_the_f_dp_bound_is_jax_privacys() -> None:
    assert epsilon_of(one_run.fdp_mu(1000, 100, 95, 0.05), DELTA) == pytest.approx(3.3233, abs=1e-3)


def exact_fdp_margin(m: int, r: int, v: int, mu: float, p: float) -> float:
    """Mahloujifar, Melis and Chaudhuri, the recursion at 40 digits, written as differences of what was added."""
    with mpmath.workdps(40):
        h = {v: mpmath.mpf(p) * (r - v) / m}
        right = {v: mpmath.mpf(p) * v / m}
        for i in range(v - 1, -1, -1):
            quantile = mpmath.sqrt(2) * mpmath.erfinv(2 * right[i + 1] - 1)
            h[i] = max(h[i + 1], mpmath.ncdf(quantile - mu))
            right[i] = right[i + 1] + mpmath.mpf(i) / (r - i) * (h[i] - h[i + 1])
        return float(min(right[0], 1) + h[0] - mpmath.mpf(r) / m)


@pytest.mark.parametrize(("m", "r", "v", "p"), [(1000, 100, 95, 0.05), (400, 40, 39, 0.025), (200, 80, 60, 0.025)])
def test_the_largest_rejected_mu_agrees_with_forty_digits(m: int, r: int, v: int, p: float) -> None:
    mu = one_run.fdp_mu(m, r, v, p)
    assert mu > 0
    assert exact_fdp_margin(m, r, v, mu - 1e-6, p) > 0 > exact_fdp_margin(m, r, v, mu + 1e-6, p)


def test_half_right_guesses_refute_nothing() -> None:
    assert one_run.fdp_mu(1000, 100, 50, 0.05) == 0
    guesses = tuple(Guesses(fraction, sides, 100, 50) for fraction, sides in GRID)
    assert one_run.steinke(1000, guesses, DELTA) == 0
    assert one_run.fdp(1000, guesses, DELTA) == 0


def test_the_strategies_are_those_that_were_registered() -> None:
    assert len(GRID) == 11
    assert set(FDP_GRID) == {(Decimal("0.1"), 2), (Decimal("0.2"), 2)} < set(GRID)


@pytest.mark.parametrize(("m", "most"), [(100, 2.88), (200, 3.58), (400, 4.26)])
def test_the_ceilings_are_those_of_the_specification(m: int, most: float) -> None:
    assert one_run.ceiling(m, DELTA)[0] == pytest.approx(most, abs=0.005)


def test_trying_more_strategies_costs() -> None:
    one = Guesses(Decimal("0.1"), 2, 100, 95)
    blind = Guesses(Decimal("0.2"), 2, 200, 100)
    assert one_run.steinke(1000, [one, blind], DELTA) < one_run.steinke(1000, [one], DELTA)
    assert one_run.fdp(1000, [one, blind], DELTA) == pytest.approx(
        epsilon_of(one_run.fdp_mu(1000, 100, 95, 0.025), DELTA)
    )


def test_a_missing_strategy_is_an_error() -> None:
    with pytest.raises(ValueError, match="FDP_GRID"):
        one_run.fdp(1000, [Guesses(Decimal("0.1"), 2, 100, 95)], DELTA)


# Table C of the specification: the Gaussian mechanism in one release, Steinke's bound, mean of five runs.
@pytest.mark.parametrize(
    ("sigma", "m", "mean"),
    [(0.5, 500, 2.93), (0.5, 2000, 3.41), (1.0, 500, 1.30), (1.0, 2000, 1.68), (1.0, 10000, 1.82), (2.0, 2000, 0.62)],
)
def test_the_gaussian_mechanism_shows_what_the_specification_measured(sigma: float, m: int, mean: float) -> None:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(6):
        included = rng.random(m) < 0.5
        found.append(one_run.steinke(m, tally(included + sigma * rng.standard_normal(m), included), DELTA))
    # Their mean of five has an error of its own.
    error = float(np.std(found)) * math.sqrt(1 / 5 + 1 / 6)
    assert abs(float(np.mean(found)) - mean) < 3 * error + 0.02
    assert max(found) < epsilon_of(1 / sigma, DELTA)


def test_bounds_are_wrong_no_more_often_than_they_say() -> None:
    rng, m, wrong = np.random.default_rng(3), 200, np.zeros(2)
    formal = epsilon_of(0.2, DELTA)
    for _ in range(80):
        included = rng.random(m) < 0.5
        guesses = tally(included + 5 * rng.standard_normal(m), included)
        wrong += [one_run.steinke(m, guesses, DELTA) > formal, one_run.fdp(m, guesses, DELTA) > formal]
    assert (wrong <= 0.05 * 80 + 5).all()


def test_right_guesses_are_counted_on_both_sides() -> None:
    scores = np.arange(100.0)
    included = scores >= 40
    by = {(one.fraction, one.sides): one for one in tally(scores, included)}
    assert by[Decimal("0.05"), 1] == Guesses(Decimal("0.05"), 1, 5, 5)
    assert by[Decimal("0.5"), 2] == Guesses(Decimal("0.5"), 2, 100, 90)


def test_ties_go_against_the_attacker() -> None:
    included = np.array([True, False] * 100)
    for one in tally(np.zeros(200), included):
        assert one.correct == 0
    half_blind = np.where(included, 1.0, 0.0)
    half_blind[:20] = 0.5
    for one in tally(half_blind, included):
        assert one.correct <= one.guesses
    assert tally(half_blind, included)[-1].correct == 180


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="number"):
        tally(np.array([0.0, math.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="number"):
        tally(np.zeros(3), np.array([True, False]))
