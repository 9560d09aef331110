"""A coordinator that is cut off anywhere goes on from its last commit, to the same model as if nothing had happened."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from privacy.errors import BudgetExhaustedError
from server.rounds import Collected, RoundRecord, Schedule, Standing
from strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from strategies.algorithm import Algorithm
from strategies.fed_avg import FedAvg, FedProx
from strategies.registry import ALGORITHMS
from strategies.scaffold import Scaffold
from strategies.task import SiteId
from tests.server.resuming import LINES, SITES, START, Crash, Fuse, Sites, Told, bits, journal_in, live

A, B, C, D = SITES
EVERY: tuple[Algorithm[Any], ...] = (FedAvg(), FedProx(), Scaffold(), FedAdam(), FedYogi(), FedAdagrad())
PLENTY = Schedule(3, 6)


def lines(folder: Path) -> list[str]:
    return (folder / LINES).read_text().splitlines()


def test_no_algorithm_is_left_out() -> None:
    assert {algorithm.name for algorithm in EVERY} == set(ALGORITHMS)


@pytest.mark.parametrize("algorithm", EVERY, ids=lambda algorithm: algorithm.name)
def test_a_crash_at_any_step_changes_no_bit_of_the_model(algorithm: Algorithm[Any], folder: Path) -> None:
    """Before and after everything that is written, before every answer, within a line of the other file."""
    schedule, fuse = Schedule(3, 1), Fuse()
    (folder / "whole").mkdir()
    expected = live(folder / "whole", Sites(), algorithm, schedule, fuse=fuse)
    assert fuse.steps == 3 * (4 + 5 + 2)
    for at in range(1, fuse.steps + 1):
        place, sites = folder / str(at), Sites()
        place.mkdir()
        with pytest.raises(Crash):
            live(place, sites, algorithm, schedule, fuse=Fuse(at))
        told = live(place, sites, algorithm, schedule, resume=True)
        assert bits(told.state) == bits(expected.state), f"at step {at}"
        assert lines(place) == ["1 done", "2 done", "3 done"]
        assert [record.answered for record in told.records] == [SITES] * len(told.records)


def test_two_crashes_in_one_round_leave_a_third_attempt(folder: Path) -> None:
    (folder / "whole").mkdir()
    expected = live(folder / "whole", Sites(), Scaffold(), PLENTY)
    sites, fuse = Sites(), Fuse(11 + 4)  # in the second round, between two answers
    with pytest.raises(Crash):
        live(folder, sites, Scaffold(), PLENTY, fuse=fuse)
    with pytest.raises(Crash):
        live(folder, sites, Scaffold(), PLENTY, fuse=Fuse(2 + 4), resume=True)
    told = live(folder, sites, Scaffold(), PLENTY, resume=True)
    assert sites.asked == [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]
    assert [(record.round, record.attempts) for record in told.records] == [(1, 1), (2, 3), (3, 1)]
    assert bits(told.state) == bits(expected.state)


class TestRetries:
    """A half-done round costs an attempt: the sites may have paid for it."""

    def cut(self, folder: Path, schedule: Schedule, sites: Sites | None = None) -> Told:
        """Cuts the run off in round 2, between two answers, and resumes it."""
        sites = sites or Sites()
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), schedule, fuse=Fuse(11 + 4))
        return live(folder, sites, FedAvg(), schedule, resume=True)

    def test_the_lost_attempt_is_one_of_them(self, folder: Path) -> None:
        silent = frozenset((site, 3, attempt) for site in (A, B) for attempt in (1, 2, 3))
        told = self.cut(folder, Schedule(3, 2), Sites(silent))
        assert [(r.round, r.attempts, r.skipped) for r in told.records] == [(1, 1, False), (2, 2, False), (3, 2, True)]

    def test_without_any_left_the_run_stops_and_keeps_its_model(self, folder: Path) -> None:
        told = self.cut(folder, Schedule(3, 0))
        assert (
            told.driver.stopped == "round 2 was under way when the server ended, and no further attempt at it is left"
        )
        assert [record.round for record in told.records] == [1]
        assert lines(folder) == ["1 done"]
        (folder / "one").mkdir()
        assert bits(told.state) == bits(live(folder / "one", Sites(), FedAvg(), Schedule(1, 0)).state)

    def test_what_was_asked_for_in_vain_is_counted_however_often_it_ends(self, folder: Path) -> None:
        """The sites paid for an attempt that is in no record: without it, an epsilon is too small."""
        sites = Sites()
        once = self.cut(folder, Schedule(3, 0), sites)
        again = live(folder, sites, FedAvg(), Schedule(3, 0), resume=True)
        assert sites.asked == [(1, 1), (2, 1)]
        for told in (once, again):
            assert sum(record.attempts for record in told.records) + told.driver.lost_attempts == len(sites.asked)
            assert told.lost == [(2, 1)]

    def test_a_run_that_ends_of_its_own_has_lost_none(self, folder: Path) -> None:
        told = live(folder, Sites(poor={A: 1, B: 1}), FedAvg(), PLENTY)
        assert told.driver.stopped
        assert (told.driver.lost_attempts, told.lost) == (0, [])

    def test_those_that_earlier_rounds_took_stay_taken(self, folder: Path) -> None:
        """Else a run that crashes often would ask for more than its privacy plan has priced."""
        sites = Sites()
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), Schedule(3, 1), fuse=Fuse(4))
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), Schedule(3, 1), fuse=Fuse(11 + 4), resume=True)
        told = live(folder, sites, FedAvg(), Schedule(3, 1), resume=True)
        assert sites.asked == [(1, 1), (1, 2), (2, 1)]
        assert told.driver.stopped.startswith("round 2 was under way")

    def test_a_round_has_no_more_attempts_than_without_a_crash(self, folder: Path) -> None:
        sites = Sites()
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), PLENTY, fuse=Fuse(4))
        for _ in range(2):
            with pytest.raises(Crash):
                live(folder, sites, FedAvg(), PLENTY, fuse=Fuse(4), resume=True)
        told = live(folder, sites, FedAvg(), PLENTY, resume=True)
        assert sites.asked == [(1, 1), (1, 2), (1, 3)]
        assert told.driver.stopped.startswith("round 1 was under way")
        assert told.records == []

    def test_a_crash_between_rounds_costs_none(self, folder: Path) -> None:
        sites = Sites()
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), Schedule(3, 0), fuse=Fuse(11 + 1))  # before round 2 is noted as begun
        told = live(folder, sites, FedAvg(), Schedule(3, 0), resume=True)
        assert sites.asked == [(1, 1), (2, 1), (3, 1)]
        assert told.driver.stopped == ""


def test_nobody_is_asked_before_the_attempt_is_written(folder: Path) -> None:
    """Else an attempt could be asked for twice, and sites answer each once."""
    sites = Sites()
    with pytest.raises(Crash):
        live(folder, sites, FedAvg(), PLENTY, fuse=Fuse(3))
    with journal_in(folder, resume=True) as journal:
        resumed = journal.resumed(FedAvg().init(START))
    assert (resumed.begun, resumed.standing, sites.asked) == (1, None, [])


class TestStopped:
    """Budgets that end a run end it for good; what it was told of them is not asked for again."""

    POOR: ClassVar[Mapping[SiteId, int]] = {A: 1, B: 1}

    def test_a_run_that_stopped_stays_stopped(self, folder: Path) -> None:
        sites = Sites(poor=self.POOR)
        first = live(folder, sites, FedAvg(), PLENTY)
        assert [(record.round, record.skipped) for record in first.records] == [(1, False), (2, True)]
        again = live(folder, sites, FedAvg(), PLENTY, resume=True)
        assert again.driver.stopped == first.driver.stopped
        assert again.driver.stopped.startswith("2 sites have privacy budget left")
        assert sites.asked == [(1, 1)]
        assert bits(again.state) == bits(first.state)
        assert lines(folder) == ["1 done", "2 done"]

    def test_it_says_the_same_reason(self, folder: Path) -> None:
        """A reason that nobody could find out again: here, that the server's own budget was too small for round 2."""
        driver = live(folder, Sites(), FedAvg(), Schedule(1, 0)).driver
        driver.schedule = Schedule(2, 0)

        def collect(*_: object) -> Collected:
            raise BudgetExhaustedError("the server has no budget left")

        for told in ("the server has no budget left", ""):
            driver.stopped, driver.collect = "", collect if told else None
            with journal_in(folder, resume=True) as journal:
                resumed = journal.resumed(FedAvg().init(START))
                driver.run(None, lambda *_: None, journal=journal, resumed=resumed)
            assert driver.stopped == "the server has no budget left"

    def test_a_site_without_budget_is_not_asked_again(self, folder: Path) -> None:
        sites = Sites(poor={B: 1})
        with pytest.raises(Crash):
            live(folder, sites, FedAvg(), PLENTY, fuse=Fuse(2 * 11 + 1))
        told = live(folder, sites, FedAvg(), PLENTY, resume=True)
        assert told.exchange.spent == {B: "b has no budget left"}
        assert [record.answered for record in told.records] == [(A, C, D)] * 2
        assert told.records[-1].missing == {}

    def test_a_crash_before_the_end_is_noted_comes_to_the_same_end(self, folder: Path) -> None:
        (folder / "whole").mkdir()
        fuse = Fuse()
        expected = live(folder / "whole", Sites(poor=self.POOR), FedAvg(), PLENTY, fuse=fuse)
        for at in range(11 + 8, fuse.steps + 1):  # from the commit of round 2 on
            place, sites = folder / str(at), Sites(poor=self.POOR)
            place.mkdir()
            with pytest.raises(Crash):
                live(place, sites, FedAvg(), PLENTY, fuse=Fuse(at))
            told = live(place, sites, FedAvg(), PLENTY, resume=True)
            assert told.driver.stopped == expected.driver.stopped, f"at step {at}"
            assert bits(told.state) == bits(expected.state)


