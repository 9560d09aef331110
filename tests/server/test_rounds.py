"""The round driver over scripted sites: who is dropped, what is retried, what is summed and in which order."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cbor2
import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from privacy.errors import ConfigError
from server.exchange import Exchange, Timing
from server.rounds import Driver, RoundRecord, Schedule
from strategies.algorithm import Algorithm
from strategies.contribution import Contribution, Vector
from strategies.fed_avg import FedAvg
from strategies.layout import Layout
from strategies.messages import RoundReply, RoundTask
from strategies.regions import Plan
from strategies.scaffold import Scaffold
from strategies.sub_models import whole
from strategies.task import SiteId
from tests.server.scripted import Delivery, FakeClock, ScriptedGrid, body_of, says

A, B, C, D = SITES = tuple(map(SiteId, "abcd"))
WEIGHTS: Mapping[SiteId, float] = {A: 1.0, B: 2.0, C: 4.0, D: 1.0}
TIMING = Timing(deadline=10.0, first_poll=0.5, longest_poll=4.0)
START = np.array([1.0, -1.0, 0.5], dtype=np.float32)
UPDATES = {
    site: np.array([0.1, 0.3, -0.7], dtype=np.float32) * np.float32(place) for place, site in enumerate(SITES, 1)
}

Answer = Callable[[SiteId, RoundTask], bytes | None]
"""What a site answers; ``None``: nothing."""


def whole_plan(sites: Iterable[SiteId]) -> Plan:
    layout = Layout(("x",), ((START.size,),))
    return Plan(layout, dict.fromkeys(sites, whole(layout)))


class Federation:
    """A driver, its sites and what they were told.

    Attributes:
      tasks: Every task per site.
      records: What became of each round, with the state after it.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        algorithm: Algorithm[Any] | None = None,
        schedule: Schedule | None = None,
        weights: Mapping[SiteId, float] = WEIGHTS,
        delays: Mapping[SiteId, float] | None = None,
    ) -> None:
        self.tasks: dict[SiteId, list[RoundTask]] = {site: [] for site in weights}
        self.records: list[tuple[RoundRecord, Any]] = []
        self.clock = FakeClock()
        self._answer, self._delays = answer, delays or {}
        self.exchange = Exchange(
            ScriptedGrid(self.clock, self._reply),
            {site: place for place, site in enumerate(weights, start=1)},
            TIMING,
            self.clock,
            self.clock.sleep,
        )
        self.algorithm: Algorithm[Any] = algorithm or FedAvg()
        self.driver = Driver(
            self.exchange, self.algorithm, schedule or Schedule(1, 0), "job", weights, whole_plan(weights)
        )

    def _reply(self, question: Message) -> Sequence[Delivery]:
        site = list(self.tasks)[question.metadata.dst_node_id - 1]
        task = RoundTask.decode(body_of(question))
        self.tasks[site].append(task)
        data = self._answer(site, task)
        return [] if data is None else [Delivery(self._delays.get(site, 0.0), says(question, data))]

    def run(self, start: Vector = START, *, sites: Sequence[SiteId] | None = None) -> Vector:
        state = self.driver.run(
            self.algorithm.init(start), lambda record, state: self.records.append((record, state)), sites=sites
        )
        return self.algorithm.parameters(state)

    @property
    def record(self) -> RoundRecord:
        [(record, _)] = self.records
        return record

    def attempts(self, site: SiteId) -> list[tuple[int, int]]:
        return [(task.round, task.attempt) for task in self.tasks[site]]


def honest(site: SiteId, task: RoundTask) -> bytes:
    return reply(site, task, Contribution({"update": UPDATES[site]}))


def reply(site: SiteId, task: RoundTask, contribution: Contribution) -> bytes:
    return RoundReply(site, task.round, task.attempt, contribution).encode()


def only(*sites: SiteId) -> Answer:
    return lambda site, task: honest(site, task) if site in sites else None


def expected_model(*sites: SiteId) -> Vector:
    """Federated averaging by hand."""
    weight = np.array([WEIGHTS[site] for site in sites])
    updates = np.array([UPDATES[site] for site in sites], dtype=np.float64)
    return np.asarray(START + weight @ updates / weight.sum(), dtype=np.float32)


def test_a_round_averages_everybody_by_weight() -> None:
    federation = Federation(honest)
    np.testing.assert_allclose(federation.run(), expected_model(*SITES), rtol=1e-6)
    assert federation.record == RoundRecord(1, 1, SITES, {}, skipped=False, seconds=0.0)


def test_rounds_begin_where_the_last_one_ended() -> None:
    federation = Federation(honest, schedule=Schedule(3, 0))
    model = federation.run()
    sent = [task.arrays["model"] for task in federation.tasks[A]]
    assert [record.round for record, _ in federation.records] == [1, 2, 3]
    assert federation.attempts(A) == [(1, 1), (2, 1), (3, 1)]
    for (_, state), following in zip(federation.records, [*sent[1:], model], strict=True):
        np.testing.assert_array_equal(federation.algorithm.parameters(state), following)


