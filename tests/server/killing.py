"""Kills coordinators at random moments, resumes them, and compares their models with that of one that was left alone.

``python -m tests.server.killing FOLDER RUNS SEED [masked] [forgetful]`` prints one JSON object. Each run is a process
of its own, with the sites in it as Flower runs them: real training, Scaffold, and FSA1 if ``masked``. A site's memory
is a file, since at real sites it would outlive the coordinator. Every second run is killed twice. ``forgetful`` resumes
without the algorithm's state: the control that shows that this would be seen.
"""

import hashlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, NoReturn

import cbor2
import torch
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from clients.app import Member, build
from clients.secure import SecureSite
from clients.work import Site, contribute
from privacy.audit import transcript
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.secagg.context import Roster
from privacy.store.admissions import Admissions
from privacy.store.run_folder import RunFolder
from server.checkpoints import Checkpoints, Surroundings
from server.exchange import Exchange, Timing
from server.roster import call
from server.rounds import FLOOR, Driver, Resumed, RoundRecord, Schedule
from server.secure import SecureCollector
from simulations.local_grid import LocalGrid, SiteApp
from strategies.algorithm import Algorithm
from strategies.regions import Plan
from strategies.scaffold import Scaffold
from strategies.task import SiteId
from tests.clients.example import MLP, records, site
from tests.privacy.secagg.parties import identity
from tests.server.resuming import bits

SITES = tuple(map(SiteId, "abcd"))
ROSTER = Roster(1, {each: identity(each).public_key for each in SITES})
JOB = hashlib.sha256(b"the job of this test").hexdigest()
SCHEDULE = Schedule(4, 8)
TIMING = Timing(deadline=60.0)
LINES, MODEL, BEGUN = "lines.jsonl", "model", "begun"


@dataclass
class Lasting:
    """A site's app whose memory is in a file before its answer leaves."""

    app: ClientApp
    path: Path

    def __call__(self, message: Message, context: Context) -> Message:
        if self.path.exists() and not context.state:
            for name, record in cbor2.loads(self.path.read_bytes()).items():
                context.state[name] = ConfigRecord(record)
        reply = self.app(message, context)
        beside = self.path.with_suffix(".part")
        beside.write_bytes(cbor2.dumps({name: dict(record) for name, record in context.state.items()}))
        beside.replace(self.path)
        return reply


def site_of(place: int) -> Site:
    data = records(8 + 4 * place, seed=place)
    return site(name=SITES[place], algorithm=Scaffold(), data=data, model=MLP, batch=4)


def app_of(one: Site, plan: Plan, folder: Path, *, masked: bool) -> SiteApp:
    secure = None
    if masked:
        admissions = Admissions(folder / f"{one.id}.db")
        secure = SecureSite(one.id, identity(one.id), ROSTER, admissions, time.monotonic)
    member = Member(one, None, JOB, plan, secure, admit=lambda _invitation: None)
    return Lasting(build(lambda _context, _invitation: member), folder / f"{one.id}.memory")


def drive(folder: Path, *, masked: bool, resume: bool, forgetful: bool, say: int) -> None:
    """One life of a coordinator, and of the sites' processes."""
    algorithm: Algorithm[Any] = Scaffold()
    sites = [site_of(place) for place in range(len(SITES))]
    plan = Plan(sites[0].part.whole, {one.id: one.part for one in sites})
    apps = {place: app_of(one, plan, folder, masked=masked) for place, one in enumerate(sites, 1)}
    around, home = Surroundings(folder, (LINES, TRANSCRIPT_FILE)), RunFolder(folder)
    lent = Checkpoints.open(around, job=JOB) if resume else Checkpoints.create(around, job=JOB, run="run")
    start = algorithm.init(sites[0].initial)
    with lent as journal:
        resumed = journal.resumed(start) if resume else None
        if resumed is None or resumed.standing is None:
            home.append(TRANSCRIPT_FILE, transcript.header(ROSTER))
        if resumed is not None:
            with (folder / BEGUN).open("a") as file:
                file.write(f"{resumed.begun}\n")
        if forgetful and resumed is not None and resumed.standing is not None:
            resumed = replace(resumed, standing=replace(resumed.standing, state=start))
        os.write(say, b"1")
        grid = LocalGrid(apps, run_id=1, node_configs={place: {} for place in apps})
        roster = call(grid, SITES, b"come", timing=TIMING, clock=time.monotonic, sleep=time.sleep, floor=FLOOR)
        exchange = Exchange(grid, roster.nodes, TIMING, time.monotonic, time.sleep)
        weights = {each: float(n) for each, n in roster.n_records.items()}
        driver = Driver(exchange, algorithm, SCHEDULE, JOB, weights, plan)
        if masked:
            driver.collect = SecureCollector(
                exchange, algorithm, plan, ROSTER, weights, JOB, "town", journal.run,
                on_attempt=lambda record: home.append(TRANSCRIPT_FILE, transcript.line(record)),
            ).collect  # fmt: skip
        state = run(driver, start, home, journal, resumed, say)
    home.write(MODEL, b"".join(bits(state).values()))


