"""Accounting against published closed forms, dp-accounting's own Gaussian formula and Opacus' independent PRV."""

from decimal import Decimal

import dp_accounting
import pytest
from opacus.accountants import PRVAccountant

from privacy.dp.accounting import calibrate_noise, epsilon, posterior_from_even_odds, round_up
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation, Sampling, SamplingType
from privacy.errors import ConfigError, UnsupportedEventError

# Measured with dp-accounting 0.6 and cross-checked with Microsoft's prv_accountant 0.2 (privacy-audit.md, 1.2):
# rate, multiplier, count, delta, PLD under zero-out, PLD under replace-one.
ORACLE = [
    ("1", "1", 1, "0.00001", 4.3772, 9.9973),
    ("1", "5", 100, "0.00001", 9.9973, 24.3816),
    ("0.01", "1.1", 1000, "0.00001", 1.5154, 2.4778),
    ("0.3", "1.5", 50, "0.001", 5.7699, 11.5067),
]


def event(rate: str, multiplier: str, count: int) -> GaussianEvent:
    sampling = FULL_BATCH if rate == "1" else Sampling(SamplingType.POISSON, Decimal(rate))
    return GaussianEvent(Decimal(multiplier), sampling, count)


@pytest.mark.parametrize(("rate", "multiplier", "count", "delta", "zero_out", "replace_one"), ORACLE)
def test_pld_equals_the_reference_table(
    rate: str, multiplier: str, count: int, delta: str, zero_out: float, replace_one: float
) -> None:
    events = [event(rate, multiplier, count)]
    assert epsilon(events, Decimal(delta), Relation.REPLACE_SPECIAL) == pytest.approx(zero_out, abs=0.01)
    assert epsilon(events, Decimal(delta), Relation.REPLACE_ONE) == pytest.approx(replace_one, abs=0.01)


@pytest.mark.parametrize(("multiplier", "count"), [("10.6156", 17), ("71.7602", 17), ("2", 5)])
def test_full_batches_equal_the_closed_form(multiplier: str, count: int) -> None:
    """T Gaussian steps are one at multiplier / sqrt(T) (Balle and Wang 2018, theorem 8)."""
    sigma = float(multiplier) / count**0.5
    expected = dp_accounting.get_epsilon_gaussian(sigma, 1e-3)
    got = epsilon([event("1", multiplier, count)], Decimal("0.001"), Relation.REPLACE_SPECIAL)
    assert got == pytest.approx(expected, abs=1e-4)


def test_poisson_agrees_with_opacus_prv() -> None:
    prv = PRVAccountant()
    prv.history = [(1.5, 0.3, 50)]
    upper = prv.get_epsilon(delta=1e-3, eps_error=0.001)
    assert epsilon([event("0.3", "1.5", 50)], Decimal("0.001"), Relation.REPLACE_SPECIAL) == pytest.approx(
        upper, abs=0.002
    )


@pytest.mark.parametrize(("rate", "multiplier", "count"), [("1", "10.6156", 17), ("0.05", "1.2", 40)])
def test_rdp_is_never_below_pld(rate: str, multiplier: str, count: int) -> None:
    events, delta = [event(rate, multiplier, count)], Decimal("0.001")
    assert epsilon(events, delta, Relation.REPLACE_SPECIAL, "RDP") >= epsilon(events, delta, Relation.REPLACE_SPECIAL)


def test_composition_does_not_depend_on_how_executions_are_listed() -> None:
    whole, parts = [event("1", "5", 15)], [event("1", "5", 1)] * 15
    delta = Decimal("0.001")
    assert epsilon(whole, delta, Relation.REPLACE_SPECIAL) == epsilon(parts, delta, Relation.REPLACE_SPECIAL)


def test_nothing_executed_costs_nothing() -> None:
    assert epsilon([], Decimal("0.001"), Relation.REPLACE_SPECIAL) == 0.0


def test_an_unpriced_combination_is_refused() -> None:
    with pytest.raises(UnsupportedEventError, match="does not price"):
        epsilon([event("0.3", "1.5", 50)], Decimal("0.001"), Relation.REPLACE_ONE, "RDP")
    with pytest.raises(UnsupportedEventError, match="delta"):
        epsilon([event("1", "1", 1)], Decimal(0), Relation.REPLACE_SPECIAL)


@pytest.mark.parametrize(("rate", "target"), [("1", "1"), ("1", "0.1"), ("0.1", "1")])
def test_calibration_meets_the_target_and_wastes_nothing(rate: str, target: str) -> None:
    delta, shape = Decimal("0.001"), event(rate, "1", 17)
    multiplier = calibrate_noise(shape, target=Decimal(target), delta=delta)
    at = epsilon([event(rate, str(multiplier), 17)], delta, Relation.REPLACE_SPECIAL)
    below = epsilon([event(rate, str(multiplier - Decimal("0.001")), 17)], delta, Relation.REPLACE_SPECIAL)
    assert at <= float(target) < below


def test_the_noise_of_the_hospitals_run() -> None:
    """15 rounds and 2 retries, full batch, epsilon 1 at delta 1e-3; RDP and replace-one as published beside it."""
    delta = Decimal("0.001")
    multiplier = calibrate_noise(event("1", "1", 17), target=Decimal(1), delta=delta)
    closed = dp_accounting.get_sigma_gaussian(1.0, 1e-3) * 17**0.5
    assert float(multiplier) == pytest.approx(closed, abs=2e-4)
    events = [event("1", str(multiplier), 17)]
    assert epsilon(events, delta, Relation.REPLACE_SPECIAL, "RDP") == pytest.approx(1.150, abs=1e-3)
    assert epsilon(events, delta, Relation.REPLACE_ONE) == pytest.approx(2.30, abs=0.01)


@pytest.mark.parametrize(("target", "delta"), [("0", "0.001"), ("-1", "0.001"), ("1", "0"), ("1", "1"), ("NaN", "0.1")])
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
