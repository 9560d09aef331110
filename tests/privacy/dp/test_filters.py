"""Lifetime filters against closed forms, dp-accounting at one order, and exact arithmetic."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting import dp_event, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.dp.accounting import calibrate_noise, epsilon
from privacy.dp.events import FULL_BATCH, Event, GaussianEvent, Relation, Sampling, SamplingType, SkellamEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.dp.renyi import skellam_divergence
from privacy.errors import ConfigError, UnsupportedEventError

ONE, DELTA = Decimal(1), Decimal("0.001")
FULL = GaussianEvent(Decimal("10.6156"), FULL_BATCH, 1)
POISSON = GaussianEvent(Decimal("1.1"), Sampling(SamplingType.POISSON, Decimal("0.01")), 1)
TRUNCATED = GaussianEvent(ONE, Sampling(SamplingType.TRUNCATED, Decimal("0.05"), cap=80, n_records=1000), 1)
PEOPLE = GaussianEvent(ONE, POISSON.sampling, 1, group=2)
SKELLAM = SkellamEvent(Decimal(16 * 1448**2), Decimal(1448), Decimal(65529), 3)
GDP = Filter.for_budget(FilterKind.GDP, ONE, DELTA)
RENYI = Filter.for_budget(FilterKind.RENYI, ONE, DELTA)

budgets = st.tuples(st.decimals("0.05", "20", places=2), st.sampled_from([Decimal("0.001"), Decimal("0.00001")]))


def _delta_of_gaussian(mu: float, eps: float) -> float:
    """Balle and Wang, ICML 2018, theorem 8."""
    return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu))


@given(budgets)
def test_the_gaussian_limit_is_the_largest_that_keeps_delta(budget: tuple[Decimal, Decimal]) -> None:
    eps, delta = budget
    limit = float(Filter.for_budget(FilterKind.GDP, eps, delta).limit)
    assert _delta_of_gaussian(math.sqrt(limit), float(eps)) <= float(delta) * (1 + 1e-9)
    assert _delta_of_gaussian(math.sqrt(limit * 1.0001), float(eps)) > float(delta)


@given(budgets)
def test_the_renyi_limit_is_what_dp_accounting_converts_to_the_budget(budget: tuple[Decimal, Decimal]) -> None:
    eps, delta = budget
    made = Filter.for_budget(FilterKind.RENYI, eps, delta)
    converted, _ = rdp.compute_epsilon([made.order or 0], [float(made.limit)], float(delta))
    assert converted == pytest.approx(float(eps), abs=1e-9)


@given(st.sampled_from(FilterKind), budgets, st.decimals(0, 1, places=3))
def test_what_is_spent_converts_back_and_never_below(
    kind: FilterKind, budget: tuple[Decimal, Decimal], part: Decimal
) -> None:
    eps, delta = budget
    made = Filter.for_budget(kind, eps, delta)
    spent = part * made.limit
    assert made.epsilon_of(Decimal(0)) == 0.0
    assert made.epsilon_of(spent) <= made.epsilon_of(made.limit) <= float(eps)
    assert made.epsilon_of(made.limit) == pytest.approx(float(eps), abs=1e-6)
    if kind is FilterKind.GDP and spent:
        exact = dp_accounting.get_epsilon_gaussian(float(spent) ** -0.5, float(delta))
        assert exact <= made.epsilon_of(spent) <= exact + 1e-9


def test_gaussian_costs_are_exact_and_rounded_up() -> None:
    """17 executions at 10.6156, three records a person: 17 * 9 / 112.69096336, by hand."""
    assert GDP.cost(GaussianEvent(Decimal("10.6156"), FULL_BATCH, 17, group=3)) == Decimal("1.357695377146")
    assert GDP.cost(GaussianEvent(Decimal(2), FULL_BATCH, 3)) == Decimal("0.75")
    assert GDP.cost(GaussianEvent(Decimal(3), FULL_BATCH, 1)) == Decimal("0.111111111112")


@pytest.mark.parametrize("order", [2, 10, 51, 256])
def test_renyi_costs_equal_dp_accounting_at_the_order_and_skellam_our_bound(order: int) -> None:
    made = Filter(FilterKind.RENYI, Decimal(50), DELTA, order)
    direct = rdp.RdpAccountant([order])
    direct.compose(dp_event.GaussianDpEvent(10.6156), 4)
    assert float(made.cost(FULL.times(4))) == pytest.approx(direct.rdp[0], rel=1e-9)
    direct = rdp.RdpAccountant([order])
    direct.compose(dp_event.PoissonSampledDpEvent(0.01, dp_event.GaussianDpEvent(1.1)), 500)
    assert float(made.cost(POISSON.times(500))) == pytest.approx(direct.rdp[0], rel=1e-7)
    skellam = skellam_divergence(SKELLAM, order, Relation.REPLACE_SPECIAL)
    assert 0 <= Fraction(made.cost(SKELLAM)) - skellam <= Fraction(1, 10**12)


def _exact_poisson_divergence(event: GaussianEvent, order: int) -> Decimal:
    """Mironov, Talwar and Zhang, 2019, section 3.3, in 60 digits."""
    with localcontext(prec=60):
        q, variance = event.sampling.rate, event.noise_multiplier**2
        terms = (
            math.comb(order, i) * (1 - q) ** (order - i) * q**i * (Decimal(i * i - i) / (2 * variance)).exp()
            for i in range(order + 1)
        )
        return sum(terms, Decimal(0)).ln() / (order - 1)


@settings(max_examples=60)
@given(
    st.decimals("0.5", "200", places=2),
    st.decimals("0.000001", "0.9", places=6),
    st.sampled_from([2, 3, 10, 51, 160, 384, 1024]),
)
def test_poisson_costs_are_never_below_the_exact_divergence(z: Decimal, rate: Decimal, order: int) -> None:
    """Over so many executions that an error of one in the last digit of a float would show."""
    event = GaussianEvent(z, Sampling(SamplingType.POISSON, rate), 10**6)
    cost = Filter(FilterKind.RENYI, Decimal(50), DELTA, order).cost(event)
    exact = 10**6 * _exact_poisson_divergence(event, order)
    assert exact <= cost <= exact * (1 + Decimal("1e-8")) + Decimal("2e-5")


@pytest.mark.parametrize(
    ("made", "event"),
    [(GDP, POISSON), (GDP, TRUNCATED), (GDP, SKELLAM), (GDP, PEOPLE), (RENYI, TRUNCATED), (RENYI, PEOPLE)],
)
def test_what_a_filter_cannot_price_is_refused(made: Filter, event: Event) -> None:
    for refused in (lambda: made.cost(event), lambda: made.room(Decimal(0), event), lambda: made.spent([event])):
        with pytest.raises(UnsupportedEventError):
            refused()


@pytest.mark.parametrize("typical", [None, FULL, POISSON, SKELLAM])
def test_the_order_is_the_one_that_allows_most_of_the_typical_event(typical: Event | None) -> None:
    chosen = Filter.for_budget(FilterKind.RENYI, Decimal(2), DELTA, typical)
    event = typical or FULL
    most = chosen.room(Decimal(0), event)
    others = [Filter(FilterKind.RENYI, Decimal(2), DELTA, order) for order in range(5, 65)]
    assert most > 0
    assert most == max(other.room(Decimal(0), event) for other in others)


def test_the_cost_of_a_filter_for_life_beside_one_frozen_run() -> None:
    """docs/privacy-rules.md, 3: RDP gives 1.150 for PLD's 1.000 and .122 for .100, full batches, delta 1e-3.

    The Gaussian filter gives nothing away there; what one order costs beyond RDP's best is what its optimum says.
    """
    for target, at_most in ((Decimal(1), 1.1505), (Decimal("0.1"), 0.1225)):
        run = GaussianEvent(calibrate_noise(FULL.times(17), target=target, delta=DELTA), FULL_BATCH, 17)
        gdp = Filter.for_budget(FilterKind.GDP, target, DELTA)
        assert gdp.cost(run) <= gdp.limit
        renyi = Filter.for_budget(FilterKind.RENYI, Decimal(str(at_most)), DELTA)
        assert renyi.epsilon_of(renyi.spent([run])) <= at_most
        narrow = Filter.for_budget(FilterKind.RENYI, target, DELTA)
        assert narrow.cost(run) > narrow.limit


def test_a_budget_is_spent_to_the_last_execution_and_not_beyond() -> None:
    for made in (GDP, RENYI):
        room = made.room(Decimal(0), FULL)
        spent = made.spent([FULL] * (room - 1))
        assert made.room(spent, FULL.times(5)) == 1
        full = made.spent([FULL] * room)
        assert full <= made.limit < made.spent([FULL] * (room + 1))
        assert made.room(full, FULL) == 0
    assert GDP.room(Decimal(0), FULL) == 17


events = st.lists(
    st.builds(GaussianEvent, st.decimals("0.5", "100", places=3), st.just(FULL_BATCH), st.integers(1, 40)), max_size=6
)


@given(events)
def test_sums_are_never_below_the_exact_sum_however_events_are_listed(listed: list[GaussianEvent]) -> None:
    with localcontext(prec=60):
        exact = sum((event.count / event.noise_multiplier**2 for event in listed), Decimal(0))
    for made, factor in ((GDP, Decimal(1)), (RENYI, Decimal(RENYI.order or 0) / 2)):
        spent = made.spent(listed)
        one_by_one = made.spent([event.times(1) for event in listed for _ in range(event.count)])
        assert factor * exact - Decimal("1e-25") <= spent <= one_by_one <= factor * exact + Decimal("1e-9")


@given(events)
@settings(max_examples=25, deadline=None)
def test_no_admitted_sequence_costs_more_than_the_budget_by_pld(listed: list[GaussianEvent]) -> None:
    for made in (GDP, RENYI):
        admitted: list[GaussianEvent] = []
        for event in listed:
            if made.spent([*admitted, event]) <= made.limit:
                admitted.append(event)
        assert epsilon(admitted, DELTA, Relation.REPLACE_SPECIAL) <= float(made.epsilon) + 1e-4


@pytest.mark.parametrize(
    ("kind", "eps", "delta", "order"),
    [
        (FilterKind.GDP, "0", "0.001", None),
        (FilterKind.GDP, "NaN", "0.001", None),
        (FilterKind.GDP, "1", "1", None),
        (FilterKind.GDP, "1", "NaN", None),
        (FilterKind.GDP, "1", "0.001", 5),
        (FilterKind.RENYI, "1", "0.001", None),
        (FilterKind.RENYI, "1", "0.001", 1),
        (FilterKind.RENYI, "1", "0.001", 2000),
        (FilterKind.RENYI, "0.0001", "0.000001", 10),
    ],
)
def test_unusable_budgets_are_the_users_mistake(kind: FilterKind, eps: str, delta: str, order: int | None) -> None:
    with pytest.raises(ConfigError):
        Filter(kind, Decimal(eps), Decimal(delta), order)
