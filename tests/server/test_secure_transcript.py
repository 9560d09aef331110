"""What the collector keeps of an attempt: the sites' signatures if a sum was opened, the reason if none was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from privacy.audit import masked_rounds, transcript
from privacy.audit.transcript import AttemptRecord
from privacy.errors import ConfigError
from privacy.secagg import client, effects
from privacy.secagg.admission import ClientConfig, LocalInput
from privacy.secagg.context import Roster
from privacy.secagg.suite import RealSuite
from server.exchange import Answers, Exchange, Timing
from server.secure import SecureCollector
from strategies.algorithm import Algorithm
from strategies.contribution import Declared
from strategies.layout import Layout
from strategies.messages import MASKED, RoundTask, SecureTask
from strategies.regions import Plan
from strategies.secure_sum import plan_digest, values_digest
from strategies.sub_models import whole
from strategies.task import SiteId
from tests.privacy.secagg.parties import identity, seeded

SITES = tuple(SiteId(site) for site in ("a", "b", "c", "d"))
ROSTER = Roster(1, {site: identity(site).public_key for site in SITES})
DECLARED = Declared(("update",))
ARRAYS = {"model": np.array([0.5, -0.5], np.float32)}
LAYOUT = Layout(("x",), ((2,),))
PLAN = Plan(LAYOUT, dict.fromkeys(SITES, whole(LAYOUT)))
JOB = "ab" * 32


@dataclass
class Town:
    """An exchange with the machines of the sites behind it; those in ``silent`` never answer."""

    silent: set[str] = field(default_factory=set)
    timing: Timing = field(default_factory=Timing)
    states: dict[str, client.ClientState] = field(default_factory=dict)

    def ask(self, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
        del group
        asked = {site: data for site, data in questions.items() if site not in self.silent}
        payloads = {site: self._answer(kind, site, data) for site, data in asked.items()}
        return Answers(payloads, dict.fromkeys(sorted(questions.keys() - asked.keys()), "no answer within 30 s"))

    def _answer(self, kind: str, site: SiteId, data: bytes) -> bytes:
        config = ClientConfig(site, identity(site), ROSTER, bytes.fromhex(JOB), {}, seeded(site, data), RealSuite())
        if kind == MASKED:
            units = {0: np.array([1, 2], np.int64)}
            self.states[site] = client.idle(LocalInput(units, plan_digest(PLAN, DECLARED), {0: values_digest(ARRAYS)}))
            data = SecureTask.decode(data).start
        self.states[site], out = client.step(config, self.states[site], effects.Received(data))
        (answer,) = [effect.data for effect in out if isinstance(effect, effects.Send)]
        return answer


@dataclass(frozen=True)
class Sums:
    """As much of an algorithm as the collector looks at."""

    declared: Declared = DECLARED


def collector(town: Town, **keep: Any) -> SecureCollector:
    return SecureCollector(
        cast("Exchange", town), cast("Algorithm[object]", Sums()), PLAN, ROSTER, dict.fromkeys(SITES, 1.0), JOB, "town",
        "run", **keep,
    )  # fmt: skip


def collect(town: Town, number: int = 1, attempt: int = 1) -> list[AttemptRecord]:
    kept: list[AttemptRecord] = []
    tasks = {site: RoundTask(JOB, number, attempt, (0, 0), ARRAYS) for site in SITES}
    found = collector(town, on_attempt=kept.append).collect(ARRAYS, tasks, number, attempt)
    assert (found.aggregate is None) == (kept[-1].signed is None)
    return kept


def test_what_the_sites_signed_is_kept_and_holds() -> None:
    kept = collect(Town(silent={"d"}), number=3)
    claim = masked_rounds.claim_of(transcript.header(ROSTER) + b"".join(map(transcript.line, kept)))
    (attempt,) = claim["attempts"]
    assert (attempt["round"], attempt["attempt"], attempt["survivors"]) == (3, 1, ["a", "b", "c"])
    assert (claim["job"], claim["cohorts"][0]["sites"]) == (JOB, list(SITES))


def test_an_attempt_that_opened_nothing_is_kept_with_its_reason() -> None:
    (kept,) = collect(Town(silent={"c", "d"}))
    assert (kept.signed, kept.reason) == (None, "U1 has fewer than 3 sites")


def test_attempts_that_a_crash_cut_off_are_told_of_once_the_round_goes_on() -> None:
    """The sites paid for them, and a report whose attempts are not numbered from 1 contradicts itself."""
    *lost, last = collect(Town(), number=3, attempt=3)
    assert [(record.round, record.attempt, record.signed) for record in lost] == [(3, 1, None), (3, 2, None)]
    assert {record.reason for record in lost} == {"the coordinator ended in the middle of it"}
    assert (last.attempt, last.signed is not None) == (3, True)
    claim = masked_rounds.claim_of(transcript.header(ROSTER) + b"".join(map(transcript.line, [*lost, last])))
    assert len(claim["attempts"]) == 3


def test_attempts_at_a_round_that_does_not_go_on_are_told_of_once() -> None:
    kept: list[AttemptRecord] = []
    one = collector(Town(), on_attempt=kept.append)
    for _ in range(2):
        one.lost(3, 2)
    assert [(record.round, record.attempt, record.signed) for record in kept] == [(3, 1, None), (3, 2, None)]
    assert {record.reason for record in kept} == {"the coordinator ended in the middle of it"}


def test_a_whole_model_whose_attempt_was_aborted_is_asked_for_again() -> None:
    kept: list[AttemptRecord] = []
    town = Town(silent={"c", "d"})
    one = collector(town, on_attempt=kept.append)
    for attempt in (1, 2):
        tasks = {site: RoundTask(JOB, 1, attempt, (0, 0), ARRAYS) for site in SITES}
        found = one.collect(ARRAYS, tasks, 1, attempt)
        assert found.asked
        town.silent.clear()
    assert [record.signed is not None for record in kept] == [False, True]


def test_a_sum_whose_signatures_cannot_be_kept_is_not_used() -> None:
    def full(_record: AttemptRecord) -> None:
        raise ConfigError("the disk is full")

    tasks = {site: RoundTask(JOB, 1, 1, (0, 0), ARRAYS) for site in SITES}
    with pytest.raises(ConfigError, match="full"):
        collector(Town(), on_attempt=full).collect(ARRAYS, tasks, 1, 1)