def run(driver: Driver, start: Any, home: RunFolder, journal: Checkpoints, resumed: Resumed | None, say: int) -> Any:
    def on_round(record: RoundRecord, _state: Any) -> None:
        home.append(LINES, {"round": record.round, "answered": len(record.answered)})
        os.write(say, b"1")

    state = driver.run(start, on_round, journal=journal, resumed=resumed)
    if driver.stopped:
        raise RuntimeError(driver.stopped)
    return state


class Moment(NamedTuple):
    """When to kill: so long after so many rounds."""

    rounds: int
    seconds: float


def started(folder: Path, **settings: bool) -> tuple[int, int]:
    """Forks a coordinator; the pipe says when it begins, and after every round."""
    begun, say = os.pipe()
    child = os.fork()
    if child == 0:
        child_main(folder, say, settings)
    os.close(say)
    return child, begun


def child_main(folder: Path, say: int, settings: dict[str, bool]) -> NoReturn:
    try:
        drive(folder, say=say, **settings)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the parent says it
        (folder / "error").write_text(repr(error))
    finally:
        os._exit(1)  # an error, and never the parent's code


def lived(folder: Path, moment: Moment | None, **settings: bool) -> float | None:
    """Returns how many seconds a coordinator lived once it had begun; ``None`` if it was killed at that moment."""
    child, begun = started(folder, **settings)
    os.read(begun, 1)
    began = time.monotonic()
    if moment is not None:
        for _ in range(moment.rounds):
            os.read(begun, 1)  # at once if it has ended
        time.sleep(moment.seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(begun)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError((folder / "error").read_text())
    return None if os.WIFSIGNALED(status) else time.monotonic() - began


def new_folder(parent: Path, name: str) -> Path:
    return RunFolder.create(parent / name).path


def whole(folder: Path, *, masked: bool) -> list[Any]:
    """Returns what must look as if nothing had happened: the model, a line a round, the attempts of each in order."""
    rows = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
    attempts = [(each.round, each.attempt) for each in transcript.decode((folder / TRANSCRIPT_FILE).read_bytes())[1]]
    in_order = attempts == sorted(set(attempts)) and len({number for number, _ in attempts}) == masked * len(rows)
    return [rows, in_order, (folder / MODEL).read_bytes().hex()]


def killed(parent: Path, kills: int, moments: Iterator[Moment], **settings: bool) -> Path:
    """Returns the folder of a run that was killed so often; whoever was done before that is no such run."""
    for number in itertools.count():
        folder = new_folder(parent, str(number))
        if all(lived(folder, next(moments), resume=life > 0, **settings) is None for life in range(kills)):
            return folder
    raise AssertionError


def warm_up() -> None:
    """Loads what torch loads at the first step, so that not every child does."""
    torch.set_num_threads(1)  # no threads before a fork
    one = site_of(0)
    contribute(one, Scaffold().broadcast(Scaffold().init(one.initial)), round_number=1)


def main(parent: Path, runs: int, seed: int, *, masked: bool, forgetful: bool) -> dict[str, int]:
    settings = {"masked": masked, "forgetful": forgetful}
    warm_up()
    alone = new_folder(parent, "alone")
    seconds = lived(alone, None, resume=False, **settings) or 0.0
    drawn, expected = Random(seed), whole(alone, masked=masked)  # noqa: S311 - when to kill, not a secret
    rounds = SCHEDULE.rounds
    moments = (Moment(drawn.randrange(rounds), drawn.uniform(0, seconds / rounds)) for _ in itertools.count())
    told = {"kills": 0, "half-done": 0, "same": 0}
    for number in range(runs):
        kills = 1 + number % 2
        folder = killed(parent / f"run {number}", kills, moments, **settings)
        lived(folder, None, resume=True, **settings)
        told["kills"] += kills
        told["half-done"] += any(attempts != "0" for attempts in (folder / BEGUN).read_text().split())
        told["same"] += whole(folder, masked=masked) == expected
    return told


if __name__ == "__main__":
    words = sys.argv[4:]
    modes = {mode: mode in words for mode in ("masked", "forgetful")}
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), **modes)))
