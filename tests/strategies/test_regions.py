from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.layout import Layout
from strategies.regions import Plan
from strategies.sub_models import SubModel, by_shape, front, keys, whole
from tests.strategies.divisions import Oracle, plans

NET = Layout(
    ("conv.weight", "conv.bias", "body.weight", "body.bias", "head.weight", "head.bias"),
    ((8, 1, 3, 3), (8,), (16, 8), (16,), (2, 16), (2,)),
)


def scaled(layout: Layout, width: float) -> Layout:
    """Returns the layout with every hidden size, 8 or more, times ``width``."""
    return Layout(layout.names, tuple(tuple(int(n * width) if n >= 8 else n for n in shape) for shape in layout.shapes))


def widths(*shares: float) -> Plan:
    return Plan(NET, {f"site-{k}": by_shape(NET, scaled(NET, share)) for k, share in enumerate(shares)})


def listed(plan: Plan, who: set[str] | None = None) -> dict[tuple[str, ...], list[int]]:
    return {region.holders: region.positions.tolist() for region in plan.regions(who)}


@given(plan=plans(), data=st.data())
def test_regions_are_those_of_looking_at_every_coordinate(plan: Plan, data: st.DataObject) -> None:
    oracle = Oracle.of(plan)
    everybody = {plan.organisations.get(agent, agent) for agent in plan.agents}
    who = data.draw(st.sets(st.sampled_from(sorted(everybody))))
    for asked, expected in ((None, everybody), (who, who), (everybody, everybody), (set[str](), set[str]())):
        assert list(listed(plan, asked).items()) == list(oracle.regions(expected).items())
    floor = data.draw(st.integers(0, 4))
    weak = {holders: places for holders, places in oracle.regions(who).items() if len(holders) < floor}
    assert {region.holders: region.positions.tolist() for region in plan.check(floor, who)} == weak
    everywhere = len(oracle.holders) == plan.layout.size and all(who == everybody for who in oracle.holders.values())
    assert plan.is_whole == everywhere


@given(plan=plans())
def test_what_an_organisation_holds_is_the_union_over_its_agents(plan: Plan) -> None:
    oracle = Oracle.of(plan)
    for organisation in {plan.organisations.get(agent, agent) for agent in plan.agents}:
        places = [place for place, holders in sorted(oracle.holders.items()) if organisation in holders]
        assert plan.held_by(organisation).tolist() == places
        numbered = {"model": np.arange(plan.layout.size, dtype=np.float32)}
        assert plan.held_of(organisation, numbered)["model"].tolist() == places
        assert listed(plan, {organisation}) == {(organisation,): places}


def test_an_organisation_holds_what_one_of_its_agents_holds_in_every_dimension() -> None:
    layout, corner = Layout(("w",), ((2, 2),)), Layout(("w",), ((1, 1),))
    ends = {"a": by_shape(layout, corner), "b": by_shape(layout, corner, start={"w": (1, 1)})}
    plan = Plan(layout, {**ends, "c": whole(layout)}, dict.fromkeys(ends, "both"))
    # Rows 0, 1 and columns 0, 1 all occur, yet nobody of "both" holds the corners 1 and 2.
    assert listed(plan) == {("both", "c"): [0, 3], ("c",): [1, 2]}


def test_every_subset_of_nine_organisations_may_hold_a_region() -> None:
    layout = Layout(("w",), ((512,),))
    sites = [f"site-{k}" for k in range(9)]
    boxes = {site: np.flatnonzero(np.arange(512) >> k & 1) for k, site in enumerate(sites)}
    agents = {site: SubModel(layout, Layout(("w",), ((256,),)), {"w": (box,)}) for site, box in boxes.items()}
    regions = listed(Plan(layout, agents))
    assert len(regions) == 511
    for holders, places in regions.items():
        assert places == [sum(1 << sites.index(site) for site in holders)]


