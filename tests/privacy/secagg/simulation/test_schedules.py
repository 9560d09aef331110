"""Random schedules from a seed: exact sums, no forbidden opening, whatever is lost, whoever dies, whoever cheats.

A failure prints its seed and how to replay it; keep it in ``tests/vectors/fsa1_schedules``.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privacy.errors import RemoteProtocolError
from privacy.secagg.context import RoundContext
from tests.privacy.secagg.simulation.oracle import Row, Symbol, opened
from tests.privacy.secagg.simulation.run import many, simulate, spread
from tests.privacy.secagg.simulation.schedule import Network, SuiteName, draw
from tests.privacy.secagg.simulation.world import World

CORPUS = sorted((Path(__file__).parents[3] / "vectors" / "fsa1_schedules").glob("*.json"))


def check(totals: Counter[str], failed: list[str], count: int) -> None:
    assert not failed, "\n\n".join(failed[:3])
    assert totals["schedules"] == count
    # A simulation in which nothing ever opens would prove nothing.
    assert totals["finished"] > 0.4 * (count - totals["malicious"])
    assert totals["opened"] > 0.3 * totals["malicious"]


@pytest.mark.parametrize("entry", CORPUS, ids=lambda path: path.stem)
def test_past_failures_and_odd_schedules(entry: Path) -> None:
    kept = json.loads(entry.read_text(encoding="utf-8"))
    suites: tuple[SuiteName, ...] = ("ideal", "real")
    for suite in suites:
        report = simulate(draw(kept["seed"], suite))
        assert not report.violations, report


def test_a_few_schedules() -> None:
    """Enough to kill a mutant, in one process."""
    totals, failed = many(range(150), "ideal")
    check(totals, [str(report) for report in failed], 150)


@pytest.mark.parametrize(("suite", "count"), [("real", 500), ("ideal", 2_000)])
def test_schedules(suite: SuiteName, count: int) -> None:
    check(*spread(suite, count), count)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("suite", "count"), [("real", 10_000), ("ideal", 100_000)])
def test_many_schedules(suite: SuiteName, count: int) -> None:
    check(*spread(suite, count, first=1_000_000), count)


def test_a_seed_decides_everything() -> None:
    for seed in (1, 2, 3, 4):
        one, two = (World(draw(seed, "ideal")).run() for _ in range(2))
        assert [(a.context, a.audits, repr(a.end)) for a in one.attempts] == [
            (a.context, a.audits, repr(a.end)) for a in two.attempts
        ]
        assert one.now == two.now


def test_a_perfect_network_loses_nobody() -> None:
    for seed in range(40):
        schedule = replace(draw(seed, "ideal"), network=Network(), malicious=False, active=frozenset())
        world = World(schedule).run(attempts=1)
        assert not world.violations
        first = world.attempts[0]
        active = schedule.context().active(schedule.cohort)
        if active:
            assert world.finished, (first.end, schedule.replay)
            assert world.finished[0].survivors == schedule.cohort


def test_the_oracle_finds_what_is_open() -> None:
    """Three equations by hand; ``m`` is a mask."""
    x: dict[int, Symbol] = {i: ("x", f"site-{i}", 0) for i in (1, 2, 3)}
    m: Symbol = ("pair", 1, 2)
    first, second, third = Row({x[1]: 1, m: 1}), Row({x[2]: 1, m: -1 % (2**61 - 1)}), Row({x[3]: 1})
    assert opened([first, second]) == [{x[1]: 1, x[2]: 1}]
    assert opened([first]) == []
    assert opened([first, second, third]) == [{x[1]: 1, x[2]: 1}, {x[3]: 1}]
    assert opened([first, {x[1]: 1, x[2]: 1, m: 1}]) == [{x[2]: 1}]


def _violations(first: int, count: int) -> int:
    return sum(bool(simulate(draw(seed, "ideal")).violations) for seed in range(first, first + count))


def test_without_the_check_of_regions_the_oracle_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoundContext, "uncovered", lambda *_: None)
    assert _violations(0, 100) >= 2


def test_without_the_floor_on_survivors_the_oracle_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RoundContext.check_set

    def lenient(self: RoundContext, name: str, *arguments: Any) -> None:
        try:
            whole(self, name, *arguments)
        except RemoteProtocolError as error:
            if name != "U3" or "fewer than" not in str(error):
                raise

    monkeypatch.setattr(RoundContext, "check_set", lenient)
    assert _violations(0, 100) >= 2
