"""Skellam noise: the Rényi bound against published values and the exact divergence, and the numbers of its shares."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ive, logsumexp

from privacy.dp.accounting import INTEGER_ORDERS, epsilon
from privacy.dp.events import Relation, SkellamEvent, event_from_json
from privacy.dp.renyi import divergences, skellam_divergence
from privacy.dp.skellam import HEAD_ROOM, LARGEST_DEVIATION, DistributedNoise
from privacy.errors import ConfigError, UnsupportedEventError

ZERO_OUT = Relation.REPLACE_SPECIAL
DELTA = Decimal("0.00001")


def _published(n: int, d: int, bits: int, z: int, drops: int = 0) -> SkellamEvent:
    """One round as privacy-audit.md 1.5 sets it up: clip 1, scale by the modulus with k = 4, conditional rounding."""
    modulus = 2**bits
    scale = math.sqrt(modulus**2 - 16 * n) / (8 * math.sqrt(n * n / d + z * z))
    spread = math.sqrt(d) / 2
    l2 = math.sqrt(min((scale + 2 * spread) ** 2, scale**2 + d / 4 + scale + spread))
    l1 = min(math.sqrt(d) * l2, l2 * l2)
    variance = (scale * z) ** 2 * (n - drops) / n
    return SkellamEvent(Decimal(repr(variance)), Decimal(repr(l2)), Decimal(repr(l1)), 1)


@pytest.mark.parametrize(
    ("n", "d", "bits", "count", "together", "one_missing"),
    [
        (4, 2048, 16, 20, 5.3797, 6.4220),
        (4, 2048, 20, 20, 5.3778, 6.4195),
        (8, 65536, 20, 50, 9.3381, 10.1591),
        (8, 65536, 24, 50, 9.3379, 10.1588),
        (16, 2**20, 24, 50, 9.3379, 9.7545),
    ],
)
def test_the_published_values(n: int, d: int, bits: int, count: int, together: float, one_missing: float) -> None:
    for drops, expected in ((0, together), (1, one_missing)):
        event = _published(n, d, bits, 4, drops).times(count)
        assert epsilon([event], DELTA, ZERO_OUT, "RDP") == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("variance", [0.5, 2.0, 20.0, 300.0, 10_000.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_bound_is_never_below_the_exact_divergence(variance: float, shift: int, order: int) -> None:
    """One coordinate, where the divergence is a sum over integers: e^-v I_k(v) is the chance of k."""
    reach = shift * (order + 1) + math.ceil(20 * math.sqrt(variance)) + 20
    k = np.arange(-reach, reach + 1)
    centred, moved = np.log(ive(np.abs(k), variance)), np.log(ive(np.abs(k - shift), variance))
    terms = order * moved + (1 - order) * centred
    assert np.isfinite(terms).all()
    exact = logsumexp(terms) / (order - 1)
    event = SkellamEvent(Decimal(variance), Decimal(shift), Decimal(shift), 1)
    bound = float(skellam_divergence(event, order, ZERO_OUT))
    assert exact <= bound
    if variance >= 20 * shift:  # and not far above it either, so the sum missed nothing
        assert exact == pytest.approx(bound, rel=4 * shift / variance)


skellams = st.builds(
    SkellamEvent,
    st.decimals("1", "1e9", places=2),
    st.decimals("1", "1000", places=2),
    st.decimals("1000", "1e5", places=2),
    st.integers(1, 1000),
)


@given(skellams, st.integers(2, 1024), st.decimals("0.01", "100", places=2), st.sampled_from(["variance", "l2", "l1"]))
def test_more_noise_never_costs_more_and_longer_vectors_never_less(
    event: SkellamEvent, order: int, more: Decimal, what: str
) -> None:
    numbers = {"variance": event.variance, "l2": event.l2, "l1": event.l1 + 100}
    base = SkellamEvent(**numbers, count=event.count)
    other = SkellamEvent(**{**numbers, what: numbers[what] + more}, count=event.count)
    price, changed = (skellam_divergence(one, order, ZERO_OUT) for one in (base, other))
    assert changed < price if what == "variance" else changed >= price
    assert skellam_divergence(base, order, Relation.REPLACE_ONE) > price
    assert skellam_divergence(base.times(1), order, ZERO_OUT) * event.count == price


def test_replacing_moves_the_sum_twice_as_far() -> None:
    event = SkellamEvent(Decimal(400), Decimal(5), Decimal(20), 3)
    far = SkellamEvent(Decimal(400), Decimal(10), Decimal(40), 3)
    assert skellam_divergence(event, 7, Relation.REPLACE_ONE) == skellam_divergence(far, 7, ZERO_OUT)
    # order l2^2 / 2 variance + min((2 order - 1) l2^2 + 6 l1) / 4 variance^2, 3 l1 / 2 variance), by hand
    assert skellam_divergence(event, 7, ZERO_OUT) == 3 * (Fraction(7 * 25, 800) + Fraction(13 * 25 + 120, 640000))
    quiet = SkellamEvent(Decimal("0.1"), Decimal(5), Decimal(20), 1)
    assert skellam_divergence(quiet, 2, ZERO_OUT) == Fraction(50 * 10, 2) + Fraction(60 * 10, 2)


@pytest.mark.parametrize("order", [1.5, 1, 2.5])
def test_there_is_no_bound_but_at_integers_from_two(order: float) -> None:
    with pytest.raises(UnsupportedEventError, match="no bound"):
        divergences([SkellamEvent(Decimal(400), Decimal(5), Decimal(20), 3)], [order], ZERO_OUT)


noises = st.builds(
    DistributedNoise,
    st.decimals("0.001", "100", places=3),
    st.decimals("0.05", "60", places=4),
    st.integers(1, 99),
    st.integers(1, 4000),
)


@given(noises)
def test_the_grid_is_the_finest_that_shares_allow_and_shares_bring_what_is_priced(noise: DistributedNoise) -> None:
    z, l2, m = Fraction(noise.noise_multiplier), noise.l2, noise.counted
    share, event = noise.share_variance(), noise.event(5)
    assert (z * l2) ** 2 / m <= LARGEST_DEVIATION**2 < (z * (l2 + 1)) ** 2 / m
    assert share <= LARGEST_DEVIATION**2
    assert event.variance <= (z * l2) ** 2 <= m * share
    assert (z * l2) ** 2 - Fraction(event.variance) < Fraction(1, 10**6)
    assert event.l2 == Decimal(l2)
    assert event.count == 5
    assert event.l1 >= min(Decimal(l2 * l2), Decimal(noise.dimension).sqrt() * l2 * (1 - Decimal("1e-25")))
    assert noise.scale == pytest.approx(l2 / float(noise.clip))
    assert event_from_json(event.to_json()) == event


@given(noises, st.integers(0, 30))
def test_a_region_with_more_holders_has_smaller_shares_that_still_add_up(noise: DistributedNoise, more: int) -> None:
    holders = noise.counted + more
    assert noise.share_variance(holders) * holders >= noise.event(1).variance
    assert noise.share_variance(holders) <= noise.share_variance()
    assert DistributedNoise(noise.clip, noise.noise_multiplier, holders, noise.dimension).l2 >= noise.l2


def test_a_region_with_fewer_holders_than_planned_is_refused() -> None:
    noise = DistributedNoise(Decimal(1), Decimal(4), 3, 10)
    with pytest.raises(ConfigError, match="counts on 3"):
        noise.share_variance(2)


@given(st.lists(st.integers(-90, 90), min_size=1, max_size=12), st.integers(16, 800))
def test_no_integer_vector_within_the_2_norm_exceeds_the_1_norm(entries: list[int], z: int) -> None:
    noise = DistributedNoise(Decimal(1), Decimal(z), 1, len(entries))
    assume(sum(entry * entry for entry in entries) <= noise.l2**2)
    assert sum(map(abs, entries)) <= noise.l1


@pytest.mark.parametrize(
    ("counted", "dimension", "count"), [(4, 2048, 20), (8, 65536, 50), (16, 2**20, 50), (2, 14, 17)]
)
def test_distributed_noise_costs_what_the_gaussian_costs(counted: int, dimension: int, count: int) -> None:
    """docs/privacy-rules.md, 6: with rounding toward zero and 12-bit shares the grid costs nothing to speak of."""
    event = DistributedNoise(Decimal(1), Decimal(4), counted, dimension).event(count)
    gaussian, _ = rdp.compute_epsilon(INTEGER_ORDERS, [count * a / 32 for a in INTEGER_ORDERS], 1e-5)
    assert gaussian < epsilon([event], DELTA, ZERO_OUT, "RDP") <= gaussian + 1e-3


@pytest.mark.parametrize(
    ("target", "counted", "dimension", "executions"), [("1", 2, 14, 17), ("8", 3, 2000, 60), ("0.1", 10, 14, 15)]
)
def test_calibration_meets_the_target_and_wastes_nothing(
    target: str, counted: int, dimension: int, executions: int
) -> None:
    delta = Decimal("0.001")
    noise = DistributedNoise.calibrated(
        target=Decimal(target),
        delta=delta,
        clip=Decimal(2),
        counted=counted,
        dimension=dimension,
        executions=executions,
    )
    less = DistributedNoise(Decimal(2), noise.noise_multiplier - Decimal("0.01"), counted, dimension)
    at, below = (epsilon([one.event(executions)], delta, ZERO_OUT, "RDP") for one in (noise, less))
    assert at <= float(target) < below


def test_who_is_missing_raises_epsilon_and_more_survivors_lower_it() -> None:
    noise = DistributedNoise(Decimal(1), Decimal(4), 4, 2048)
    prices = [epsilon([noise.hypothetical(4 - t, 20)], DELTA, ZERO_OUT, "RDP") for t in (-2, 0, 1, 2)]
    assert prices == sorted(prices)
    assert prices[1] == pytest.approx(epsilon([noise.event(20)], DELTA, ZERO_OUT, "RDP"), abs=1e-6)
    assert prices[2] == pytest.approx(6.4195, abs=1e-3)


def test_noise_beyond_the_bound_is_rarer_than_anything() -> None:
    """Chernoff at t = v a: log P(|share| >= t) <= log 2 + v (cosh a - 1) - v a^2; 2^32 entries, 100 sites."""
    noise = DistributedNoise(Decimal(1), Decimal(4), 2, 2048)
    variance = noise.share_variance()
    a = HEAD_ROOM / math.sqrt(variance)
    log_p = math.log(2 * 2**32 * 100) + variance * (math.cosh(a) - 1 - a * a)
    assert log_p < -690 * math.log(2)
    assert noise.bound(3, bits=64) - noise.largest_entry() >= HEAD_ROOM * math.sqrt(variance)
    assert HEAD_ROOM >= 8.9


def test_a_ring_too_narrow_for_the_sum_is_refused() -> None:
    noise = DistributedNoise(Decimal(1), Decimal(4), 2, 2048)
    entry = noise.bound(100, bits=32)
    assert entry == 1448 + 32 * 4096
    assert noise.bound(3, bits=32, records=500) == 500 * 1448 + 32 * 4096
    with pytest.raises(ConfigError, match="do not fit"):
        noise.bound(100, bits=32, records=20_000)
    assert noise.bound(100, bits=64, records=20_000) == 20_000 * 1448 + 32 * 4096


@pytest.mark.parametrize(
    ("clip", "multiplier", "counted", "dimension"),
    [
        ("0", "4", 2, 14),
        ("NaN", "4", 2, 14),
        ("1", "0", 2, 14),
        ("1", "Infinity", 2, 14),
        ("1", "4", 0, 14),
        ("1", "4", -1, 14),
        ("1", "4", 2, 0),
        ("1", "5000", 1, 1),
        ("1", "4", 2, 1448**2 + 1),
        ("1", "0.00001", 2, 14),
    ],
)
def test_numbers_that_no_grid_fits_are_the_users_mistake(
    clip: str, multiplier: str, counted: int, dimension: int
) -> None:
    with pytest.raises(ConfigError):
        DistributedNoise(Decimal(clip), Decimal(multiplier), counted, dimension)


@pytest.mark.parametrize(
    ("target", "counted", "executions"), [("0", 2, 17), ("1", 0, 17), ("0.001", 2, 10**6), ("NaN", 2, 17), ("1", 2, 0)]
)
def test_targets_that_no_noise_meets_are_the_users_mistake(target: str, counted: int, executions: int) -> None:
    with pytest.raises(ConfigError, match=r"needs epsilon|add no noise|no noise on the grid"):
        DistributedNoise.calibrated(
            target=Decimal(target), delta=DELTA, clip=Decimal(1), counted=counted, dimension=14, executions=executions
        )