def test_cover_counts_organisations_and_not_agents() -> None:
    wide, narrow = whole(NET), by_shape(NET, scaled(NET, 0.5))
    agents = {"a1": wide, "a2": wide, "b": wide, "c": narrow}
    apart = {region.holders: len(region.holders) for region in Plan(NET, agents).regions()}
    assert apart == {("a1", "a2", "b"): 3, ("a1", "a2", "b", "c"): 4}
    plan = Plan(NET, agents, {"a1": "a", "a2": "a"})
    assert set(listed(plan)) == {("a", "b"), ("a", "b", "c")}
    (weak,) = plan.check(3)
    assert weak.holders == ("a", "b")
    alone = Plan(NET, {"a1": wide, "a2": wide, "c": narrow}, {"a1": "a", "a2": "a"})
    assert set(listed(alone)) == {("a",), ("a", "c")}


def test_an_agent_may_bear_the_name_of_anothers_organisation() -> None:
    plan = Plan(NET, {"a": front(NET, ["head.bias"]), "b": front(NET, ["conv.bias"])}, {"b": "a"})
    assert listed(plan) == {("a",): [*range(72, 80), *range(256, 258)]}


def test_at_ten_sites_five_whole_and_five_narrow_leave_no_weak_region() -> None:
    plan = widths(*[1.0] * 5, *[0.25] * 5)
    assert [len(region.holders) for region in plan.regions()] == [5, 10]
    assert plan.check(5) == ()


def test_at_ten_sites_three_whole_ones_leave_a_weak_region() -> None:
    plan = widths(*[1.0] * 3, *[0.25] * 7)
    (weak,) = plan.check(5)
    assert weak.holders == ("site-0", "site-1", "site-2")
    narrow = plan.agents["site-9"].held
    assert weak.positions.tolist() == sorted(set(range(NET.size)) - set(narrow.tolist()))


def test_hospitals_have_no_slack() -> None:
    plan = widths(1.0, 1.0, 1.0, 0.25)
    assert plan.check(3) == ()
    assert [region.holders for region in plan.check(4)] == [("site-0", "site-1", "site-2")]
    assert [len(region.holders) for region in plan.check(3, ["site-0", "site-2", "site-3"])] == [2]


def test_an_organisation_that_is_not_in_the_plan_holds_nothing() -> None:
    plan = widths(1.0, 0.5)
    assert listed(plan, {"site-0", "site-1", "stranger"}) == listed(plan)
    assert plan.regions(["stranger"]) == ()
    with pytest.raises(ValueError, match="stranger"):
        plan.held_by("stranger")


def test_is_whole_only_where_everybody_holds_everything() -> None:
    assert widths(1.0, 1.0, 1.0).is_whole
    assert not widths(1.0, 1.0, 0.5).is_whole
    assert not Plan(NET, dict.fromkeys("ab", keys(NET, ["*"], private=["head.*"]))).is_whole
    halves = {"a": front(NET, NET.names[:3]), "b": front(NET, NET.names[3:])}
    assert not Plan(NET, halves).is_whole
    assert Plan(NET, halves, dict.fromkeys(halves, "together")).is_whole


def test_regions_are_kept_per_set_of_organisations_and_read_only() -> None:
    plan = widths(1.0, 0.5, 0.25)
    first = plan.regions(["site-0", "site-1"])
    assert plan.regions(iter(["site-1", "site-0", "site-1"])) is first
    assert plan.regions() is plan.regions(plan.agents)
    assert not any(region.positions.flags.writeable for region in first)
    many = widths(*[1.0] * 12)
    for site in many.agents:
        assert [region.holders for region in many.regions([site])] == [(site,)]
    assert len(many._found) < 12


def test_a_plan_needs_agents_known_organisations_and_one_layout() -> None:
    other = Layout(NET.names, tuple(reversed(NET.shapes)))
    for agents, organisations in (({}, {}), ({"a": whole(NET)}, {"b": "x"}), ({"a": whole(other)}, {})):
        with pytest.raises(ValueError, match="plan"):
            Plan(NET, agents, organisations)


def test_a_plan_does_not_change_with_the_mappings_it_was_made_of() -> None:
    agents, organisations = {"a": whole(NET), "b": whole(NET)}, {"a": "x"}
    plan = Plan(NET, agents, organisations)
    agents.clear()
    organisations["a"] = "b"
    assert set(listed(plan)) == {("b", "x")}


