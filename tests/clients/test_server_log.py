"""What a site has seen of the server's log: never less, never another history, also after a restart; and at START."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from clients.server_log import ServerLog
from privacy.audit.checkpoint import NoteKey
from privacy.errors import FederationError, VerificationError
from privacy.store.log import Log, Record
from privacy.store.site_folder import WITNESS_FILE
from strategies.messages import MASKED, SecureTask
from tests.clients.invited import Parties
from tests.clients.node import body_of, refusal
from tests.clients.test_real_site import SITE, begun
from tests.privacy.charter import example

HUB = example.key("identity of hub")
KEY = NoteKey("north/server/hub", HUB.public_key)


def made(path: Path, entries: int, what: str = "round", *, key: NoteKey = KEY) -> Log:
    log = Log.create(path, key.name, HUB)
    grown(log, entries, what)
    return log


def grown(log: Log, entries: int, what: str = "round") -> Log:
    log.append([Record(what, {"number": number}) for number in range(entries)], HUB)
    return log


@pytest.fixture
def seen(tmp_path: Path) -> tuple[ServerLog, Log]:
    """A site that has seen five entries of a log."""
    log, site = made(tmp_path / "log.db", 4), ServerLog(tmp_path, KEY)
    assert (site.seen, site.note) == (0, b"")
    site.accept((log.growth(0),))
    return site, log


def test_what_was_seen_is_on_disk(seen: tuple[ServerLog, Log], tmp_path: Path) -> None:
    site, log = seen
    assert (site.seen, site.note) == (5, log.note())
    again = ServerLog(tmp_path, KEY)
    assert again == site
    assert (again.seen, again.note) == (5, log.note())
    grown(log, 2)
    again.accept((log.growth(5),))
    assert site.seen == 7


def test_of_several_growths_the_one_since_what_was_seen_counts(seen: tuple[ServerLog, Log]) -> None:
    site, log = seen
    grown(log, 3)
    site.accept((log.growth(1), log.growth(0), log.growth(5)))
    assert site.seen == 8


def test_the_same_state_again_is_no_trouble(seen: tuple[ServerLog, Log]) -> None:
    site, log = seen
    site.accept((log.growth(5),))
    assert site.seen == 5


@pytest.mark.parametrize("shown", ["nothing", "another size", "rollback", "fork", "longer fork", "stranger", "rubbish"])
def test_everything_else_is_refused_and_what_was_seen_stays(
    shown: str, seen: tuple[ServerLog, Log], tmp_path: Path
) -> None:
    site, log = seen
    note = site.note
    short, fork = made(tmp_path / "short.db", 2), made(tmp_path / "fork.db", 4, "other")
    long_fork = made(tmp_path / "long.db", 9, "other")
    stranger = Log.create(tmp_path / "stranger.db", KEY.name, example.key("a stranger"))
    growths = {
        "nothing": (),
        "another size": (grown(log, 2).growth(3),),
        "rollback": (short.growth(0), short.growth(3)),
        "fork": (fork.growth(5),),
        "longer fork": (long_fork.growth(5),),
        "stranger": (stranger.growth(0),),
        "rubbish": (b"", b"old 5\n\n", b"\xff" * 40),
    }[shown]
    with pytest.raises(VerificationError):
        site.accept(growths)
    assert site.note == note
    site.accept((grown(log, 1).growth(5),))


def test_a_file_that_is_not_what_was_written_is_not_trusted(seen: tuple[ServerLog, Log], tmp_path: Path) -> None:
    site, log = seen
    path = tmp_path / WITNESS_FILE
    path.write_bytes(path.read_bytes().replace(b"\n5\n", b"\n4\n"))
    with pytest.raises(FederationError):
        _ = site.seen
    with pytest.raises(FederationError):
        site.accept((log.growth(5),))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_no_text_of_a_stranger_is_taken_for_growth(seen: tuple[ServerLog, Log], data: some.DataObject) -> None:
    site, log = seen
    true = log.growth(0)
    place = data.draw(some.integers(0, len(true) - 1))
    flipped = bytearray(true)
    flipped[place] ^= data.draw(some.integers(1, 255))
    texts = [bytes(flipped), true[:place], true + b"x", b"", b"old 5"]
    growths = data.draw(some.lists(some.sampled_from(texts), max_size=8))
    with pytest.raises(VerificationError):
        site.accept(tuple(growths))
    assert site.seen == 5


@pytest.mark.parametrize("shown", ["nothing", "fork", "an answer to somebody else"])
def test_a_start_that_does_not_show_how_the_log_grew_is_refused_on_record(
    shown: str, parties: Parties, tmp_path: Path
) -> None:
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    note = parties.server_log(SITE).note
    parties.coordinator.log("round", {"number": 1})
    start = SecureTask.decode(parties.start(SITE, job, round_number=2))
    hub = parties.federation.hub
    fork = Log.create(tmp_path / "fork.db", hub.origin, hub.identity)
    fork.append([Record("other", {})] * 9, hub.identity)
    size = parties.server_log(SITE).seen
    growth = {"nothing": (), "fork": (fork.growth(size),), "an answer to somebody else": (hub.log().growth(0),)}[shown]
    refusal(parties.ask(SITE, MASKED, SecureTask(start.task, start.start, growth).encode()))
    assert [(one["allowed"], one["by"]) for one in parties.decisions(SITE)][-1] == (False, "the server's log")
    assert parties.server_log(SITE).note == note
    assert parties.debits(SITE) == 0
    body_of(parties.ask(SITE, MASKED, start.encode()))
