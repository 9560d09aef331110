"""A coordinator that crashes where a test says, between sites that live on and remember, without Flower.

The sites' updates depend on the model, on the round and, under Scaffold, on what each keeps from its last contribution
that counted. So a round that is lost, doubled or built on another state shows in the last bit of the model.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from privacy.errors import FederationError
from server.checkpoints import Checkpoints, Surroundings
from server.exchange import Answers, Egress, Exchange
from server.rounds import Driver, Journal, Resumed, RoundRecord, Schedule, Standing
from strategies.algorithm import Algorithm
from strategies.contribution import Contribution, Vector
from strategies.fed_avg import FedAvg
from strategies.layout import Layout
from strategies.messages import RoundReply, RoundTask
from strategies.regions import Plan
from strategies.sub_models import whole
from strategies.task import SiteId

SITES = tuple(map(SiteId, "abcd"))
WEIGHTS: Mapping[SiteId, float] = dict(zip(SITES, (1.0, 2.0, 4.0, 1.0), strict=True))
START = np.array([1.0, -1.0, 0.5], dtype=np.float32)
LAYOUT = Layout(("x",), ((START.size,),))
PLAN = Plan(LAYOUT, dict.fromkeys(SITES, whole(LAYOUT)))
JOB = "ab" * 32
LINES = "lines"
"""The file that the coordinator of the test appends to."""


class Crash(BaseException):
    """Whatever it is that ends the process."""


def crash() -> None:
    raise Crash


@dataclass
class Fuse:
    """Blows at the step of that number, counted from 1; never if it is 0."""

    at: int = 0
    blow: Callable[[], None] = crash
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.blow()


@dataclass
class Memory:
    """What a site keeps, as `clients.app` does: ``pending`` counts once the server says that it was summed."""

    last: tuple[int, int] = (0, 0)
    kept: Vector = field(default_factory=lambda: np.zeros_like(START))
    pending: Vector = field(default_factory=lambda: np.zeros_like(START))


@dataclass
class Sites:
    """All sites of the federation behind one exchange; they outlive any coordinator.

    Attributes:
      silent: Round and attempt in which a site says nothing.
      poor: Last round that a site's privacy budget pays for.
      asked: Every round and attempt of which the first site was asked.
    """

    silent: frozenset[tuple[SiteId, int, int]] = frozenset()
    poor: Mapping[SiteId, int] = field(default_factory=dict)
    memories: dict[SiteId, Memory] = field(default_factory=lambda: {site: Memory() for site in SITES})
    asked: list[tuple[int, int]] = field(default_factory=list)

    def answer(self, site: SiteId, task: RoundTask, algorithm: Algorithm[Any]) -> bytes | None:
        memory, now = self.memories[site], (task.round, task.attempt)
        assert now > memory.last, "a site answers an attempt once"
        if site == SITES[0]:
            self.asked.append(now)
        if (site, *now) in self.silent:
            return None
        kept = memory.pending if task.accepted == memory.last else memory.kept
        pull = np.float32(0.1 * (1 + SITES.index(site))) * np.sin(task.arrays["model"] + np.float32(task.round))
        arrays = {"update": np.asarray(pull - kept, np.float32)}
        control = np.asarray(kept + pull, np.float32)
        if "control" in algorithm.declared.arrays:
            arrays["control"] = np.asarray(control - kept - task.arrays["control"], np.float32)
        else:
            control = kept
        self.memories[site] = Memory(now, kept, control)
        return RoundReply(site, task.round, task.attempt, Contribution(arrays)).encode()


@dataclass
class Line:
    """As much of an exchange as the driver uses: bytes to the sites and back, at once."""

    sites: Sites
    algorithm: Algorithm[Any]
    fuse: Fuse
    spent: dict[SiteId, str] = field(default_factory=dict)
    egress: dict[SiteId, Egress] = field(default_factory=lambda: {site: Egress() for site in SITES})

    def clock(self) -> float:
        return 0.0

    def ask(self, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
        del kind, group
        payloads: dict[SiteId, bytes] = {}
        for site, data in questions.items():
            self.fuse.step()
            task = RoundTask.decode(data)
            if task.round > self.sites.poor.get(site, task.round):
                self.spent[site] = f"{site} has no budget left"
                continue
            if (answer := self.sites.answer(site, task, self.algorithm)) is not None:
                payloads[site] = answer
                self.egress[site].messages += 1
                self.egress[site].bytes += len(answer)
        self.fuse.step()
        return Answers(payloads, dict.fromkeys([site for site in questions if site not in payloads], "silent"))


@dataclass
class Fused:
    """A journal with a step before and after everything that it writes."""

    journal: Journal
    fuse: Fuse

    def begun(self, number: int, attempt: int) -> None:
        self.fuse.step()
        self.journal.begun(number, attempt)
        self.fuse.step()

    def committed(self, record: RoundRecord, standing: Standing) -> None:
        self.fuse.step()
        self.journal.committed(record, standing)
        self.fuse.step()

    def stopped(self, reason: str) -> None:
        self.fuse.step()
        self.journal.stopped(reason)
        self.fuse.step()


@dataclass
class Told:
    """What one life of the coordinator ended with.

    Attributes:
      records: What it was told by the driver.
      state: After the last round.
      lost: Rounds that it was told came to nothing, each with the attempts at it.
    """

    driver: Driver
    exchange: Line
    records: list[RoundRecord] = field(default_factory=list)
    state: Any = None
    lost: list[tuple[int, int]] = field(default_factory=list)


def around(folder: Path) -> Surroundings:
    return Surroundings(folder, (LINES,))


def journal_in(folder: Path, *, resume: bool) -> AbstractContextManager[Checkpoints]:
    if resume:
        return Checkpoints.open(around(folder), job=JOB)
    return Checkpoints.create(around(folder), job=JOB, run="run 1")


def live(
    folder: Path,
    sites: Sites,
    algorithm: Algorithm[Any],
    schedule: Schedule,
    *,
    fuse: Fuse | None = None,
    resume: bool = False,
) -> Told:
    """One life of a coordinator, from the beginning or from where the last one was cut off.

    Raises: Crash: The fuse went.
    """
    fuse = fuse or Fuse()
    line = Line(sites, algorithm, fuse)
    told = Told(Driver(cast("Exchange", line), algorithm, schedule, JOB, WEIGHTS, PLAN), line)

    told.driver.on_lost = lambda *lost: told.lost.append(lost)

    def on_round(record: RoundRecord, _state: Any) -> None:
        with (folder / LINES).open("a") as file:
            file.write(f"{record.round} ")
            file.flush()
            fuse.step()
            file.write("done\n")
        told.records.append(record)
        fuse.step()

    with journal_in(folder, resume=resume) as journal:
        start = algorithm.init(START)
        resumed = journal.resumed(start) if resume else None
        told.state = told.driver.run(start, on_round, journal=Fused(journal, fuse), resumed=resumed)
    return told


def bits(state: Any) -> dict[str, bytes]:
    """Every field of a state to the last bit."""
    return {name: np.asarray(value).tobytes() for name, value in vars(state).items()}


def plain(error: FederationError) -> None:
    """What a person sees: one or two short lines."""
    assert 1 <= len(error.lines()) <= 2
    assert all(line.isprintable() and len(line) < 400 for line in error.lines())


def read(folder: Path) -> Resumed:
    with journal_in(folder, resume=True) as journal:
        return journal.resumed(FedAvg().init(START))


def record_of(number: int) -> RoundRecord:
    return RoundRecord(number, 1, SITES[:1], {}, skipped=False, seconds=0.0)
