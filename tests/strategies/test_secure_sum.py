"""The grid in front of the masks, region by region: means as they would be in floating point, to half a unit.

The sums themselves go through the real machines: random plans, some sites silent, integers equal, and the mean against
a loop over single tensors that knows nothing of regions.
"""

from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clients.secure import Trained
from privacy.errors import ConfigError, SensitivityError
from privacy.secagg import client, coordinator, effects
from privacy.secagg.admission import ClientConfig
from privacy.secagg.context import Durations, Roster, RoundContext, model_root, region_digest, thresholds
from privacy.secagg.suite import RealSuite
from strategies.contribution import Aggregate, Contribution, Declared, Vector, weighted_mean
from strategies.layout import Layout
from strategies.regions import HeldRegion, Plan
from strategies.secure_sum import (
    BITS,
    FRACTION_BITS,
    PLAIN,
    Encoding,
    Units,
    context_regions,
    in_region,
    plan_digest,
    summed,
    summed_in,
    to_aggregate,
    to_units,
    values_digest,
)
from strategies.sub_models import SubModel, whole
from strategies.task import SiteId
from tests.privacy.secagg.parties import identity, seeded
from tests.strategies.divisions import coordinates, layouts, parts

BOTH = Declared(("update", "control"))
ONE = Declared(("update",))
SIZE = 3
FINE = Encoding(fraction_bits=32, largest=2**10 << 32)
"""Nearest rounding 32 bits behind the point: half a unit is below 2e-10."""
entries = st.floats(-1000, 1000, width=32)
vectors = hnp.arrays(np.float32, SIZE, elements=entries)
contributions = st.builds(lambda a, b: Contribution({"update": a, "control": b}), vectors, vectors)


def no_entropy(_: int) -> bytes:
    pytest.fail("rounding to nearest draws nothing")


def whole_plan(*sites: str, size: int = SIZE) -> Plan:
    layout = Layout(("x",), ((size,),))
    return Plan(layout, dict.fromkeys(sites, whole(layout)))


@given(st.lists(st.tuples(contributions, st.integers(1, 10**6)), min_size=1, max_size=5))
def test_the_sum_on_the_grid_is_the_weighted_mean(given_sites: list[tuple[Contribution, int]]) -> None:
    sites = [SiteId(f"s{place}") for place in range(len(given_sites))]
    weights = {site: float(weight) for site, (_, weight) in zip(sites, given_sites, strict=True)}
    units = [to_units(each, BOTH, weight, no_entropy) for each, weight in given_sites]
    laid = [np.concatenate([each[name] for name in BOTH.arrays]) for each in units]
    chosen = whole_plan(*sites).regions()
    found = to_aggregate({0: sum(laid[1:], start=laid[0])}, chosen, BOTH, SIZE, weights)
    exact = weighted_mean([(site, each) for site, (each, _) in zip(sites, given_sites, strict=True)], weights)
    assert found.weight == exact.weight
    for name in BOTH.arrays:
        np.testing.assert_allclose(found.mean[name], exact.mean[name], rtol=1e-12, atol=2.0**-FRACTION_BITS)


def test_no_sum_that_the_region_admits_wraps() -> None:
    """docs/protocol.md §2.3, at the most sites and the heaviest weight that a hospital run could have."""
    cohort = [f"s{place:03}" for place in range(100)]
    (region,) = context_regions(whole_plan(*cohort).regions(), BOTH, heaviest=10**6)
    region.check(sorted(cohort), BITS)
    assert len(region.blocks) == 2
    largest = Contribution({"update": np.full(SIZE, 1024, np.float32), "control": np.full(SIZE, -1024, np.float32)})
    units = to_units(largest, BOTH, 1, no_entropy)
    assert max(np.abs(part).max() for part in units.values()) == PLAIN.bound(1) == 10**-6 * region.blocks[0].bound


@pytest.mark.parametrize("value", [1024.1, -2000.0, np.inf, np.nan])
def test_what_no_honest_update_reaches_is_refused_and_never_cut_off(value: float) -> None:
    wild = Contribution({"update": np.array([0, value, 0], np.float32)})
    with pytest.raises(SensitivityError):
        to_units(wild, ONE, 1, no_entropy)