HALF = by_shape(NET, scaled(NET, 0.5))
AGENTS: Mapping[str, SubModel] = {"a": whole(NET), "b": HALF}


def test_equal_plans_have_equal_digests() -> None:
    plan = Plan(NET, AGENTS, {"b": "x", "a": "y"})
    same = Plan(NET, {"b": by_shape(NET, scaled(NET, 0.5)), "a": whole(NET)}, {"a": "y", "b": "x"})
    assert plan.digest == same.digest
    assert len(plan.digest) == 32
    assert Plan(NET, AGENTS).digest == Plan(NET, AGENTS, {"a": "a"}).digest


@pytest.mark.parametrize(
    "other",
    [
        Plan(NET, {"a": whole(NET), "b": whole(NET)}),
        Plan(NET, {"a": HALF, "b": whole(NET)}),
        Plan(NET, {"a": whole(NET), "c": HALF}),
        Plan(NET, {"a": whole(NET), "c": HALF}, {"c": "b"}),
        Plan(NET, {"a": whole(NET)}),
        Plan(NET, {**AGENTS, "c": HALF}),
        Plan(NET, AGENTS, {"b": "a"}),
        Plan(NET, AGENTS, {"b": "x"}),
        Plan(NET, {"a": whole(NET), "b": by_shape(NET, HALF.piece, start={"conv.bias": (1,)})}),
    ],
)
def test_any_change_changes_the_digest(other: Plan) -> None:
    assert other.digest != Plan(NET, AGENTS).digest


def test_the_layouts_parameters_that_nobody_holds_are_in_the_digest() -> None:
    more = Layout((*NET.names, "spare"), (*NET.shapes, (3,)))
    one, other = (Plan(layout, {"a": front(layout, NET.names)}) for layout in (NET, more))
    assert one.digest != other.digest
    assert listed(one) == listed(other)


@given(
    shares=st.lists(st.sampled_from([1.0, 0.5, 0.25, 0.125]), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_means_per_region_are_those_of_averaging_tensor_by_tensor(shares: list[float], seed: int) -> None:
    """HeteroFL's aggregation (Diao, Ding, Tarokh, ICLR 2021) into leading slices, with a count per entry."""
    rng = np.random.default_rng(seed)
    plan = widths(*shares)
    pieces = {site: rng.standard_normal(part.piece.size, np.float32) for site, part in plan.agents.items()}
    expected = []
    for name, shape in zip(NET.names, NET.shapes, strict=True):
        total, count = np.zeros(shape), np.zeros(shape)
        for site, part in plan.agents.items():
            tensor = part.piece.unflatten(pieces[site])[name]
            leading = tuple(slice(0, n) for n in tensor.shape)
            total[leading] += tensor
            count[leading] += 1
        expected.append((total / np.maximum(count, 1)).reshape(-1))
    mean = np.zeros(NET.size)
    for region in plan.regions():
        for site in region.holders:
            part = plan.agents[site]
            mine = part.shared_of(pieces[site]).astype(np.float64)
            mean[region.positions] += mine[np.searchsorted(part.held, region.positions)] / len(region.holders)
    np.testing.assert_allclose(mean, np.concatenate(expected), rtol=0, atol=1e-12)


@pytest.mark.soak
def test_ten_million_coordinates_and_ten_unequal_agents() -> None:
    layout = Layout(("conv", "bias", "linear"), ((1024, 512, 3, 3), (1024,), (2600, 2048)))
    plan = Plan(layout, {f"{k}": by_shape(layout, scaled(layout, 1 - 0.09 * k)) for k in range(10)})
    assert layout.size > 10**7
    regions = plan.regions()
    sizes = [plan.agents[f"{k}"].piece.size for k in range(10)]
    inner = {tuple(f"{j}" for j in range(k + 1)): sizes[k] - after for k, after in enumerate([*sizes[1:], 0])}
    assert {region.holders: region.positions.size for region in regions} == inner
    assert (np.sort(np.concatenate([region.positions for region in regions])) == np.arange(layout.size)).all()
    for region in regions:
        assert np.isin(region.positions, plan.agents[region.holders[-1]].held).all()
