"""The driver around the client machine: records before bytes, one live attempt, nothing after an abort."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.app import RecordDict

from clients.secure import SecureSite, Trained
from privacy.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from privacy.secagg import coordinator, effects, wire
from privacy.secagg.context import (
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.suite import RealSuite
from privacy.store.admissions import Admissions
from strategies.contribution import Contribution, Declared
from strategies.layout import Layout
from strategies.regions import Plan
from strategies.secure_sum import (
    BITS,
    FRACTION_BITS,
    PLAIN,
    context_regions,
    plan_digest,
    to_aggregate,
    to_units,
    values_digest,
)
from strategies.sub_models import whole
from strategies.task import SiteId
from tests.privacy.secagg.parties import identity, seeded

DECLARED = Declared(("update",))
ARRAYS = {"model": np.array([0.5, -0.5], np.float32)}
SITES = ("a", "b", "c", "d")
ROSTER = Roster(1, {site: identity(site).public_key for site in SITES})
LAYOUT = Layout(("x",), ((2,),))
PLAN = Plan(LAYOUT, dict.fromkeys(SITES, whole(LAYOUT)))
WEIGHTS = {SiteId(site): float(place) for place, site in enumerate(SITES, 1)}
JOB = "ab" * 32


@dataclass
class Town:
    """Four sites around one coordinator; no Flower."""

    folder: Path
    now: float = 0.0
    released: list[str] = field(default_factory=list)
    broken: str = ""
    unfit: str = ""

    def __post_init__(self) -> None:
        self.sites = {
            site: SecureSite(site, identity(site), ROSTER, Admissions(self.folder / f"{site}.db"), lambda: self.now)
            for site in SITES
        }

    def config(self, attempt: int = 1, arrays: dict[str, np.ndarray] | None = None) -> coordinator.CoordinatorConfig:
        (region,) = context_regions(PLAN.regions(), DECLARED, heaviest=4)
        digests = (region_digest(0, region.length, region.holders, values_digest(arrays or ARRAYS)),)
        context = RoundContext(
            federation="town", run=bytes(16), round=1, attempt=attempt, roster=ROSTER.digest, cohort=SITES,
            thresholds=thresholds(4), bits=BITS, fraction_bits=FRACTION_BITS, regions=(region,),
            model_root=model_root(plan_digest(PLAN, DECLARED), digests), job=bytes.fromhex(JOB),
            purpose="training", asset="records", durations=Durations(10, 10, 10, 10), fixed_set=False,
        )  # fmt: skip
        return coordinator.CoordinatorConfig(context, ROSTER, digests, RealSuite())

    def trained(self, site: str) -> Trained:
        def release(_: RecordDict) -> None:
            if self.broken == site:
                raise ConfigError("the disk is full")
            self.released.append(site)

        update = np.array([1.0, float(SITES.index(site))], np.float32)
        units = to_units(Contribution({"update": update}), DECLARED, SITES.index(site) + 1, seeded(site))
        if self.unfit == site:
            units = {"update": np.full(2, np.iinfo(np.int64).min)}
        return Trained(units, ARRAYS, PLAN, DECLARED, release, SITES.index(site) + 1, PLAIN)

    def start(self, site: str, data: bytes, paid: tuple[int, int] | None = None) -> bytes:
        """Answers START; what is paid for is the attempt that it names, unless another is given."""
        asked = RoundContext.decode(cast("wire.Start", wire.decode(data)).context)
        return self.sites[site].start(
            data,
            self.trained(site),
            RecordDict(),
            paid=paid or (asked.round, asked.attempt),
            most=3,
            job=JOB,
            entropy=seeded(site, data),
        )


def first_messages(config: coordinator.CoordinatorConfig) -> tuple[coordinator.CoordinatorState, dict[str, bytes]]:
    state, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
    return state, {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}


def play(town: Town, config: coordinator.CoordinatorConfig) -> tuple[effects.Effect, dict[str, str]]:
    """Runs the attempt to its end; returns it with the refusals of the sites."""
    state, asked = first_messages(config)
    refused: dict[str, str] = {}
    first = True
    while True:
        out: tuple[effects.Effect, ...] = ()
        phase = state.phase
        for site, data in asked.items():
            try:
                answer = town.start(site, data) if first else town.sites[site].answer(data, RecordDict())
            except (RemoteProtocolError, LocalProtocolError) as error:
                refused[site] = str(error)
                continue
            state, more = coordinator.step(config, state, effects.Received(answer, site))
            out += more
        if state.phase == phase:
            state, more = coordinator.step(config, state, effects.Expired(phase))
            out += more
        first = False
        ends = [effect for effect in out if isinstance(effect, effects.Finished | effects.Aborted)]
        if ends:
            return ends[0], refused
        asked = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}


def test_an_attempt_gives_the_weighted_mean_and_is_paid_once_by_each(tmp_path: Path) -> None:
    town = Town(tmp_path)
    end, refused = play(town, town.config())
    assert isinstance(end, effects.Finished)
    assert not refused
    mean = to_aggregate(end.sums, PLAN.regions(), DECLARED, 2, WEIGHTS).mean["update"]
    np.testing.assert_allclose(mean, [1.0, (0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10], atol=2.0**-FRACTION_BITS)
    assert sorted(town.released) == list(SITES)


def test_a_new_attempt_ends_the_one_before(tmp_path: Path) -> None:
    """Two attempts alive at once would be two masked inputs of one update, each with its own survivors."""
    town = Town(tmp_path)
    first = town.config()
    state, asked = first_messages(first)
    for site, data in asked.items():
        state, out = coordinator.step(first, state, effects.Received(town.start(site, data), site))
    keys = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}
    _, again = first_messages(town.config(attempt=2))
    town.start("a", again["a"])
    with pytest.raises(RemoteProtocolError, match="holds no such attempt"):
        town.sites["a"].answer(keys["a"], RecordDict())


def test_a_site_that_cannot_pay_sends_nothing_and_the_others_finish(tmp_path: Path) -> None:
    town = Town(tmp_path, broken="b")
    end, refused = play(town, town.config())
    assert isinstance(end, effects.Finished)
    assert end.survivors == ("a", "c", "d")
    assert "could not write a record down" in refused["b"]
    assert "b" not in town.released


def test_a_site_that_failed_to_pay_does_not_send_it_later_either(tmp_path: Path) -> None:
    """A repeated FWD must not be answered with the masked input that was never paid for."""
    town, config = Town(tmp_path, broken="b"), None
    config = town.config()
    state, asked = first_messages(config)
    for kind in range(3):
        out: tuple[effects.Effect, ...] = ()
        for site, data in asked.items():
            try:
                answer = town.start(site, data) if kind == 0 else town.sites[site].answer(data, RecordDict())
            except LocalProtocolError:
                town.broken = ""
                with pytest.raises(RemoteProtocolError, match="no such attempt"):
                    town.sites[site].answer(data, RecordDict())
                continue
            state, more = coordinator.step(config, state, effects.Received(answer, site))
            out += more
        asked = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}
    assert "b" not in town.released


def test_an_attempt_that_was_admitted_is_never_advertised_again(tmp_path: Path) -> None:
    town = Town(tmp_path)
    _, asked = first_messages(town.config())
    town.start("a", asked["a"])
    again = Town(tmp_path)  # restarted: memory lost, the store kept
    with pytest.raises(RemoteProtocolError, match="admitted before"):
        again.start("a", asked["a"])
    _, second = first_messages(town.config(attempt=2))
    assert again.start("a", second["a"])


@pytest.mark.parametrize("paid", [(2, 1), (1, 2)])
def test_an_attempt_under_another_number_than_is_paid_for_is_refused(tmp_path: Path, paid: tuple[int, int]) -> None:
    town = Town(tmp_path)
    _, asked = first_messages(town.config())
    with pytest.raises(RemoteProtocolError, match="another attempt than it trained"):
        town.start("a", asked["a"], paid)
    assert town.released == []
    assert town.start("a", asked["a"]), "nothing of it was remembered"


def test_another_model_than_it_trained_on_is_refused(tmp_path: Path) -> None:
    town = Town(tmp_path)
    _, asked = first_messages(town.config(arrays={"model": np.array([0.5, 0.5], np.float32)}))
    with pytest.raises(RemoteProtocolError, match="another model"):
        town.start("a", asked["a"])


def test_a_server_that_is_late_finds_nobody(tmp_path: Path) -> None:
    town = Town(tmp_path)
    config = town.config()
    state, asked = first_messages(config)
    out: tuple[effects.Effect, ...] = ()
    for site, data in asked.items():
        state, more = coordinator.step(config, state, effects.Received(town.start(site, data), site))
        out += more
    keys = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}
    town.now = 10.5
    with pytest.raises(RemoteProtocolError, match="no such attempt"):
        town.sites["a"].answer(keys["a"], RecordDict())


def test_what_an_attempt_remembers_is_gone_when_its_time_is_up(tmp_path: Path) -> None:
    """docs/protocol.md §5, though the server says nothing more."""
    town = Town(tmp_path)
    config = town.config()
    state, asked = first_messages(config)
    out: tuple[effects.Effect, ...] = ()
    for site, data in asked.items():
        state, more = coordinator.step(config, state, effects.Received(town.start(site, data), site))
        out += more
    keys = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}
    town.sites["a"].answer(keys["a"], RecordDict())
    (attempt,) = town.sites["a"]._live.values()
    town.now = 10.0
    town.sites["a"].expire()
    assert attempt.state.memory is not None
    town.now = 10.5
    town.sites["a"].expire()
    assert attempt.state.memory is None
    assert not town.sites["a"]._live


class TestARepetitionOfStart:
    def test_is_answered_with_the_same_bytes(self, tmp_path: Path) -> None:
        town = Town(tmp_path)
        _, asked = first_messages(town.config())
        assert town.sites["a"].repeated(asked["a"]) == b""
        first = town.start("a", asked["a"])
        assert town.sites["a"].repeated(asked["a"]) == first

    def test_that_was_overtaken_is_refused_and_the_attempt_goes_on(self, tmp_path: Path) -> None:
        town = Town(tmp_path)
        config = town.config()
        state, asked = first_messages(config)
        out: tuple[effects.Effect, ...] = ()
        for site, data in asked.items():
            state, more = coordinator.step(config, state, effects.Received(town.start(site, data), site))
            out += more
        keys = {effect.site: effect.data for effect in out if isinstance(effect, effects.SendTo)}
        town.sites["a"].answer(keys["a"], RecordDict())
        with pytest.raises(RemoteProtocolError, match="has gone on since"):
            town.sites["a"].repeated(asked["a"])
        with pytest.raises(RemoteProtocolError, match="admitted before"):
            town.start("a", asked["a"])
        assert town.sites["a"].answer(keys["a"], RecordDict()), "the attempt that is under way was not disturbed"


def test_no_more_attempts_are_admitted_than_were_agreed(tmp_path: Path) -> None:
    town = Town(tmp_path)
    for attempt in (1, 2, 3):
        _, asked = first_messages(town.config(attempt))
        town.start("a", asked["a"])
    context = replace(town.config().context, round=2)
    _, asked = first_messages(coordinator.CoordinatorConfig(context, ROSTER, town.config().region_digests, RealSuite()))
    with pytest.raises(RemoteProtocolError, match="agreed to 3 attempts in this run"):
        town.start("a", asked["a"])


BOUND = 4 << 30  # of an entry, at the heaviest weight of the town


@pytest.mark.parametrize(
    "blocks",
    [
        (Block(1, BOUND), Block(1, BOUND)),
        (Block(1, 1), Block(1, BOUND)),
        (Block(2, BOUND - 1),),
        (Block(2, BOUND + 1),),
        (Block(2, 1),),
        (Block(2, 1 << 30),),
    ],
    ids=["split", "split and small", "one less", "one more", "tiny", "another's weight"],
)
@pytest.mark.parametrize("value", [0, 2**20, 2**40])
def test_bounds_that_the_server_chose_tell_it_nothing(blocks: tuple[Block, ...], value: int, tmp_path: Path) -> None:
    """A START whose blocks or bounds are not the plan's is refused in the same words, whatever the update is."""
    town = Town(tmp_path)
    config = town.config()
    (region,) = config.context.regions
    context = replace(config.context, regions=(Region(region.holders, blocks),))
    _, asked = first_messages(replace(config, context=context))
    trained = replace(town.trained("d"), units={"update": np.full(2, value, np.int64)})
    with pytest.raises(RemoteProtocolError) as caught:
        town.sites["d"].start(asked["d"], trained, RecordDict(), paid=(1, 1), most=3, job=JOB, entropy=seeded("d"))
    assert "or of how it is summed: the b" in str(caught.value)  # the blocks and bounds, or the bounds
    assert "entry" not in str(caught.value)


