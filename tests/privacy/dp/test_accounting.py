"""Accounting against published closed forms, dp-accounting driven directly and Opacus' independent PRV."""

from decimal import Decimal

import dp_accounting
import pytest
from dp_accounting import dp_event, pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant

from privacy.dp.accounting import (
    INTEGER_ORDERS,
    Accountant,
    accountant_for,
    calibrate_noise,
    curve,
    epsilon,
    posterior_from_even_odds,
    round_up,
)
from privacy.dp.events import (
    FULL_BATCH,
    Arithmetic,
    Event,
    GaussianEvent,
    Relation,
    Sampling,
    SamplingType,
    SkellamEvent,
)
from privacy.dp.renyi import skellam_divergence
from privacy.errors import ConfigError, UnsupportedEventError

# Measured with dp-accounting 0.6 and cross-checked with Microsoft's prv_accountant 0.2 (privacy-audit.md, 1.2):
# rate, multiplier, count, delta, RDP under zero-out, PLD under zero-out, PLD under replace-one.
REFERENCE = [
    ("1", "1", 1, "0.00001", 4.7285, 4.3772, 9.9973),
    ("1", "5", 100, "0.00001", 10.7255, 9.9973, 24.3816),
    ("0.01", "1.1", 1000, "0.00001", 1.7118, 1.5154, 2.4778),
    ("0.01", "1.0", 10000, "0.00001", 6.7128, 6.1877, 10.8808),
    ("0.05", "1.0", 500, "0.00001", 8.3016, 7.5237, 12.1438),
    ("0.1", "2.0", 1000, "0.00001", 8.9470, 8.2793, 17.6851),
    ("0.3", "1.5", 50, "0.001", 6.6623, 5.7699, 11.5067),
]
ZERO_OUT = Relation.REPLACE_SPECIAL
DELTA = Decimal("0.001")
SKELLAM = SkellamEvent(Decimal(256 * 1448**2), Decimal(1448), Decimal(65529), 3)


def event(rate: str, multiplier: str, count: int, group: int = 1) -> GaussianEvent:
    sampling = FULL_BATCH if rate == "1" else Sampling(SamplingType.POISSON, Decimal(rate))
    return GaussianEvent(Decimal(multiplier), sampling, count, group)


@pytest.mark.parametrize(("rate", "multiplier", "count", "delta", "by_rdp", "zero_out", "replace_one"), REFERENCE)
def test_the_reference_table(
    rate: str, multiplier: str, count: int, delta: str, by_rdp: float, zero_out: float, replace_one: float
) -> None:
    events, d = [event(rate, multiplier, count)], Decimal(delta)
    assert epsilon(events, d, ZERO_OUT) == pytest.approx(zero_out, abs=0.01)
    assert epsilon(events, d, Relation.REPLACE_ONE) == pytest.approx(replace_one, abs=0.01)
    assert epsilon(events, d, ZERO_OUT, "RDP") == pytest.approx(by_rdp, rel=0.01)
    assert by_rdp >= zero_out


def test_rdp_prices_full_batches_under_replace_one_as_half_the_noise() -> None:
    assert epsilon([event("1", "1", 1)], Decimal("0.00001"), Relation.REPLACE_ONE, "RDP") == pytest.approx(
        10.7255, rel=0.01
    )


@pytest.mark.parametrize(("multiplier", "count"), [("10.6156", 17), ("71.7602", 17), ("2", 5)])
def test_full_batches_equal_the_closed_form(multiplier: str, count: int) -> None:
    """T Gaussian steps are one at multiplier / sqrt(T) (Balle and Wang 2018, theorem 8)."""
    sigma = float(multiplier) / count**0.5
    expected = dp_accounting.get_epsilon_gaussian(sigma, 1e-3)
    assert epsilon([event("1", multiplier, count)], DELTA, ZERO_OUT) == pytest.approx(expected, abs=1e-4)


