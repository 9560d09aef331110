"""The server's log and its sites: each is told the growth since what it may have seen, and since nothing else."""

from pathlib import Path

import pytest

from clients.server_log import ServerLog
from privacy.audit.checkpoint import NoteKey
from privacy.errors import VerificationError
from privacy.store.log import Log, Record
from server.witnesses import Witnesses
from strategies.messages import RoundTask, SecureTask
from strategies.task import SiteId
from tests.privacy.charter import example

HUB = example.key("identity of hub")
KEY = NoteKey("north/server/hub", HUB.public_key)
ALBA, BRNO = SiteId("alba"), SiteId("brno")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log.create(tmp_path / "log.db", KEY.name, HUB)


def grow(log: Log, entries: int = 1) -> None:
    log.append([Record("round", {"number": number}) for number in range(entries)], HUB)


def site(tmp_path: Path, name: str = "alba") -> ServerLog:
    (tmp_path / name).mkdir(exist_ok=True)
    return ServerLog(tmp_path / name, KEY)


def test_a_site_that_answers_every_start_is_told_one_growth_each_time(log: Log, tmp_path: Path) -> None:
    witnesses, alba = Witnesses(log), site(tmp_path)
    witnesses.saw({ALBA: alba.seen})
    for number in range(12):
        told = witnesses.growth(ALBA)
        assert len(told) == 1
        alba.accept(told)
        assert alba.seen == 1 + number
        witnesses.confirm([ALBA])
        grow(log)


@pytest.mark.parametrize("away", [1, 3, 7, 20])
def test_a_site_that_got_none_of_several_starts_still_follows(away: int, log: Log, tmp_path: Path) -> None:
    witnesses, alba = Witnesses(log), site(tmp_path)
    witnesses.saw({ALBA: 0})
    alba.accept(witnesses.growth(ALBA))
    witnesses.confirm([ALBA])
    for _ in range(away):
        grow(log)
        witnesses.growth(ALBA)
    grow(log)
    told = witnesses.growth(ALBA)
    SecureTask.decode(SecureTask(example_task(), b"", told).encode())
    alba.accept(told)
    assert alba.seen == away + 2


@pytest.mark.parametrize("lost", [1, 3, 6])
def test_a_site_whose_answers_were_lost_still_follows(lost: int, log: Log, tmp_path: Path) -> None:
    witnesses, alba = Witnesses(log), site(tmp_path)
    witnesses.saw({ALBA: 0})
    for _ in range(lost):
        alba.accept(witnesses.growth(ALBA))
        grow(log)
    alba.accept(witnesses.growth(ALBA))
    assert alba.seen == lost + 1


def test_a_site_is_not_told_of_what_another_one_saw(log: Log, tmp_path: Path) -> None:
    witnesses, alba, brno = Witnesses(log), site(tmp_path), site(tmp_path, "brno")
    witnesses.saw({ALBA: 0, BRNO: 0})
    alba.accept(witnesses.growth(ALBA))
    witnesses.confirm([ALBA])
    grow(log, 4)
    told = witnesses.growth(ALBA)
    with pytest.raises(VerificationError, match="does not show"):
        brno.accept(told)
    brno.accept(witnesses.growth(BRNO))
    assert brno.seen == 5


def test_a_site_that_says_it_saw_more_than_there_is_is_told_nothing_and_refuses(log: Log, tmp_path: Path) -> None:
    """The server's log was put back to an old copy: the site is the one that notices."""
    grow(log, 5)
    alba = site(tmp_path)
    alba.accept((log.growth(0),))
    short = Log.create(tmp_path / "old.db", KEY.name, HUB)
    witnesses = Witnesses(short)
    witnesses.saw({ALBA: alba.seen})
    assert witnesses.growth(ALBA) == ()
    with pytest.raises(VerificationError, match="does not show how its log grew since 6"):
        alba.accept(())
    with pytest.raises(VerificationError):
        alba.accept(witnesses.growth(ALBA))
    assert alba.seen == 6


def example_task() -> RoundTask:
    return RoundTask("", 1, 1, (0, 0), {})