@pytest.mark.parametrize(
    ("size", "heavy", "unit", "left"),
    [(0.0, 1501, 1, 1000), (8.0, 1501, 1, 1000), (1.0, 1504, 8, 125)],
    ids=["not at all", "in whole units", "in eighths of a unit"],
)
def test_a_sum_does_not_show_single_updates_in_the_number_system_of_the_weights(
    size: float, heavy: int, unit: int, left: int
) -> None:
    """The other weights are multiples of 1000: what they leave over would be what the first site sent, digit by digit.

    The parameters that were trained are about as large as ``size``, so the updates are multiples of a power of two.
    """
    rng, total = np.random.default_rng(5), np.zeros(2000, np.int64)
    for weight in (3000, 2000, 1000, heavy):
        start = np.float32(size) * (1 + rng.random(2000, np.float32))
        update = start + rng.normal(0, 1e-4, 2000).astype(np.float32) - start
        total += to_units(Contribution({"update": update}), ONE, weight, no_entropy)["update"]
    own = np.rint(unit * np.ldexp(update.astype(np.float64), FRACTION_BITS)).astype(np.int64)
    shown = (total - heavy // unit * own) % left == 0
    assert np.mean(shown[own != 0]) < 3 / left + 0.01


def test_the_blur_is_the_updates_own() -> None:
    """Every engine gets the same bits; who does not know the update knows nothing of it, not from another round."""
    update = np.linspace(-1, 1, 999, dtype=np.float32)
    update[499] = 0
    first, again = (to_units(Contribution({"update": update}), ONE, 7, no_entropy)["update"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    moved = update.copy()
    moved[0] += np.float32(1e-3)
    other = to_units(Contribution({"update": moved}), ONE, 7, no_entropy)["update"]
    assert np.mean(other[1:] == first[1:]) < 0.3
    assert first[499] == 0, "what did not change stays so"
    off = first - 7 * np.ldexp(update.astype(np.float64), FRACTION_BITS)
    assert np.abs(off).max() <= 4
    assert abs(off.mean()) < 0.3


def test_scalars_do_not_ride_along() -> None:
    with pytest.raises(ConfigError, match="does not pair"):
        context_regions(whole_plan("a", "b", "c").regions(), Declared(("update",), ("loss",)), 1)


def test_digests_tell_plans_and_models_apart() -> None:
    one = {"model": np.zeros(2, np.float32), "control": np.ones(2, np.float32)}
    assert values_digest(one) == values_digest(dict(reversed(one.items())))
    assert values_digest(one) != values_digest({**one, "model": np.ones(2, np.float32)})
    assert values_digest(one) != values_digest({"model": one["control"], "control": one["model"]})
    three, four = whole_plan("a"), whole_plan("a", size=4)
    assert plan_digest(three, BOTH) != plan_digest(four, BOTH) != plan_digest(four, ONE)


def test_weak_regions_and_those_that_lost_their_cover_are_not_asked_for() -> None:
    layout = Layout(("inner", "outer"), ((2,), (3,)))
    inner = SubModel(layout, Layout(("inner",), ((2,),)), {"inner": (np.arange(2),)})
    plan = Plan(layout, {"a": whole(layout), "b": whole(layout), "c": whole(layout), "d": inner})
    every = summed(plan, "abcd", min_cover=3)
    assert [region.holders for region in every] == [("a", "b", "c"), ("a", "b", "c", "d")]
    assert [region.holders for region in summed(plan, "abcd", 3, {("a", "b", "c")})] == [("a", "b", "c", "d")]
    assert [region.holders for region in summed(plan, "abd", 3)] == [("a", "b", "d")]
    assert summed(plan, "ad", 3) == ()


# ---- through the machines


@st.composite
def divisions(draw: st.DrawFn) -> Plan:
    """Four to six sites; the last one always holds everything, so that regions overlap."""
    layout = draw(layouts())
    n = draw(st.integers(4, 6))
    agents = {f"s{k}": draw(parts(layout)) if draw(st.booleans()) else whole(layout) for k in range(n - 1)}
    return Plan(layout, {**agents, f"s{n - 1}": whole(layout)})


class Cohort:
    """Sites with random updates, one attempt of FSA1 over them; those in ``late`` fall silent after sharing keys."""

    def __init__(self, plan: Plan, seed: int, late: frozenset[str] = frozenset()) -> None:
        rng = np.random.default_rng(seed)
        self.plan, self.late = plan, late
        self.sites = tuple(sorted(plan.agents))
        model = rng.normal(size=plan.layout.size).astype(np.float32)
        self.model = {"model": model}
        self.updates: dict[str, Vector] = {
            site: rng.normal(scale=10, size=plan.held_by(site).size).astype(np.float32) for site in self.sites
        }
        self.units = {
            site: to_units(Contribution({"update": update}), ONE, 1, no_entropy, FINE)
            for site, update in self.updates.items()
        }
        self.roster = Roster(1, {site: identity(site).public_key for site in self.sites})
        self.chosen = summed(plan, self.sites, thresholds(len(self.sites)).min_cover)

    def run(self) -> effects.Finished | effects.Aborted:
        config = self._config()
        states = {site: client.idle(self._trained(site).local_input(site, config.context)) for site in self.sites}
        state, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
        while True:
            asked = {e.site: e.data for e in out if isinstance(e, effects.SendTo)}
            phase, out = state.phase, ()
            for site, data in asked.items():
                if site in self.late and phase is not coordinator.Phase.ADV:
                    continue
                mine = ClientConfig(site, identity(site), self.roster, bytes(32), {}, seeded(site), RealSuite())
                states[site], made = client.step(mine, states[site], effects.Received(data))
                for effect in made:
                    assert not isinstance(effect, effects.Aborted), effect
                    if isinstance(effect, effects.Send):
                        state, more = coordinator.step(config, state, effects.Received(effect.data, site))
                        out += more
            if state.phase is phase:
                state, out = coordinator.step(config, state, effects.Expired(phase))
            for effect in out:
                if isinstance(effect, effects.Finished | effects.Aborted):
                    return effect

    def aggregate(self, sums: Mapping[int, Units]) -> Aggregate:
        survivors = dict.fromkeys((SiteId(site) for site in self.sites if site not in self.late), 1.0)
        return to_aggregate(sums, self.chosen, ONE, self.plan.layout.size, survivors, FINE)

    def reference(self) -> NDArray[np.float64]:
        """Averages tensor by tensor, as HeteroFL's loop does: sums and counts over agents, in floating point."""
        total, count = np.zeros(self.plan.layout.size), np.zeros(self.plan.layout.size)
        for site, part in self.plan.agents.items():
            if site in self.late:
                continue
            whole_update = np.zeros(self.plan.layout.size)
            whole_update[self.plan.held_by(site)] = self.updates[site]
            for places in coordinates(self.plan.layout, dict(part.shared)).values():
                total[places] += whole_update[places]
                count[places] += 1
        return np.divide(total, count, out=np.zeros_like(total), where=count > 0)

    def _trained(self, site: str) -> Trained:
        def nothing(_state: RecordDict) -> None:
            pass

        return Trained(self.units[site], self.plan.held_of(site, self.model), self.plan, ONE, nothing, 1, FINE)

    def _config(self) -> coordinator.CoordinatorConfig:
        regions = context_regions(self.chosen, ONE, 1, FINE)
        digests = tuple(
            region_digest(k, r.length, r.holders, values_digest({"model": self.model["model"][each.positions]}))
            for k, (r, each) in enumerate(zip(regions, self.chosen, strict=True))
        )
        context = RoundContext(
            federation="town", run=bytes(16), round=1, attempt=1, roster=self.roster.digest, cohort=self.sites,
            thresholds=thresholds(len(self.sites)), bits=BITS, fraction_bits=32, regions=regions,
            model_root=model_root(plan_digest(self.plan, ONE), digests), job=bytes(32),
            purpose="training", asset="records", durations=Durations(10, 10, 10, 10), fixed_set=False,
        )  # fmt: skip
        return coordinator.CoordinatorConfig(context, self.roster, digests, RealSuite())


def opened(region: HeldRegion, cohort: Cohort) -> Units:
    """The same sum in plain integers, without masks."""
    held = [site for site in region.holders if site not in cohort.late]
    parts_of = [in_region(cohort.units[site]["update"], cohort.plan.held_by(site), region) for site in held]
    return np.asarray(sum(parts_of[1:], start=parts_of[0]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(divisions(), st.integers(0, 2**32), st.integers(0, 5))
def test_region_sums_of_random_plans_are_exact_and_their_means_those_of_a_tensor_loop(
    plan: Plan, seed: int, silent: int
) -> None:
    floors = thresholds(len(plan.agents))
    late = frozenset({f"s{silent}"}) & frozenset(plan.agents)
    if len(plan.agents) - len(late) < floors.min_survivors:
        late = frozenset()
    cohort = Cohort(plan, seed, late)
    assume(cohort.chosen)
    covered = all(len(set(each.holders) - late) >= floors.min_cover for each in cohort.chosen)
    end = cohort.run()
    assert isinstance(end, effects.Finished) == covered
    if isinstance(end, effects.Aborted):
        assert end.region is not None
        return
    assert set(end.sums) == set(range(len(cohort.chosen)))
    for k, region in enumerate(cohort.chosen):
        np.testing.assert_array_equal(end.sums[k], opened(region, cohort))
    mean, expected = cohort.aggregate(end.sums).mean["update"], cohort.reference()
    moved = np.concatenate([region.positions for region in cohort.chosen])
    np.testing.assert_allclose(mean[moved], expected[moved], rtol=0, atol=1e-9)
    still = np.setdiff1d(np.arange(plan.layout.size), moved)
    assert not mean[still].any()


def test_a_site_reads_the_regions_off_its_own_plan() -> None:
    layout = Layout(("inner", "outer"), ((2,), (3,)))
    inner = SubModel(layout, Layout(("inner",), ((2,),)), {"inner": (np.arange(2),)})
    plan = Plan(layout, {"a": whole(layout), "b": whole(layout), "c": whole(layout), "d": inner})
    cohort = Cohort(plan, seed=1)
    context = cohort._config().context
    found = summed_in(plan, context)
    assert found is not None
    assert [region.holders for region in found] == [region.holders for region in cohort.chosen]
    other = Plan(layout, {**dict.fromkeys("abc", inner), "d": whole(layout)})
    assert summed_in(other, context) is None