def test_unlike_full_batches_equal_the_closed_form() -> None:
    """Gaussians of different noise are one Gaussian, people with k records one of k times the sensitivity."""
    events = [event("1", "8", 5), event("1", "30", 9), event("1", "40", 2, group=3)]
    sigma = (5 / 64 + 9 / 900 + 2 * 9 / 1600) ** -0.5
    expected = dp_accounting.get_epsilon_gaussian(sigma, 1e-3)
    assert epsilon(events, DELTA, ZERO_OUT) == pytest.approx(expected, abs=1e-4)
    assert epsilon(events, DELTA, Relation.REPLACE_ONE) == pytest.approx(
        dp_accounting.get_epsilon_gaussian(sigma / 2, 1e-3), abs=1e-4
    )


def test_poisson_agrees_with_opacus_prv() -> None:
    prv = PRVAccountant()
    prv.history = [(1.5, 0.3, 50)]
    upper = prv.get_epsilon(delta=1e-3, eps_error=0.001)
    assert epsilon([event("0.3", "1.5", 50)], DELTA, ZERO_OUT) == pytest.approx(upper, abs=0.002)


def test_unlike_events_equal_dp_accounting_driven_directly() -> None:
    events = [event("1", "20", 5), event("0.1", "5", 20), event("1", "30", 1), event("0.02", "3", 30)]
    for accountant, direct in (("PLD", pld.PLDAccountant()), ("RDP", rdp.RdpAccountant())):
        direct.compose(dp_event.GaussianDpEvent(20.0), 5)
        direct.compose(dp_event.PoissonSampledDpEvent(0.1, dp_event.GaussianDpEvent(5.0)), 20)
        direct.compose(dp_event.GaussianDpEvent(30.0))
        direct.compose(dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(3.0)), 30)
        ours = epsilon(events, DELTA, ZERO_OUT, "PLD" if accountant == "PLD" else "RDP")
        assert ours == pytest.approx(direct.get_epsilon(1e-3), abs=2e-5), accountant


@pytest.mark.parametrize("relation", [ZERO_OUT, Relation.REPLACE_ONE])
def test_truncated_batches_equal_dp_accounting_driven_directly(relation: Relation) -> None:
    names = {ZERO_OUT: "REPLACE_SPECIAL", Relation.REPLACE_ONE: "REPLACE_ONE"}
    direct = pld.PLDAccountant(dp_accounting.NeighboringRelation[names[relation]])
    direct.compose(dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.05, 55, 8.0), 40)
    sampling = Sampling(SamplingType.TRUNCATED, Decimal("0.05"), cap=55, n_records=1000)
    truncated = epsilon([GaussianEvent(Decimal(8), sampling, 40)], DELTA, relation)
    assert truncated == pytest.approx(direct.get_epsilon(1e-3), abs=1e-9)
    assert truncated > epsilon([event("0.05", "8", 40)], DELTA, relation)


def test_groups_equal_dp_accounting_driven_directly() -> None:
    direct = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    direct.compose(dp_event.MixtureOfGaussiansDpEvent(20.0, [0, 1, 2], [0.9025, 0.095, 0.0025]), 400)
    group = epsilon([event("0.05", "20", 400, group=2)], DELTA, ZERO_OUT)
    assert group == pytest.approx(direct.get_epsilon(1e-3), abs=1e-9)
    assert group > epsilon([event("0.05", "20", 400)], DELTA, ZERO_OUT)


@pytest.mark.soak
def test_the_published_values_of_groups_and_truncated_batches() -> None:
    """privacy-audit.md, 1.2, below the table."""
    delta = Decimal("0.00001")
    sampling = Sampling(SamplingType.TRUNCATED, Decimal("0.05"), cap=80, n_records=1000)
    assert epsilon([event("0.05", "1", 500, group=2)], delta, ZERO_OUT) == pytest.approx(17.5386, abs=0.01)
    assert epsilon([GaussianEvent(Decimal(1), sampling, 500)], delta, ZERO_OUT) == pytest.approx(7.5476, abs=0.01)


