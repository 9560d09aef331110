"""Schedules of answers that come in time, late, twice, broken or never; nobody waits for a real second."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.audit.egress import Sent
from server.exchange import Answers, Exchange, Timing
from strategies.messages import RECORD, TRAIN
from strategies.task import SiteId
from tests.server.scripted import Delivery, FakeClock, ScriptedGrid, body_of, fails, gone, identify, says

TIMING = Timing(deadline=10.0, first_poll=0.5, longest_poll=4.0, patience=2)
A, B, C, D = SITES = tuple(map(SiteId, "abcd"))


@dataclass(frozen=True)
class Plan:
    """What a site does about one question."""

    kind: Literal["answers", "twice", "fails", "gone", "garbled", "silent"]
    delay: float = 0.0


@dataclass
class Conversation:
    """An exchange whose sites follow a schedule: one row a question, one plan a site."""

    schedule: Sequence[Sequence[Plan]]
    clock: FakeClock = field(default_factory=FakeClock)
    asked: int = 0

    def __post_init__(self) -> None:
        self.sites = SITES[: len(self.schedule[0])]
        self.grid = ScriptedGrid(self.clock, self.reply)
        nodes = {site: 10 * place for place, site in enumerate(self.sites, start=1)}
        self.exchange = Exchange(self.grid, nodes, TIMING, self.clock, self.clock.sleep)

    def reply(self, question: Message) -> Sequence[Delivery]:
        plan = self.schedule[self.asked][question.metadata.dst_node_id // 10 - 1]
        answer = says(question, b"re: " + body_of(question))
        match plan.kind:
            case "answers":
                return [Delivery(plan.delay, answer)]
            case "twice":
                again = says(question, b"again: " + body_of(question))
                return [Delivery(plan.delay, answer), Delivery(plan.delay + 3.0, again, unasked=True)]
            case "gone":
                return [Delivery(plan.delay, gone(question))]
            case "fails":
                return [Delivery(plan.delay, fails(question, "refused"))]
            case "garbled":
                return [Delivery(plan.delay, Message(RecordDict({"junk": ConfigRecord()}), reply_to=question))]
            case "silent":
                return []

    def ask(self) -> Answers:
        questions = {site: question_of(site, self.asked) for site in self.sites}
        answers = self.exchange.ask(TRAIN, questions, group=str(self.asked))
        self.asked += 1
        return answers


def question_of(site: SiteId, number: int) -> bytes:
    return f"{site}{number}".encode()


def conversation(*rows: str | Sequence[Plan]) -> Conversation:
    """A row as letters, one a site: ``+`` answers at once, ``.`` never does."""
    written = {"+": Plan("answers"), ".": Plan("silent")}
    return Conversation([[written[one] if isinstance(one, str) else one for one in row] for row in rows])


plans = st.builds(
    Plan,
    st.sampled_from(["answers", "twice", "fails", "gone", "garbled", "silent"]),
    st.floats(0.0, 35.0) | st.sampled_from([0.0, 10.0, 10.5]),
)
schedules = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(plans, min_size=n, max_size=n), min_size=1, max_size=6)
)


@settings(deadline=None, max_examples=300)
@given(schedules)
def test_every_schedule_ends_in_time_with_every_site_accounted_for(schedule: list[list[Plan]]) -> None:
    talk = Conversation(schedule)
    silent = Counter[SiteId]()
    for number, row in enumerate(schedule):
        began, n_pulled = talk.clock.now, len(talk.grid.pulled)
        waited_for = {site for site in talk.sites if silent[site] < TIMING.patience}
        answers = talk.ask()
        took = talk.clock.now - began
        revived = note_who_was_heard(talk, n_pulled, number, silent)

        assert took <= TIMING.deadline + TIMING.longest_poll
        assert set(answers.payloads) | set(answers.missing) == set(talk.sites)
        assert not set(answers.payloads) & set(answers.missing)
        assert list(answers.payloads) == [site for site in talk.sites if site in answers.payloads]
        assert list(answers.missing) == [site for site in talk.sites if site in answers.missing]
        for site, data in answers.payloads.items():
            assert data == b"re: " + question_of(site, number)
        for site, plan in zip(talk.sites, row, strict=True):
            if site in waited_for and plan.kind in {"answers", "twice"} and plan.delay <= TIMING.deadline:
                assert site in answers.payloads
        if waited_for & set(answers.payloads) and not revived:
            longest = max(
                (needs(plan) for site, plan in zip(talk.sites, row, strict=True) if site in waited_for), default=0
            )
            assert took <= longest + TIMING.longest_poll


def needs(plan: Plan) -> float:
    """Seconds that a site which is waited for may cost the others."""
    return TIMING.deadline if plan.kind == "silent" else min(plan.delay, TIMING.deadline)


def is_gone(reply: Message) -> bool:
    """Whether Flower wrote this reply for a node that is no longer there."""
    return reply.has_error() and reply.error.code == 5


def note_who_was_heard(talk: Conversation, n_before: int, number: int, silent: Counter[SiteId]) -> bool:
    """Brings the count of silent questions up to date; returns whether a late answer was among the new replies."""
    seen = {reply.metadata.reply_to_message_id for reply in talk.grid.pulled[:n_before]}
    heard, settled, late = set(), set(), False
    for reply in talk.grid.pulled[n_before:]:
        site = talk.sites[reply.metadata.src_node_id // 10 - 1]
        lives = not is_gone(reply)
        if reply.metadata.group_id == str(number):
            settled.add(site)
            if lives:
                heard.add(site)
        elif lives and reply.metadata.reply_to_message_id not in seen:
            silent[site] = 0
            late = True
        seen.add(reply.metadata.reply_to_message_id)
    for site in talk.sites:
        if site in heard:
            silent[site] = 0
        elif site not in settled:
            silent[site] += 1
    return late


@settings(deadline=None, max_examples=200)
@given(schedules)
def test_egress_counts_every_answer_once_late_ones_too(schedule: list[list[Plan]]) -> None:
    talk = Conversation(schedule)
    for _ in schedule:
        talk.ask()
    first = {reply.metadata.reply_to_message_id: reply for reply in reversed(talk.grid.pulled)}
    for place, site in enumerate(talk.sites, start=1):
        replies = [reply for reply in first.values() if reply.metadata.src_node_id == 10 * place and not is_gone(reply)]
        bodies = [body_of(reply) for reply in replies if reply.has_content() and RECORD in reply.content]
        account = talk.exchange.egress.get(site)
        assert (account.messages, account.bytes) == (len(replies), sum(map(len, bodies))) if account else not replies


def test_a_question_goes_to_its_own_node_and_outlives_the_deadline_only_a_little() -> None:
    talk = conversation("++")
    talk.ask()
    assert [body_of(message) for message in talk.grid.asked] == [b"a0", b"b0"]
    metadata = [message.metadata for message in talk.grid.asked]
    assert [(one.dst_node_id, one.message_type, one.group_id) for one in metadata] == [
        (10, TRAIN, "0"),
        (20, TRAIN, "0"),
    ]
    assert all(TIMING.deadline < one.ttl <= TIMING.deadline + 60 for one in metadata)


def test_polls_are_short_at_first_and_never_longer_than_the_longest() -> None:
    talk = conversation([Plan("silent")])
    talk.ask()
    assert talk.clock.naps == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_answers_that_are_all_there_cost_no_sleep() -> None:
    talk = conversation("++++")
    talk.ask()
    assert talk.clock.naps == []


def test_a_late_answer_never_counts_for_a_later_question() -> None:
    talk = conversation([Plan("answers", 12.0), Plan("answers")], [Plan("silent"), Plan("answers", 5.0)])
    assert talk.ask().missing == {A: "no answer within 10 s"}
    answers = talk.ask()
    assert answers.payloads == {B: b"re: b1"}
    assert answers.missing == {A: "no answer within 10 s"}
    assert (talk.exchange.egress[A].messages, talk.exchange.egress[A].bytes) == (1, len(b"re: a0"))


def test_a_silent_site_is_soon_not_waited_for_but_still_asked() -> None:
    talk = conversation(".+", ".+", ".+", ".+")
    reasons, took = [], []
    for _ in range(4):
        before = talk.clock.now
        reasons.append(talk.ask().missing[A])
        took.append(talk.clock.now - before)
    assert reasons[:2] == ["no answer within 10 s"] * 2
    assert all("waited for" in reason for reason in reasons[2:])
    assert [seconds >= 10.0 for seconds in took] == [True, True, False, False]
    assert sum(message.metadata.dst_node_id == 10 for message in talk.grid.asked) == 4


def test_a_site_given_up_on_may_answer_while_the_others_are_waited_for() -> None:
    talk = conversation(".+", ".+", [Plan("answers", 1.0), Plan("answers", 3.0)])
    for _ in range(2):
        talk.ask()
    assert set(talk.ask().payloads) == {A, B}


@pytest.mark.parametrize(
    ("late", "waits"), [(Plan("answers", 24.0), True), (Plan("fails", 24.0), True), (Plan("gone", 24.0), False)]
)
def test_a_late_word_of_a_site_revives_it_and_flowers_word_for_it_does_not(late: Plan, *, waits: bool) -> None:
    # The reply to the first question comes in with the third (at 24 s); the fourth is answered after 9 s, if at all.
    talk = conversation(
        [late, Plan("answers")], ".+", [Plan("silent"), Plan("answers", 9.0)], [Plan("answers", 9.0), Plan("answers")]
    )
    for _ in range(3):
        assert A in talk.ask().missing
    assert len(talk.grid.pulled) == 4
    assert (A in talk.ask().payloads) == waits


def test_a_site_that_answers_again_gets_its_patience_back() -> None:
    talk = conversation(".", "+", ".", [Plan("answers", 9.0)])
    assert [A in talk.ask().payloads for _ in range(4)] == [False, True, False, True]


def test_replies_to_nothing_that_was_asked_are_ignored() -> None:
    clock = FakeClock()

    def reply(question: Message) -> Sequence[Delivery]:
        other = Message(RecordDict(), dst_node_id=10, message_type=TRAIN)
        identify(other, "never asked")
        return [Delivery(0.0, says(other, b"stray"), unasked=True), Delivery(1.0, says(question, b"answer"))]

    exchange = Exchange(ScriptedGrid(clock, reply), {A: 10}, TIMING, clock, clock.sleep)
    assert exchange.ask(TRAIN, {A: b"?"}, group="1").payloads == {A: b"answer"}
    assert (exchange.egress[A].messages, exchange.egress[A].bytes) == (1, 6)


def contents() -> dict[str, RecordDict]:
    return {
        "empty": RecordDict(),
        "other name": RecordDict({"model": ConfigRecord({RECORD: b"x"})}),
        "other key": RecordDict({RECORD: ConfigRecord({"data": b"x"})}),
        "text": RecordDict({RECORD: ConfigRecord({RECORD: "x"})}),
        "list of bytes": RecordDict({RECORD: ConfigRecord({RECORD: [b"x"]})}),
        "arrays": RecordDict({RECORD: ArrayRecord({RECORD: Array(np.zeros(1))})}),
    }


@pytest.mark.parametrize("name", contents())
def test_an_answer_without_a_message_is_missing_with_a_plain_reason(name: str) -> None:
    clock = FakeClock()
    grid = ScriptedGrid(clock, lambda question: [Delivery(0.0, Message(contents()[name], reply_to=question))])
    exchange = Exchange(grid, {A: 10}, TIMING, clock, clock.sleep)
    assert exchange.ask(TRAIN, {A: b"?"}, group="1") == Answers({}, {A: "the answer carries no message"})


def reason_given(text: str | None) -> str:
    clock = FakeClock()
    grid = ScriptedGrid(clock, lambda question: [Delivery(0.0, fails(question, text))])
    return Exchange(grid, {A: 10}, TIMING, clock, clock.sleep).ask(TRAIN, {A: b"?"}, group="1").missing[A]


@settings(deadline=None)
@given(st.none() | st.text(max_size=400))
def test_a_peers_reason_is_one_short_printable_line(text: str | None) -> None:
    reason = reason_given(text)
    assert 0 < len(reason) <= 200
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no budget left", "no budget left"),
        ("one\ntwo\r\n\tthree", "one two three"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("\u202egnitset", "gnitset"),
        ("x" * 1000, "x" * 200),
        ("\n \x00", "the site reported an error"),
        (None, "the site reported an error"),
    ],
)
def test_a_peers_reason_keeps_its_words(text: str | None, line: str) -> None:
    assert reason_given(text) == line


@settings(deadline=None, max_examples=100)
@given(schedules)
def test_the_manifest_lists_every_payload_once_under_the_question_that_it_answers(
    schedule: list[list[Plan]],
) -> None:
    talk = Conversation(schedule)
    told: list[tuple[SiteId, Sent]] = []
    talk.exchange.received = lambda site, sent: told.append((site, sent))
    for _ in schedule:
        talk.ask()
    seen, expected = set[str](), dict[SiteId, list[Sent]]()
    for reply in talk.grid.pulled:
        asked = reply.metadata.reply_to_message_id
        if asked not in seen and reply.has_content() and RECORD in reply.content:
            site = talk.sites[reply.metadata.src_node_id // 10 - 1]
            expected.setdefault(site, []).append(Sent.of(TRAIN, reply.metadata.group_id, body_of(reply)))
        seen.add(asked)
    assert talk.exchange.manifest == expected
    assert {site: [sent for whose, sent in told if whose == site] for site, _ in told} == expected
    for site, sent in talk.exchange.manifest.items():
        assert sum(one.size for one in sent) == talk.exchange.egress[site].bytes
