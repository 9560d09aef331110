"""Rounds over unequal parts, by the real machines: which regions are asked for, opened, left out and asked for again.

Six sites hold three nested regions: ``a b c`` everything, ``d`` all but the outermost, ``e f`` the core alone. Cover is
three holders, an attempt lives with four survivors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from clients.secure import Trained
from privacy.audit.transcript import AttemptRecord
from privacy.charter.document import Floors
from privacy.dp.plan import SitePlan
from privacy.secagg import client, effects, wire
from privacy.secagg.admission import ClientConfig
from privacy.secagg.context import Roster, RoundContext, Thresholds
from privacy.secagg.suite import RealSuite
from privacy.store.budgets import UNLIMITED, Asset
from privacy.store.ledger import Ledger
from server.exchange import Answers, Exchange, Timing
from server.rounds import Driver, RoundRecord, Schedule
from server.secure import CentralNoise, SecureCollector
from strategies.algorithm import Algorithm
from strategies.contribution import Contribution, Vector
from strategies.fed_avg import FedAvg
from strategies.layout import Layout
from strategies.messages import MASKED, SecureTask
from strategies.regions import Plan
from strategies.secure_sum import PLAIN, to_units
from strategies.sub_models import keys, whole
from strategies.task import SiteId
from tests.privacy.secagg.parties import identity, seeded

SITES = tuple(SiteId(site) for site in "abcdef")
ROSTER = Roster(1, {site: identity(site).public_key for site in SITES})
LAYOUT = Layout(("core", "middle", "outer"), ((6,), (4,), (3,)))
PLAN = Plan(
    LAYOUT,
    {
        **dict.fromkeys("abc", whole(LAYOUT)),
        "d": keys(LAYOUT, ["core", "middle"]),
        **dict.fromkeys("ef", keys(LAYOUT, ["core"])),
    },
)
OUTER, MIDDLE, CORE = 0, 1, 2  # by number in the plan
HOLDERS = ("abc", "abcd", "abcdef")
PLACES = (slice(10, 13), slice(6, 10), slice(0, 6))
JOB = "ab" * 32
ADVERT, SHARES, MASKED_INPUT = range(3)  # what a site answers, in order


def update_of(site: str, number: int) -> float:
    """What a site adds to each of its coordinates in a round; whole numbers, so that sums are exact."""
    return float(2 ** "abcdef".index(site) + 100 * number)


@dataclass
class Town:
    """An exchange with the machines of the sites behind it.

    Attributes:
      absent: By round and attempt, who answers nothing from which phase on.
      asked: Holders of the regions in each attempt's context.
    """

    absent: Mapping[tuple[int, int], Mapping[str, int]] = field(default_factory=dict)
    plan: Plan = PLAN
    asked: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    spent: dict[SiteId, str] = field(default_factory=dict)
    _configs: dict[str, ClientConfig] = field(default_factory=dict)
    _states: dict[str, client.ClientState] = field(default_factory=dict)
    _now: tuple[int, int] = (0, 0)
    _phase: int = 0

    def clock(self) -> float:
        return 0.0

    def ask(self, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
        if kind == MASKED:
            attempt = self._now[1] + 1 if self._now[0] == int(group) else 1
            self._now, self._phase = (int(group), attempt), ADVERT
        else:
            self._phase += 1
        gone = {site for site, phase in self.absent.get(self._now, {}).items() if self._phase >= phase}
        payloads = {site: self._answer(kind, site, data) for site, data in questions.items() if site not in gone}
        return Answers(payloads, dict.fromkeys(sorted(questions.keys() & gone), "no answer within 30 s"))

    def _answer(self, kind: str, site: SiteId, data: bytes) -> bytes:
        if kind == MASKED:
            both = SecureTask.decode(data)
            context = RoundContext.decode(cast("wire.Start", wire.decode(both.start)).context)
            self.asked[self._now] = tuple("".join(region.holders) for region in context.regions)
            held = both.task.arrays["model"].size
            update = Contribution({"update": np.full(held, update_of(site, both.task.round), np.float32)})
            units = to_units(update, FedAvg.declared, 1, seeded(site))
            trained = Trained(units, both.task.arrays, self.plan, FedAvg.declared, lambda _state: None, 1, PLAIN)
            self._states[site] = client.idle(trained.local_input(site, context))
            self._configs[site] = ClientConfig(
                site, identity(site), ROSTER, bytes.fromhex(JOB), {}, seeded(site, data), RealSuite()
            )
            data = both.start
        self._states[site], out = client.step(self._configs[site], self._states[site], effects.Received(data))
        (answer,) = [effect.data for effect in out if isinstance(effect, effects.Send)]
        return answer


@dataclass
class Run:
    """What became of some rounds."""

    records: list[RoundRecord]
    models: list[Vector]
    attempts: list[AttemptRecord]

    def moved(self, number: int, region: int) -> npt.NDArray[np.float64]:
        """Returns what a round added to the coordinates of a region."""
        before = self.models[number - 2] if number > 1 else np.zeros(self.models[0].size)
        return (self.models[number - 1] - before)[PLACES[region]].astype(np.float64)


def run(town: Town, *, rounds: int = 2, retries: int = 2, **keep: Any) -> Run:
    algorithm: Algorithm[Any] = FedAvg()
    weights, done = dict.fromkeys(SITES, 1.0), Run([], [], [])
    exchange = cast("Exchange", town)
    collector = SecureCollector(
        exchange, algorithm, town.plan, ROSTER, weights, JOB, "town", "run", on_attempt=done.attempts.append, **keep
    )  # fmt: skip

    def on_round(record: RoundRecord, state: Any) -> None:
        done.records.append(record)
        done.models.append(algorithm.parameters(state))

    schedule = Schedule(rounds, retries)
    driver = Driver(exchange, algorithm, schedule, JOB, weights, town.plan, collector.collect)
    driver.run(algorithm.init(np.zeros(town.plan.layout.size, np.float32)), on_round)
    return done


def mean_update(sites: str, number: int) -> float:
    return sum(update_of(site, number) for site in sites) / len(sites)


def check_moved(done: Run, number: int, region: int, sites: str) -> None:
    """Whether a round moved a region by the mean over those sites; by nothing if there are none."""
    expected = mean_update(sites, number) if sites else 0.0
    np.testing.assert_allclose(done.moved(number, region), expected, rtol=1e-6)


@pytest.mark.parametrize("phase", [SHARES, MASKED_INPUT])
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_region_that_loses_its_cover_stands_still_for_the_rest_of_its_round(phase: int, *, comes_back: bool) -> None:
    """A wide site advertises its keys and is gone: in the second round it is there again."""
    town = Town(absent={(1, 1): {"c": phase}, (1, 2): {} if comes_back else {"c": ADVERT}})
    done = run(town)
    assert town.asked == {(1, 1): HOLDERS, (1, 2): HOLDERS[1:], (2, 1): HOLDERS}
    first, second = done.records
    assert (first.attempts, first.still, first.skipped) == (2, (OUTER,), False)
    assert (second.attempts, second.still) == (1, ())
    assert [bool(record.signed) for record in done.attempts] == [False, True, True]
    survivors = "abcdef" if comes_back else "abdef"
    assert "".join(first.answered) == survivors
    check_moved(done, 1, OUTER, "")
    check_moved(done, 1, MIDDLE, survivors[:-2])
    check_moved(done, 1, CORE, survivors)
    check_moved(done, 2, OUTER, "abc")


def test_two_regions_that_lose_their_cover_take_an_attempt_each() -> None:
    town = Town(absent={(1, 1): {"b": SHARES, "c": SHARES}, (1, 2): {"b": SHARES, "c": SHARES}, (1, 3): {"b": ADVERT}})
    done = run(town)
    assert [town.asked[1, attempt] for attempt in (1, 2, 3)] == [HOLDERS, HOLDERS[1:], HOLDERS[2:]]
    assert (done.records[0].attempts, done.records[0].still) == (3, (OUTER, MIDDLE))
    check_moved(done, 1, CORE, "acdef")
    assert (town.asked[2, 1], done.records[1].still) == (HOLDERS, ())


def test_a_wide_site_that_never_answers_makes_its_region_stand_still_without_an_abort() -> None:
    town = Town(absent={(1, 1): {"a": ADVERT}})
    done = run(town)
    assert town.asked == {(1, 1): HOLDERS, (2, 1): HOLDERS}
    assert [(record.attempts, record.still) for record in done.records] == [(1, (OUTER,)), (1, ())]
    assert all(record.signed for record in done.attempts)
    check_moved(done, 1, OUTER, "")
    check_moved(done, 1, MIDDLE, "bcd")
    check_moved(done, 1, CORE, "bcdef")


def test_a_region_below_the_floor_is_never_asked_for() -> None:
    few = Plan(
        LAYOUT, {**dict.fromkeys("ab", whole(LAYOUT)), **dict.fromkeys("cdef", keys(LAYOUT, ["core", "middle"]))}
    )
    town = Town(plan=few)
    done = run(town)
    assert set(town.asked.values()) == {("abcdef",)}
    assert [record.still for record in done.records] == [(0,), (0,)]
    check_moved(done, 1, OUTER, "")


def test_without_a_site_regions_are_unions_and_still_names_the_plans_own() -> None:
    """With ``d`` out of budget, outer and middle are one region of the cohort; ``a`` never answers."""
    town = Town(absent={(1, 1): {"a": ADVERT}}, spent={SiteId("d"): "no room"})
    done = run(town, rounds=1)
    assert town.asked == {(1, 1): ("abc", "abcef")}
    assert done.records[0].still == (OUTER, MIDDLE)
    check_moved(done, 1, CORE, "bcef")


def halves() -> Plan:
    left, right = keys(LAYOUT, ["core"]), keys(LAYOUT, ["middle"])
    return Plan(LAYOUT, {**dict.fromkeys("abc", left), **dict.fromkeys("def", right)})


def pairs() -> Plan:
    parts = [keys(LAYOUT, [name]) for name in LAYOUT.names]
    return Plan(LAYOUT, {site: parts[place // 2] for place, site in enumerate(SITES)})


@pytest.mark.parametrize(
    ("plan", "absent", "attempts", "reason"),
    [
        (pairs(), {}, 1, "no part of the model has the 3 holders that a sum takes"),
        (halves(), {"c": ADVERT, "f": ADVERT}, 1, "no region has enough holders in U1"),
    ],
    ids=["by the plan", "by who answers"],
)
def test_where_all_regions_are_weak_nothing_is_opened_and_why_is_said(
    plan: Plan, absent: Mapping[str, int], attempts: int, reason: str
) -> None:
    done = run(Town(plan=plan, absent={(1, 1): absent}), rounds=1, retries=0)
    (record,) = done.records
    assert record.skipped
    assert record.still == tuple(range(len(plan.regions())))
    assert reason in record.missing[SITES[0]]
    assert "\n" not in record.missing[SITES[0]]
    assert len(done.attempts) == attempts
    assert not any(attempt.signed for attempt in done.attempts)
    assert not done.models[0].any()


def test_a_round_in_which_nobody_could_be_asked_is_not_tried_again() -> None:
    done = run(Town(plan=pairs()), rounds=2, retries=2)
    assert [(record.attempts, record.skipped) for record in done.records] == [(1, True), (1, True)]
    assert [(attempt.round, attempt.attempt) for attempt in done.attempts] == [(1, 1), (2, 1)]


@pytest.fixture
def noise(tmp_path: Path) -> CentralNoise:
    return noise_for(tmp_path, attempts=5)


def noise_for(tmp_path: Path, *, attempts: int) -> CentralNoise:
    plan = SitePlan.calibrated(target=Decimal(10), delta=Decimal("0.001"), clip=Decimal(1), max_attempts=attempts)
    ledger = Ledger.create(tmp_path / "ledger.db", simulation=True)
    ledger.declare(Asset("everybody", {plan.claim: UNLIMITED}))
    return CentralNoise(plan, ledger, "everybody", "run")


class TestCentralNoise:
    def test_one_sum_is_one_debit_however_many_regions_it_has(self, noise: CentralNoise) -> None:
        """An attempt that opened nothing showed nobody a sum: it costs nothing."""
        done = run(Town(absent={(1, 1): {"c": SHARES}}), noise=noise)
        assert [record.attempts for record in done.records] == [2, 1]
        assert [(debit.round, debit.attempt) for debit in noise.ledger.debits()] == [(1, 2), (2, 1)]
        assert all(debit.event == noise.plan.event(1) for debit in noise.ledger.debits())

    def test_without_budget_for_its_noise_no_site_is_asked(self, tmp_path: Path) -> None:
        town = Town()
        run(town, noise=noise_for(tmp_path, attempts=1))
        assert set(town.asked) == {(1, 1)}

    def test_every_region_has_the_plans_noise_and_each_entry_its_own(self, noise: CentralNoise) -> None:
        """Chi-squared over 20,000 draws: five deviations are 5 %."""
        size, variance = 20_000, (float(noise.plan.noise_multiplier) * noise.plan.units) ** 2
        sums = {k: np.full(size + k, 7, np.int64) for k in (0, 2, 3)}
        noisy = noise.release(sums, 1, 1)
        drawn = {k: (noisy[k] - sums[k]).astype(np.float64) for k in noisy}
        assert {k: vector.size for k, vector in drawn.items()} == {0: size, 2: size + 2, 3: size + 3}
        for vector in drawn.values():
            assert vector.var() == pytest.approx(variance, rel=0.05)
        together = np.corrcoef([vector[:size] for vector in drawn.values()])
        assert np.abs(together - np.eye(3)).max() < 5 / np.sqrt(size)


def test_floors_do_not_fall_below_what_the_noise_counts_on_however_few_are_left() -> None:
    """Shares of noise are made for the whole federation: a smaller cohort must not be asked for thinner sums."""
    counted_on = Thresholds(n_c=1, t=4, min_survivors=5, min_cover=4)
    done = run(Town(), rounds=1, counted_on=counted_on)
    (attempt,) = done.attempts
    assert attempt.signed is not None
    floors = RoundContext.decode(attempt.signed.context).thresholds
    assert (floors.min_survivors, floors.min_cover) == (5, 4)
    assert done.records[0].still == (OUTER,)
    few = Town(spent={SiteId("e"): "nothing left", SiteId("f"): "nothing left"})
    (record,) = run(few, rounds=1, retries=0, counted_on=counted_on).records
    assert record.skipped
    assert set(record.missing.values()) == {"4 sites are left to ask, and a sum takes 5"}
    assert not few.asked


def test_floors_do_not_fall_below_the_charters() -> None:
    done = run(Town(), rounds=1, floors=Floors(cohort=4, survivors=6, threshold=5, cover=4))
    (attempt,) = done.attempts
    assert attempt.signed is not None
    limits = RoundContext.decode(attempt.signed.context).thresholds
    assert (limits.min_survivors, limits.t, limits.min_cover) == (6, 5, 4)
    assert done.records[0].still == (OUTER,)