def test_every_task_names_the_job_it_belongs_to() -> None:
    federation = Federation(honest)
    federation.run()
    assert {task.job for tasks in federation.tasks.values() for task in tasks} == {"job"}


def test_three_survivors_are_enough() -> None:
    federation = Federation(only(A, B, D))
    np.testing.assert_allclose(federation.run(), expected_model(A, B, D), rtol=1e-6)
    assert federation.record.answered == (A, B, D)
    assert federation.record.missing == {C: "no answer within 10 s"}
    assert not federation.record.skipped
    assert 10.0 <= federation.record.seconds <= 14.0


def test_below_the_floor_nothing_is_opened_and_the_model_stays() -> None:
    federation = Federation(only(A, B))
    np.testing.assert_array_equal(federation.run(), START)
    assert federation.record.skipped
    assert federation.record.answered == (A, B)
    assert set(federation.record.missing) == {C, D}


def test_a_retry_asks_everybody_again_with_the_same_model() -> None:
    def second_time_lucky(site: SiteId, task: RoundTask) -> bytes | None:
        return honest(site, task) if task.attempt == 2 or site == A else None

    federation = Federation(second_time_lucky, schedule=Schedule(1, 2))
    np.testing.assert_allclose(federation.run(), expected_model(*SITES), rtol=1e-6)
    assert (federation.record.attempts, federation.record.skipped, federation.record.missing) == (2, False, {})
    for site in SITES:
        assert federation.attempts(site) == [(1, 1), (1, 2)]
        np.testing.assert_array_equal(federation.tasks[site][1].arrays["model"], START)


def test_retries_are_counted_over_the_whole_run_as_the_privacy_plan_counts_them() -> None:
    """And a round has at most three attempts, whatever retries are left (docs/protocol.md §6.1)."""
    federation = Federation(only(A, B), schedule=Schedule(4, 3))
    federation.run()
    assert [record.attempts for record, _ in federation.records] == [3, 2, 1, 1]
    assert all(record.skipped for record, _ in federation.records)
    assert len(federation.tasks[A]) == 4 + 3


def test_a_skipped_round_leaves_the_state_itself_as_it_was() -> None:
    federation = Federation(lambda site, task: honest(site, task) if task.round != 2 else None, schedule=Schedule(3, 0))
    federation.run()
    (_, first), (second, unchanged), (third, _) = federation.records
    assert second.skipped
    assert not third.skipped
    assert unchanged is first


def claiming(**changes: Any) -> Answer:
    def answer(site: SiteId, task: RoundTask) -> bytes:
        body = cbor2.loads(honest(site, task))
        return cbor2.dumps({**body, **changes}, canonical=True) if site == B else cbor2.dumps(body, canonical=True)

    return answer