def test_what_left_each_site_is_counted_over_the_whole_run(folder: Path) -> None:
    sites = Sites()
    with pytest.raises(Crash):
        live(folder, sites, FedAvg(), PLENTY, fuse=Fuse(2 * 11 + 1))
    told = live(folder, sites, FedAvg(), PLENTY, resume=True)
    assert {account.messages for account in told.exchange.egress.values()} == {3}


def test_what_a_journal_is_given_is_not_what_the_next_round_changes(folder: Path) -> None:
    driver, spy = live(folder, Sites(), FedAvg(), Schedule(1, 0)).driver, Spy()
    driver.schedule, driver.exchange.egress = Schedule(4, 0), {}
    with journal_in(folder, resume=True) as journal:
        driver.run(None, lambda *_: None, journal=spy, resumed=journal.resumed(FedAvg().init(START)))
    assert [standing.egress[A].messages for standing in spy.standings] == [2, 3, 4]
    assert [standing.accepted[A] for standing in spy.standings] == [(2, 1), (3, 1), (4, 1)]


def test_whoever_is_there_when_a_run_goes_on_is_asked_and_nobody_is_forgotten(folder: Path) -> None:
    driver = live(folder, Sites(), Scaffold(), Schedule(1, 0)).driver
    with journal_in(folder, resume=True) as journal:
        resumed = journal.resumed(Scaffold().init(START))
    assert resumed.standing is not None
    known = {site: at for site, at in resumed.standing.accepted.items() if site != D}  # as if D were new
    resumed = replace(resumed, standing=replace(resumed.standing, accepted=known))
    driver.schedule, spy = Schedule(2, 0), Spy()
    driver.run(None, lambda *_: None, sites=(B, C, D), journal=spy, resumed=resumed)
    assert spy.calls == ["begun 2 1", "committed 2"]
    assert spy.standings[0].accepted == {A: (1, 1), B: (2, 1), C: (2, 1), D: (2, 1)}


def test_a_run_that_is_done_is_only_told_of_its_last_round_again(folder: Path) -> None:
    sites = Sites()
    first = live(folder, sites, FedAvg(), PLENTY)
    again = live(folder, sites, FedAvg(), PLENTY, resume=True)
    assert sites.asked == [(1, 1), (2, 1), (3, 1)]
    assert again.records == first.records[-1:]
    assert bits(again.state) == bits(first.state)


class Spy:
    """A journal that remembers what it was told, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.standings: list[Standing] = []

    def begun(self, number: int, attempt: int) -> None:
        self.calls.append(f"begun {number} {attempt}")

    def committed(self, record: RoundRecord, standing: Standing) -> None:
        assert record.round == standing.round
        self.calls.append(f"committed {record.round}")
        self.standings.append(standing)

    def stopped(self, reason: str) -> None:
        self.calls.append(f"stopped: {reason}")