def test_gaussian_and_skellam_noise_add_up_in_rdp() -> None:
    """At every order the two divergences add."""
    events: list[Event] = [event("0.1", "2", 20), SKELLAM]
    direct = rdp.RdpAccountant(INTEGER_ORDERS)
    direct.compose(dp_event.PoissonSampledDpEvent(0.1, dp_event.GaussianDpEvent(2.0)), 20)
    extra = [float(skellam_divergence(SKELLAM, order, ZERO_OUT)) for order in INTEGER_ORDERS]
    expected, _ = rdp.compute_epsilon(INTEGER_ORDERS, direct.rdp + extra, 1e-3)
    assert epsilon(events, DELTA, ZERO_OUT, "RDP") == pytest.approx(expected, abs=1e-12)
    assert accountant_for(events) == "RDP"
    assert accountant_for(events[:1]) == "PLD"


def test_composition_does_not_depend_on_how_executions_are_listed() -> None:
    whole, parts = [event("1", "5", 15)], [event("1", "5", 1)] * 15
    assert epsilon(whole, DELTA, ZERO_OUT) == epsilon(parts, DELTA, ZERO_OUT)


def test_how_noise_was_drawn_has_no_price() -> None:
    floats = event("0.1", "2", 10)
    exact = GaussianEvent(floats.noise_multiplier, floats.sampling, 10, arithmetic=Arithmetic.INTEGER_EXACT)
    assert epsilon([floats, exact], DELTA, ZERO_OUT) == epsilon([floats.times(20)], DELTA, ZERO_OUT)


def test_nothing_executed_costs_nothing() -> None:
    assert epsilon([], DELTA, ZERO_OUT) == 0.0


def test_an_unpriced_combination_is_refused() -> None:
    truncated = Sampling(SamplingType.TRUNCATED, Decimal("0.05"), cap=80, n_records=1000)
    with pytest.raises(UnsupportedEventError, match="RDP does not price"):
        epsilon([event("0.3", "1.5", 50)], DELTA, Relation.REPLACE_ONE, "RDP")
    with pytest.raises(UnsupportedEventError, match="RDP does not price"):
        epsilon([event("0.3", "1.5", 50, group=2)], DELTA, ZERO_OUT, "RDP")
    with pytest.raises(UnsupportedEventError, match="RDP does not price"):
        epsilon([GaussianEvent(Decimal(1), truncated, 1)], DELTA, ZERO_OUT, "RDP")
    with pytest.raises(UnsupportedEventError, match="PLD does not price"):
        epsilon([event("0.3", "1.5", 50, group=2)], DELTA, Relation.REPLACE_ONE)
    with pytest.raises(UnsupportedEventError, match="PLD does not price"):
        epsilon([event("1", "5", 1), SKELLAM], DELTA, ZERO_OUT)
    with pytest.raises(UnsupportedEventError, match="secret"):
        epsilon([SKELLAM], DELTA, Relation.ADD_OR_REMOVE_ONE, "RDP")
    for delta in ("0", "1", "NaN"):
        with pytest.raises(UnsupportedEventError, match="delta"):
            epsilon([event("1", "1", 1)], Decimal(delta), ZERO_OUT)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["1", "0.2"]),
    st.decimals("1", "20", places=2),
    st.decimals("0.1", "5", places=2),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_more_noise_never_costs_more_and_more_executions_never_less(
    rate: str, multiplier: Decimal, more: Decimal, count: int, extra: int
) -> None:
    base = event(rate, str(multiplier), count)
    quieter = event(rate, str(multiplier + more), count)

    def price(*events: GaussianEvent) -> float:
        return epsilon([*events], DELTA, ZERO_OUT, "RDP")

    assert price(quieter) <= price(base) <= price(base.times(count + extra))
    assert price(base) <= price(base, event("1", "100", 1))


