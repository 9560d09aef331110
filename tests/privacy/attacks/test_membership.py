"""Counts and rates against scikit-learn, scipy and the definition of differential privacy."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from privacy.attacks.gaussian_pair import epsilon_of
from privacy.attacks.membership import MAX_THRESHOLDS, auc, clopper_pearson, dp_ceiling, roc, tpr_at


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns(ties: bool) -> None:
    rng = np.random.default_rng(1)
    members, others = rng.normal(0.4, 1, 80), rng.normal(0, 1, 33)
    if ties:
        members, others = members.round(), others.round()
    counts = roc(members, others)
    truth = np.repeat([1, 0], [80, 33])
    assert auc(counts) == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])))


def test_counts_are_brute_forces() -> None:
    members, others = np.array([3.0, 1.0, 1.0, 5.0]), np.array([1.0, 4.0, 0.0])
    assert roc(members, others) == ((0, 1), (1, 1), (1, 2), (2, 4), (3, 4))


def test_many_thresholds_are_thinned_evenly() -> None:
    rng = np.random.default_rng(2)
    members, others = rng.normal(1, 1, 3000), rng.normal(0, 1, 3000)
    counts = roc(members, others)
    assert len(counts) == MAX_THRESHOLDS
    assert counts[-1] == (3000, 3000)
    truth = np.repeat([1, 0], [3000, 3000])
    assert auc(counts) == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])), abs=1e-4)


def test_the_rate_is_taken_at_the_least_strict_threshold_allowed() -> None:
    counts = ((0, 2), (1, 5), (1, 6), (4, 9), (10, 10))
    assert tpr_at(0.1, counts) == (1, 6)
    assert tpr_at(0.39, counts) == (1, 6)
    assert tpr_at(0.0, counts) == (0, 2)
    assert tpr_at(0.05, ((1, 3), (10, 10))) == (0, 0)


def test_nobody_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="each need scores"):
        roc(np.array([]), np.array([1.0]))
    with pytest.raises(ValueError, match="each need scores"):
        roc(np.array([math.nan]), np.array([1.0]))


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 17), (199, 200), (1, 1)])
def test_intervals_are_scipys(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n, 0.05) == pytest.approx((expected.low, expected.high))


def test_randomised_response_reaches_the_ceiling() -> None:
    q = 1 / (1 + math.exp(-1.3))
    assert dp_ceiling(1 - q, 1.3, 0.0) == pytest.approx(q)
    assert dp_ceiling(0.9, math.log(9), 0.0) == pytest.approx(1 - 0.1 / 9)
    assert dp_ceiling(0.4, 0.0, 0.0) == pytest.approx(0.4)
    assert dp_ceiling(0.0, 5.0, 0.01) == pytest.approx(0.01)
    assert dp_ceiling(0.5, 10**6, 0.0) == 1.0


def test_the_gaussian_mechanism_stays_below_the_ceiling_and_touches_it() -> None:
    epsilon = epsilon_of(1.0, 1e-3)
    false = np.geomspace(1e-8, 1, 4000)
    true = norm.cdf(norm.ppf(false) + 1)
    gap = np.array([dp_ceiling(float(rate), epsilon, 1e-3) for rate in false]) - true
    assert gap.min() > -1e-12
    assert gap.min() < 1e-4
