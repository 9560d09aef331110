"""The roll call: late, silent, lying and unknown nodes, on a clock that nobody waits for."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from flwr.app import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.audit import canonical
from privacy.errors import ConfigError, QuorumError
from privacy.store.run_folder import RunFolder
from server.exchange import Timing
from server.roster import ROLL_FILE, Roster, call, keep, kept
from strategies.messages import HELLO, Hello
from strategies.task import SiteId
from tests.server.scripted import Delivery, FakeClock, ScriptedGrid, fails, says

TIMING = Timing(deadline=10.0, first_poll=0.5, longest_poll=4.0)
SITES = (SiteId("cleveland"), SiteId("hungary"), SiteId("switzerland"), SiteId("va"))
HELLO_FIELDS = {"hello": 1, "site": "va", "n_records": 3, "seen": 0, "conformance": b""}
Voice = Callable[[Message], Iterable[Delivery]]


def names(site: str, n_records: int = 100, *, delay: float = 0.0, conformance: bytes = b"") -> Voice:
    hello = Hello(SiteId(site), n_records, 0, conformance).encode()
    return lambda question: [Delivery(delay, says(question, hello))]


def stated(*, passed: bool = True, fired: bool = True) -> bytes:
    """What a site says of one release path, in little."""
    test = {"test": "A4", "name": "largest influence", "n": 3, "statistic": "1", "p_value": None, "threshold": "1"}
    control = {"defect": "clipping off", "fired": fired}
    entry = {"placement": "local", "path": "integer", "tests": [{**test, "passed": passed}], "controls": [control]}
    return canonical.dumps([entry])


def garbage(data: bytes) -> Voice:
    return lambda question: [Delivery(0.0, says(question, data))]


def silence(_question: Message) -> list[Delivery]:
    return []


class Call:
    """A roll call over nodes that each have a voice, some of which connect only after a while."""

    def __init__(self, voices: Mapping[int, Voice], *, connects_at: Mapping[int, float] | None = None) -> None:
        self.clock = FakeClock(now=0.0)
        late = connects_at or {}
        self.grid = ScriptedGrid(
            self.clock,
            lambda question: list(voices[question.metadata.dst_node_id](question)),
            lambda: [node for node in voices if late.get(node, 0.0) <= self.clock.now],
        )

    def roster(self, floor: int = 3) -> Roster:
        clock = self.clock
        return call(self.grid, SITES, b"invitation", timing=TIMING, clock=clock, sleep=clock.sleep, floor=floor)


def test_nodes_are_mapped_to_sites_in_site_order() -> None:
    roll = Call({7: names("va", 4), 5: names("hungary", 2), 9: names("cleveland", 1), 3: names("switzerland", 3)})
    roster = roll.roster()
    assert list(roster.nodes.items()) == [(SITES[0], 9), (SITES[1], 5), (SITES[2], 3), (SITES[3], 7)]
    assert list(roster.n_records.items()) == list(zip(SITES, [1, 2, 3, 4], strict=True))
    assert roster.absent == {}
    assert roll.clock.naps == []
    assert {message.metadata.message_type for message in roll.grid.asked} == {HELLO}


def test_nodes_that_connect_late_are_waited_for() -> None:
    voices = {place: names(site) for place, site in enumerate(SITES)}
    roll = Call(voices, connects_at={1: 3.0, 3: 8.0})
    assert tuple(roll.roster().nodes) == SITES


def test_a_run_begins_without_a_node_that_never_connects() -> None:
    roll = Call({place: names(site) for place, site in enumerate(SITES)}, connects_at={3: 1e9})
    roster = roll.roster()
    assert tuple(roster.nodes) == SITES[:3]
    assert roster.absent == {SITES[3]: "it did not answer the roll call"}
    assert roll.clock.now <= TIMING.deadline + TIMING.longest_poll


@pytest.mark.parametrize(
    ("voice", "reason"),
    [
        (silence, "no answer within 10 s"),
        (names("va", delay=20.0), "no answer within 10 s"),
        (garbage(b"\xff\x00"), "not CBOR"),
        (
            garbage(cbor2.dumps({**HELLO_FIELDS, "hello": 2}, canonical=True)),
            "not a version 1 'hello'",
        ),
        (
            garbage(cbor2.dumps({**HELLO_FIELDS, "n_records": 2**60}, canonical=True)),
            "out of range",
        ),
        (lambda question: [Delivery(0.0, fails(question, "no\ndata"))], "no data"),
        (names("somewhere else"), "did not answer"),
        (names("va", conformance=b"{}"), "is no list of them"),
        (names("va", conformance=b"[{}]"), "not a valid privacy-audit-v1"),
        (names("va", conformance=stated(passed=False)), "does not conform"),
        (names("va", conformance=stated(fired=False)), "does not conform"),
    ],
)
def test_whoever_does_not_say_who_it_is_is_absent_with_a_plain_reason(voice: Voice, reason: str) -> None:
    roster = Call({1: names("cleveland"), 2: names("hungary"), 3: names("switzerland"), 4: voice}).roster()
    assert tuple(roster.nodes) == SITES[:3]
    assert set(roster.absent) == {SITES[3]}
    assert reason in roster.absent[SITES[3]]


def test_what_sites_say_of_their_release_paths_is_kept() -> None:
    voices = {place: names(site, conformance=stated()) for place, site in enumerate(SITES)}
    assert Call(voices).roster().conformance == dict.fromkeys(SITES, stated())


def test_a_site_without_records_takes_no_part() -> None:
    roster = Call({place: names(site, n_records=place) for place, site in enumerate(SITES)}).roster()
    assert tuple(roster.n_records) == SITES[1:]
    assert set(roster.absent) == {SITES[0]}


def test_a_node_that_names_an_unknown_site_is_ignored() -> None:
    voices = {0: names("atlantis"), **{place: names(site) for place, site in enumerate(SITES, start=1)}}
    roster = Call(voices).roster()
    assert tuple(roster.nodes) == tuple(roster.n_records) == SITES
    assert roster.absent == {}


def test_two_nodes_with_one_name_are_refused() -> None:
    voices = {place: names(site) for place, site in enumerate([*SITES, "va"])}
    with pytest.raises(QuorumError, match="two nodes say that they are va"):
        Call(voices).roster()


@pytest.mark.parametrize(("n_present", "floor"), [(2, 3), (3, 4), (0, 3)])
def test_below_the_floor_there_is_no_run(n_present: int, floor: int) -> None:
    roll = Call({place: names(site) for place, site in enumerate(SITES[:n_present])})
    with pytest.raises(QuorumError, match=f"{n_present} of 4 sites answered the roll call, at least {floor}") as caught:
        roll.roster(floor)
    assert "\n" not in caught.value.hint


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.floats(0.0, 40.0)), max_size=5))
def test_the_wait_is_bounded_whatever_the_nodes_do(times: list[tuple[float, float]]) -> None:
    voices = {place: names(f"node{place}", delay=answers) for place, (_, answers) in enumerate(times)}
    roll = Call(voices, connects_at={place: connects for place, (connects, _) in enumerate(times)})
    with pytest.raises(QuorumError):
        roll.roster()
    assert roll.clock.now <= 2 * (TIMING.deadline + TIMING.longest_poll)


def test_where_nodes_follow_from_keys_nobody_answers_in_anothers_name() -> None:
    roll = Call({7: names("va", 4), 5: names("cleveland", 2), 9: names("cleveland", 1), 3: names("switzerland", 3)})
    clock, nodes = roll.clock, {SITES[0]: 9, SITES[1]: 5, SITES[2]: 3, SITES[3]: 7}
    roster = call(roll.grid, SITES, b"", timing=TIMING, clock=clock, sleep=clock.sleep, floor=3, expected=nodes)
    assert roster.nodes == {SITES[0]: 9, SITES[2]: 3, SITES[3]: 7}
    assert "another node says that it is cleveland" in roster.absent[SITES[1]]


class TestKept:
    """What sites said is read again when a run goes on: from a file, so from a stranger."""

    def roster(self, *sites: SiteId, n_records: int = 3) -> Roster:
        return Roster({}, dict.fromkeys(sites, n_records), {}, conformance=dict.fromkeys(sites, stated()))

    def test_it_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        assert kept(RunFolder(tmp_path), SITES) == Roster({}, {}, {})
        keep(RunFolder(tmp_path), self.roster(*SITES, n_records=2**53))
        assert kept(RunFolder(tmp_path), SITES) == self.roster(*SITES, n_records=2**53)

    def test_who_is_there_now_is_believed_now(self) -> None:
        earlier, now = self.roster(SITES[3], SITES[0]), replace(self.roster(*SITES[1:]), nodes={SITES[1]: 5})
        found = replace(now, n_records=dict.fromkeys(SITES[1:], 4)).after(earlier, SITES)
        assert list(found.n_records.items()) == list(zip(SITES, (3, 4, 4, 4), strict=True))
        assert (tuple(found.conformance), found.nodes) == (SITES, now.nodes)

    @pytest.mark.parametrize(
        ("hello", "reason"),
        [
            (Hello(SITES[0], 3, 0, stated(passed=False)), "does not conform"),
            (Hello(SITES[0], 3, 0, b"[{}]"), "not a valid privacy-audit-v1"),
            (Hello(SiteId("atlantis"), 3), "atlantis is no site of this run"),
        ],
    )
    def test_what_no_roll_call_accepts_is_refused(self, hello: Hello, reason: str, tmp_path: Path) -> None:
        (tmp_path / ROLL_FILE).write_text(hello.encode().hex() + "\n")
        with pytest.raises(ConfigError, match=f"is damaged: .*{reason}"):
            kept(RunFolder(tmp_path), SITES)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_a_damaged_file_is_a_plain_error_or_says_as_much(self, tmp_path: Path, data: st.DataObject) -> None:
        folder = RunFolder(tmp_path)
        keep(folder, self.roster(*SITES))
        whole = bytearray(folder.read(ROLL_FILE))
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / ROLL_FILE).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        with suppress(ConfigError):
            assert kept(folder, SITES).n_records.keys() <= set(SITES)
