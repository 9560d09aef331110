"""The grid in front of the masks: a weighted mean that comes out as it would in floating point, to half a unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.errors import ConfigError, SensitivityError
from strategies.contribution import Contribution, Declared, weighted_mean
from strategies.secure_sum import BITS, FRACTION_BITS, plan_digest, region, to_aggregate, to_units, values_digest
from strategies.task import SiteId

BOTH = Declared(("update", "control"))
SIZE = 3
entries = st.floats(-1000, 1000, width=32)
vectors = hnp.arrays(np.float32, SIZE, elements=entries)
contributions = st.builds(lambda a, b: Contribution({"update": a, "control": b}), vectors, vectors)


def no_entropy(_: int) -> bytes:
    pytest.fail("rounding to nearest draws nothing")


@given(st.lists(st.tuples(contributions, st.integers(1, 10**6)), min_size=1, max_size=5))
def test_the_sum_on_the_grid_is_the_weighted_mean(given_sites: list[tuple[Contribution, int]]) -> None:
    sites = [SiteId(f"s{place}") for place in range(len(given_sites))]
    weights = {site: float(weight) for site, (_, weight) in zip(sites, given_sites, strict=True)}
    units = [to_units(each, BOTH, weight, no_entropy) for each, weight in given_sites]
    found = to_aggregate(sum(units[1:], start=units[0]), BOTH, SIZE, list(weights.values()))
    exact = weighted_mean([(site, each) for site, (each, _) in zip(sites, given_sites, strict=True)], weights)
    assert found.weight == exact.weight
    for name in BOTH.arrays:
        np.testing.assert_allclose(found.mean[name], exact.mean[name], rtol=1e-12, atol=2.0 ** -(FRACTION_BITS + 1))


def test_no_sum_that_the_region_admits_wraps() -> None:
    """docs/protocol.md §2.3, at the most sites and the heaviest weight that a hospital run could have."""
    cohort = [f"s{place:03}" for place in range(100)]
    whole = region(BOTH, SIZE, cohort, heaviest=10**6)
    whole.check(sorted(cohort), BITS)
    assert len(whole.blocks) == 2
    largest = Contribution({"update": np.full(SIZE, 1024, np.float32), "control": np.full(SIZE, -1024, np.float32)})
    units = to_units(largest, BOTH, 10**6, no_entropy)
    assert np.abs(units).max() == whole.blocks[0].bound


@pytest.mark.parametrize("value", [1024.1, -2000.0, np.inf, np.nan])
def test_what_no_honest_update_reaches_is_refused_and_never_cut_off(value: float) -> None:
    wild = Contribution({"update": np.array([0, value, 0], np.float32)})
    with pytest.raises(SensitivityError):
        to_units(wild, Declared(("update",)), 1, no_entropy)


def test_scalars_do_not_ride_along() -> None:
    with pytest.raises(ConfigError, match="does not pair"):
        region(Declared(("update",), ("loss",)), SIZE, ["a", "b", "c"], 1)


def test_digests_tell_plans_and_models_apart() -> None:
    one = {"model": np.zeros(2, np.float32), "control": np.ones(2, np.float32)}
    assert values_digest(one) == values_digest(dict(reversed(one.items())))
    assert values_digest(one) != values_digest({**one, "model": np.ones(2, np.float32)})
    assert values_digest(one) != values_digest({"model": one["control"], "control": one["model"]})
    assert plan_digest(BOTH, 3) != plan_digest(BOTH, 4) != plan_digest(Declared(("update",)), 4)