@pytest.mark.parametrize(("rate", "target"), [("1", "1"), ("1", "0.1"), ("0.1", "0.5")])
def test_calibration_meets_the_target_and_wastes_nothing(rate: str, target: str) -> None:
    multiplier = calibrate_noise(event(rate, "1", 17), target=Decimal(target), delta=DELTA)
    at = epsilon([event(rate, str(multiplier), 17)], DELTA, ZERO_OUT)
    below = epsilon([event(rate, str(multiplier - Decimal("0.001")), 17)], DELTA, ZERO_OUT)
    assert at <= float(target) < below


def test_calibration_for_people_with_several_records() -> None:
    """Full batches: k records need k times the noise, and replaced ones twice that."""
    one = calibrate_noise(event("1", "1", 17), target=Decimal(1), delta=DELTA)
    three = calibrate_noise(event("1", "1", 17, group=3), target=Decimal(1), delta=DELTA, relation=Relation.REPLACE_ONE)
    assert float(three) == pytest.approx(6 * float(one), abs=6e-4)


def test_the_noise_of_the_hospitals_run() -> None:
    """15 rounds and 2 retries, full batch, epsilon 1 at delta 1e-3; RDP and replace-one as published beside it."""
    multiplier = calibrate_noise(event("1", "1", 17), target=Decimal(1), delta=DELTA)
    closed = dp_accounting.get_sigma_gaussian(1.0, 1e-3) * 17**0.5
    assert float(multiplier) == pytest.approx(closed, abs=2e-4)
    events = [event("1", str(multiplier), 17)]
    assert epsilon(events, DELTA, ZERO_OUT, "RDP") == pytest.approx(1.150, abs=1e-3)
    assert epsilon(events, DELTA, Relation.REPLACE_ONE) == pytest.approx(2.30, abs=0.01)


@pytest.mark.parametrize(
    ("target", "delta"), [("0", "0.001"), ("-1", "0.001"), ("1", "0"), ("1", "1"), ("NaN", "0.1"), ("1", "NaN")]
)
def test_unusable_targets_are_the_users_mistake(target: str, delta: str) -> None:
    with pytest.raises(ConfigError):
        calibrate_noise(event("1", "1", 1), target=Decimal(target), delta=Decimal(delta))


def test_epsilon_is_written_rounded_up() -> None:
    assert round_up(0.99990000001) == "1.0000"
    assert round_up(1.0) == "1.0000"
    assert round_up(float("inf")) == "inf"


def test_what_epsilon_means_in_words() -> None:
    assert posterior_from_even_odds(1.0) == pytest.approx(0.731, abs=1e-3)
    assert posterior_from_even_odds(0.0) == 0.5


@pytest.mark.parametrize(
    ("events", "by", "close"),
    [
        ([event("1", "5", 100), event("1", "2", 3, group=2)], "PLD", 1e-6),
        ([event("0.3", "1.5", 50), event("1", "5", 4)], "PLD", 1e-9),
        ([event("0.3", "1.5", 50)], "RDP", 1e-9),
        ([SKELLAM], "RDP", 1e-9),
    ],
)
def test_a_curve_is_epsilon_at_each_delta(events: list[Event], by: Accountant, close: float) -> None:
    deltas = (Decimal("0.1"), Decimal("0.00001"))
    for found, delta in zip(curve(tuple(events), deltas, by), deltas, strict=True):
        assert found == pytest.approx(epsilon(events, delta, ZERO_OUT, by), abs=close)


@pytest.mark.parametrize("delta", ["0", "1", "NaN"])
def test_a_curve_needs_deltas_that_are_probabilities(delta: str) -> None:
    with pytest.raises(UnsupportedEventError):
        curve((event("1", "5", 1),), (DELTA, Decimal(delta)), "PLD")
