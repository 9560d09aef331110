"""A region that must stay closed does: weak, losing its cover, shown differently, changed in flight, not trained.

Over every region of every plan: some choices of victims in ``make test``, in ``make soak`` all of them for up to seven
sites and more of them for ten. And without the check that a kind of case is there for, the oracle reports openings.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from privacy.secagg import client
from privacy.secagg.admission import ClientConfig
from privacy.secagg.client import Phase
from privacy.secagg.context import RoundContext
from tests.privacy.secagg.simulation import cases_regions as cases
from tests.privacy.secagg.simulation.adversaries_regions import (
    LIES,
    NOBODY,
    PLANS,
    SMALL,
    ChoosingServer,
    Group,
    Plan,
    groups,
    lies,
)
from tests.privacy.secagg.simulation.cases_regions import Tally, resumed

ALL = 10**6
"""More than there are of any kind."""
Kind = Callable[[Plan, int], Tally]
KINDS: tuple[tuple[Kind, int, tuple[Plan, ...], int], ...] = (
    (cases.leave, 12, PLANS, 108),
    (cases.drop, 6, PLANS, 54),
    (cases.show, 20, SMALL, 139),
    (cases.switch, 2, SMALL, 48),
    (cases.retry, 3, SMALL, 60),
    (cases.idle, 2, PLANS, 48),
)
"""Cases of a kind, how many are drawn at a time for each plan, and how many that makes."""


def plan(name: str) -> Plan:
    return next(each for each in PLANS if each.name == name)


TIGHT, CHAIN, OUTER = map(plan, ("three wide and one narrow", "depth prefixes", "three whole of ten, nobody colludes"))
REAL = replace(TIGHT, name="three wide and one narrow, real cryptography", suite="real")


@pytest.mark.parametrize(("kind", "count", "plans", "expected"), KINDS, ids=[kind.__name__ for kind, *_ in KINDS])
def test_some_choices_of_victims_open_no_forbidden_region(
    kind: Kind, count: int, plans: tuple[Plan, ...], expected: int
) -> None:
    total = Tally()
    for each in plans:
        total.add(kind(each, count))
    total.check(expected)


def test_every_choice_of_sites_left_out_of_a_plan_without_slack() -> None:
    cases.leave(TIGHT, ALL).check(88)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("each", [*PLANS, REAL], ids=lambda each: each.name.replace(" ", "-"))
@pytest.mark.parametrize("kind", [kind for kind, *_ in KINDS], ids=lambda kind: kind.__name__)
def test_many_choices_of_victims_open_no_forbidden_region(kind: Kind, each: Plan) -> None:
    tally = kind(each, ALL if each.n < 10 else 200)
    sys.stdout.write(f"{kind.__name__}, {each.name}: {tally}\n")
    tally.check(tally.cases)


# --- Without the checks -------------------------------------------------------------------------------


def weaken(monkeypatch: pytest.MonkeyPatch, active: Callable[[ClientConfig, Any], tuple[int, ...]]) -> None:
    """Lets a site look at other regions than all active ones when it is told the survivors (§3.6)."""
    row = client.TRANSITIONS[Phase.MASKED]

    def act(config: ClientConfig, memory: Any, message: Any) -> Any:
        return row.act(config, replace(memory, active=active(config, memory)), message)

    monkeypatch.setitem(client.TRANSITIONS, Phase.MASKED, replace(row, act=act))


def late_vectors(each: Plan, obey: Group = NOBODY) -> Tally:
    """Every holder of the narrowest region is called dead in turn, its vector in hand."""
    tally = Tally()
    for gone in groups(each.held[-1], [1]):
        cases.left_out(tally, each, "U3", gone, obey)
    return tally


def test_without_the_check_of_survivors_the_oracle_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    weaken(monkeypatch, lambda *_: ())
    assert str(late_vectors(TIGHT)) == "3 cases, 6 openings of a forbidden region"


def test_if_only_holders_check_the_oracle_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who hold nothing of the region are enough to open it, alone or with three holders that obey the server."""
    weaken(monkeypatch, lambda config, memory: memory.context.carried(memory.active, config.site))
    assert late_vectors(OUTER).openings > 0
    assert late_vectors(plan("five and five"), frozenset(("site-1", "site-10", "site-2"))).openings > 0


def test_a_resumed_attempt_is_open_without_the_check_of_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    weaken(monkeypatch, lambda *_: ())
    for again in (True, False):
        tally = Tally()
        resumed(tally, TIGHT, 1, frozenset({"site-1"}), NOBODY, again=again)
        assert str(tally) == "1 cases, 1 openings of a forbidden region"


def test_if_a_region_that_was_not_trained_is_accepted_the_oracle_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "check_entries", lambda *_: None)
    assert cases.idle(TIGHT, ALL).openings > 0


def test_if_the_cohort_makes_a_region_active_and_not_u1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later checks still hold the region shut, and the whole attempt with it; without them it is open."""
    by_u1 = RoundContext.active
    monkeypatch.setattr(RoundContext, "active", lambda self, _u1: by_u1(self, self.cohort))
    shut = Tally()
    cases.left_out(shut, TIGHT, "U1", frozenset({"site-1"}))
    assert shut.faults
    assert not shut.openings
    monkeypatch.setattr(RoundContext, "uncovered", lambda *_: None)
    cases.left_out(shut, TIGHT, "U1", frozenset({"site-1"}))
    assert shut.openings > 0


def test_the_oracle_knows_a_region_again_in_an_attempt_that_numbers_it_anew() -> None:
    """The same input summed with a site and, a region less, without it: the difference is that site's update."""
    server = ChoosingServer(CHAIN.schedule(frozen=(frozenset(), frozenset({0})), again=True)).attempt()
    assert not server.violations
    server.gone = {"U1": frozenset({"site-5"})}
    server.attempt(2)
    assert any("region 1: [] opens ['site-5']" in what for what in server.violations)


def test_no_lie_about_a_plan_is_left_out() -> None:
    for each in PLANS:
        for k, site in product(range(len(each.held)), each.cohort):
            assert len(list(lies(each.schedule(), k, site))) <= LIES