def test_another_grid_than_was_agreed_is_refused(tmp_path: Path) -> None:
    town = Town(tmp_path)
    context = replace(town.config().context, fraction_bits=FRACTION_BITS - 1)
    _, asked = first_messages(replace(town.config(), context=context))
    with pytest.raises(RemoteProtocolError, match="the grid is another"):
        town.start("a", asked["a"])


@pytest.mark.parametrize("value", [0, 2**20, 2**40])
def test_keys_are_advertised_whatever_the_update_is(value: int, tmp_path: Path) -> None:
    town = Town(tmp_path)
    _, asked = first_messages(town.config())
    trained = replace(town.trained("d"), units={"update": np.full(2, value, np.int64)})
    entropy = seeded("d")
    assert town.sites["d"].start(asked["d"], trained, RecordDict(), paid=(1, 1), most=3, job=JOB, entropy=entropy)


def test_an_update_that_does_not_fit_is_refused_once_it_is_paid_for(tmp_path: Path) -> None:
    town = Town(tmp_path, unfit="b")
    end, refused = play(town, town.config())
    assert isinstance(end, effects.Finished)
    assert end.survivors == ("a", "c", "d")
    assert set(refused) == {"b"}
    assert refused["b"].startswith("b aborted: the update of region 0 is outside its bound")
    assert "b" in town.released


def test_a_process_that_did_not_see_the_beginning_refuses_the_rest(tmp_path: Path) -> None:
    town = Town(tmp_path)
    config = town.config()
    state, asked = first_messages(config)
    out: tuple[effects.Effect, ...] = ()
    for site, data in asked.items():
        state, more = coordinator.step(config, state, effects.Received(town.start(site, data), site))
        out += more
    keys = next(effect.data for effect in out if isinstance(effect, effects.SendTo))
    with pytest.raises(RemoteProtocolError, match="no such attempt"):
        Town(tmp_path).sites["a"].answer(keys, RecordDict())