def packed(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


LIES: dict[str, tuple[Answer, str]] = {
    "nan": (claiming(arrays={"update": packed(0, np.nan, 0)}), "b: array 'update' has entries that are not finite"),
    "infinite": (
        claiming(arrays={"update": packed(0, np.inf, 0)}),
        "b: array 'update' has entries that are not finite",
    ),
    "too short": (claiming(arrays={"update": packed(0, 0)}), "b: array 'update' is not float32 of shape (3,)"),
    "too long": (claiming(arrays={"update": packed(0, 0, 0, 0)}), "b: array 'update' is not float32 of shape (3,)"),
    "undeclared array": (
        claiming(arrays={"update": packed(0, 0, 0), "x\n": packed(0, 0, 0)}),
        r"b: undeclared array 'x\n'",
    ),
    "undeclared scalar": (claiming(scalars={"loss": bytes(8)}), "b: undeclared scalar 'loss'"),
    "no array": (claiming(arrays={}), "b: missing array 'update'"),
    "other site": (claiming(site="a"), "b answered another question"),
    "other round": (claiming(round=2), "b answered another question"),
    "other attempt": (claiming(attempt=2), "b answered another question"),
    "odd bytes": (claiming(arrays={"update": b"12345"}), "arrays are named byte strings of float32"),
    "other version": (claiming(reply=2), "the message is not a version 1 'reply'"),
    "no message": (lambda site, task: b"\xff" if site == B else honest(site, task), "the message is not CBOR"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_sends_anything_else_than_it_declared_is_dropped(lie: str) -> None:
    answer, reason = LIES[lie]
    federation = Federation(answer)
    np.testing.assert_allclose(federation.run(), expected_model(A, C, D), rtol=1e-6)
    assert federation.record.answered == (A, C, D)
    assert federation.record.missing == {B: reason}
    assert federation.record.attempts == 1


def test_dropped_sites_count_against_the_floor() -> None:
    federation = Federation(
        lambda site, task: b"\xff" if site in {A, B} else honest(site, task), schedule=Schedule(1, 1)
    )
    np.testing.assert_array_equal(federation.run(), START)
    assert (federation.record.skipped, federation.record.attempts) == (True, 2)


def test_arrays_that_left_a_site_are_counted_even_if_they_are_refused() -> None:
    federation = Federation(claiming(attempt=2), schedule=Schedule(2, 0))
    federation.run()
    egress = federation.exchange.egress
    assert {site: account.unmasked_arrays for site, account in egress.items()} == dict.fromkeys(SITES, 2)


def test_sums_are_in_site_order_whatever_order_answers_come_in() -> None:
    noise = np.random.default_rng(7)
    weights = dict(zip(SITES, (0.1, 0.7, 1 / 3, 2.9), strict=True))
    updates = {site: noise.normal(0.0, 7.0**place, 64).astype(np.float32) for place, site in enumerate(SITES)}

    def mean(sites: Sequence[SiteId]) -> NDArray[np.float64]:
        total = np.zeros(64)
        for site in sites:
            total = total + updates[site].astype(np.float64) * weights[site]
        return total / math.fsum(weights.values())

    def answer(site: SiteId, task: RoundTask) -> bytes:
        return reply(site, task, Contribution({"update": updates[site]}))

    # With these numbers order shows in the last bit; otherwise the test would prove nothing.
    assert mean(SITES).tobytes() != mean(SITES[::-1]).tobytes()
    for delays in itertools.permutations((0.0, 1.0, 2.0, 3.0)):
        federation = Federation(answer, weights=weights, delays=dict(zip(SITES, delays, strict=True)))
        federation.run(np.zeros(64, dtype=np.float32))
        [(record, state)] = federation.records
        assert state.model.tobytes() == mean(SITES).tobytes()
        assert record.answered == SITES


class TestAccepted:
    """What a site is told of its last contribution that counted: Scaffold's control variates hang on it."""

    algorithm = Scaffold()

    def answer(self, site: SiteId, task: RoundTask) -> bytes:
        return reply(site, task, Contribution({"update": UPDATES[site], "control": UPDATES[site]}))

    def told(self, answer: Answer, schedule: Schedule) -> dict[SiteId, list[tuple[int, int]]]:
        federation = Federation(answer, algorithm=self.algorithm, schedule=schedule)
        federation.run()
        return {site: [task.accepted for task in tasks] for site, tasks in federation.tasks.items()}

    def test_everybody_is_told_of_the_round_before(self) -> None:
        told = self.told(self.answer, Schedule(3, 0))
        assert told == {site: [(0, 0), (1, 1), (2, 1)] for site in SITES}

    def test_a_site_that_was_missing_keeps_its_older_one(self) -> None:
        def answer(site: SiteId, task: RoundTask) -> bytes | None:
            return None if (site, task.round) == (B, 2) else self.answer(site, task)

        told = self.told(answer, Schedule(3, 0))
        assert told[B] == [(0, 0), (1, 1), (1, 1)]
        assert told[A] == [(0, 0), (1, 1), (2, 1)]

    def test_a_site_that_was_dropped_keeps_its_older_one(self) -> None:
        def answer(site: SiteId, task: RoundTask) -> bytes:
            return b"\xff" if (site, task.round) == (B, 1) else self.answer(site, task)

        assert self.told(answer, Schedule(2, 0))[B] == [(0, 0), (0, 0)]

    def test_only_the_attempt_that_was_summed_counts(self) -> None:
        def answer(site: SiteId, task: RoundTask) -> bytes | None:
            return self.answer(site, task) if task.attempt == 2 or site == A else None

        assert self.told(answer, Schedule(2, 1))[A] == [(0, 0), (0, 0), (1, 2)]

    def test_a_skipped_round_counts_for_nobody(self) -> None:
        def answer(site: SiteId, task: RoundTask) -> bytes | None:
            return self.answer(site, task) if task.round == 2 or site == A else None

        assert self.told(answer, Schedule(2, 0))[A] == [(0, 0), (0, 0)]


def test_the_share_of_the_survivors_is_by_weight_over_all_sites() -> None:
    def answer(site: SiteId, task: RoundTask) -> bytes | None:
        change = Contribution({"update": UPDATES[site], "control": np.ones(3, dtype=np.float32)})
        return None if site == C else reply(site, task, change)

    federation = Federation(answer, algorithm=Scaffold())
    federation.run()
    [(_, state)] = federation.records
    np.testing.assert_allclose(state.control, (1.0 + 2.0 + 1.0) / 8.0)


def test_a_chosen_cohort_is_asked_and_nobody_else() -> None:
    federation = Federation(honest)
    np.testing.assert_allclose(federation.run(sites=(B, C, D)), expected_model(B, C, D), rtol=1e-6)
    assert federation.tasks[A] == []
    assert federation.record.missing == {}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_a_model_that_diverged_ends_the_run_with_a_way_out() -> None:
    huge = np.full(3, 3e38, dtype=np.float32)
    federation = Federation(
        lambda site, task: reply(site, task, Contribution({"update": huge})), schedule=Schedule(9, 0)
    )
    with pytest.raises(ConfigError, match="diverged") as caught:
        federation.run()
    assert "learning rate" in caught.value.hint
    assert len(federation.records) == 1


@pytest.mark.parametrize("settings", [(0, 2), (1, -1), (1, 0, 2), (1, 0, 0)])
def test_a_schedule_without_rounds_or_with_a_low_floor_cannot_be_built(settings: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="floor of at least 3"):
        Schedule(*settings)
