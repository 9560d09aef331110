"""Ensemble answers without noise: exact sums over the one fixed set, nothing else ever opened, plain refusals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clients.channel.message import Message
from clients.channel.session import RemoteRefusalError, Session
from clients.joint.hub import Hub, Mean
from clients.joint.member import ASK, LONGEST_WAIT, QUERIES, SECAGG
from clients.joint.terms import Queries
from privacy.errors import QuorumError
from privacy.secagg import wire
from privacy.secagg.context import Durations, Region, RoundContext, thresholds
from privacy.secagg.suite import RealSuite
from privacy.store.log import Record
from tests.clients.joint.scene import AGENTS, CLASSES, INPUTS, Scene, clinics, queries

ASKER = "alba"
WAIT = Durations(10, 10, 10, 10)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    weights = {**dict.fromkeys(AGENTS, 1), "brno": 2}
    return Scene(clinics(tmp_path_factory.mktemp("joint") / "fed", weights=weights))


def ask(scene: Scene, x: Queries, asker: str = ASKER, deadline: float = 10.0) -> Mean:
    """One batch over fresh sessions."""
    hub = scene.hub(asker)
    try:
        return hub.ask(x, next(scene.numbers), deadline)
    finally:
        hub.close()


@contextmanager
def silent(scene: Scene, site: str, after: int) -> Iterator[None]:
    """Lets an agent fall silent after so many messages."""
    scene.silent[site] = after
    try:
        yield
    finally:
        del scene.silent[site]


def refusal(session: Session) -> str:
    """The plain line with which an agent ends a session, and nothing before it."""
    with pytest.raises(RemoteRefusalError) as refused:
        session.receive(5.0)
    assert "\n" not in refused.value.reason
    return refused.value.reason


def test_the_sum_equals_the_plain_sum_exactly(scene: Scene) -> None:
    x = queries(7)
    mean = ask(scene, x)
    assert mean.agents == 4
    np.testing.assert_array_equal(scene.opened(mean.scores), scene.plain_sum(x))


def test_the_mean_is_that_of_the_models(scene: Scene) -> None:
    x = queries(7, seed=2)
    weights = scene.terms(ASKER).weights
    exact = sum(weights[site] * scene.model(site)(x) for site in AGENTS) / sum(weights.values())
    np.testing.assert_allclose(ask(scene, x).scores, exact, atol=2**-23)


def test_a_batch_after_a_batch_goes_over_the_same_sessions(scene: Scene) -> None:
    hub = scene.hub(ASKER)
    for seed in (1, 1, 2):
        x = queries(3, seed)
        found = hub.ask(x, next(scene.numbers), 10.0)
        np.testing.assert_array_equal(scene.opened(found.scores), scene.plain_sum(x))
    hub.close()


def test_an_asker_that_is_no_agent_gets_the_same_sum_against_fewer_colluders(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    three = ("alba", "brno", "cork")
    weights = dict.fromkeys(three, 1)
    scene = Scene(clinics(tmp_path_factory.mktemp("three") / "fed", agents=list(three), weights=weights))
    assert scene.terms("dole").thresholds.n_c == 0
    assert scene.terms("alba").thresholds.n_c == 1
    x = queries()
    for asker in ("dole", "alba"):
        hub = Hub(scene.terms(asker), scene.open(asker, *three), RealSuite())
        found = hub.ask(x, 1, 10.0)
        np.testing.assert_array_equal(found.scores * hub.terms.grid * 3, scene.plain_sum(x, *three))
        hub.close()


def test_only_masked_vectors_leave_an_agent(scene: Scene) -> None:
    x = queries(40)
    ask(scene, x)
    first = {}
    for site, tap in scene.taps.items():
        assert [message.kind for message in tap.sent] == [SECAGG] * 5
        assert not any(message.tensors for message in tap.sent)
        decoded = [wire.decode(message.body, limit=2**24) for message in tap.sent]
        assert [each.kind for each in decoded] == ["ADV", "SHR", "MSK", "CON", "UNM"]
        masked = next(each for each in decoded if isinstance(each, wire.Msk))
        y = np.frombuffer(masked.y[0], "<u8")
        assert y.shape == (40 * CLASSES,)
        units = scene.terms(ASKER).units(scene.model(site)(x), site, bytes)
        assert not any(unit.tobytes() in message.body for unit in units.astype("<u8") for message in tap.sent)
        # Uniform in 64 bits: a plain entry is below 2^26 each, of 120 masked ones none is but once in 2^31 times.
        assert (y > 2**26).all()
        first[site] = y
    ask(scene, x)  # the same question under fresh keys
    for site, tap in scene.taps.items():
        again = wire.decode(tap.sent[2].body, limit=2**24)
        assert isinstance(again, wire.Msk)
        assert not set(first[site]) & set(np.frombuffer(again.y[0], "<u8"))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_with_one_agent_stalled_nothing_is_ever_opened(scene: Scene, after: int) -> None:
    x = queries(3, seed=3)
    nudged = (x + np.float32(1e-4)).astype(np.float32)
    assert ask(scene, x).agents == 4
    with silent(scene, "cork", after):
        for question in (x, nudged):
            with pytest.raises(QuorumError):
                ask(scene, question, deadline=0.8)
            assert all("UNM" not in sent_kinds(scene, site) for site in AGENTS)
    assert ask(scene, nudged).agents == 4


def test_an_agent_that_stalls_once_its_vector_is_there_is_in_the_sum(scene: Scene) -> None:
    x = queries(3, seed=4)
    with silent(scene, "cork", 3):
        mean = ask(scene, x, deadline=4.0)
    np.testing.assert_array_equal(scene.opened(mean.scores), scene.plain_sum(x))


def sent_kinds(scene: Scene, site: str) -> list[str]:
    """What an agent sent over its last session."""
    return [wire.decode(message.body, limit=2**24).kind for message in scene.taps[site].sent]


class Hostile(Hub):
    """An asker whose process changes what it sends: nothing but the agents' own checks is in its way."""

    tamper: Callable[[wire.Message], wire.Message]

    def _send(self, message: Message, until: float, session: Session) -> bytes:
        changed = self.tamper(wire.decode(message.body, limit=2**24))
        return super()._send(replace(message, body=changed.encode()), until, session)


def without_dole(message: wire.Message) -> wire.Message:
    """Leaves one agent out of whatever set a message names."""
    match message:
        case wire.Keys(keys=keys):
            return replace(message, keys={site: key for site, key in keys.items() if site != "dole"})
        case wire.Fwd(senders=senders):
            return replace(message, senders={site: one for site, one in senders.items() if site != "dole"})
        case wire.Surv(survivors=survivors):
            return replace(message, survivors=tuple(site for site in survivors if site != "dole"))
    return message


@pytest.mark.parametrize(
    ("kind", "last"), [("KEYS", ["ADV"]), ("FWD", ["ADV", "SHR"]), ("SURV", ["ADV", "SHR", "MSK"])]
)
def test_an_asker_that_leaves_an_agent_out_gets_no_further(scene: Scene, kind: str, last: list[str]) -> None:
    hub = Hostile(scene.terms(ASKER), scene.open(ASKER), RealSuite())
    hub.tamper = lambda message: without_dole(message) if message.kind == kind else message
    with pytest.raises(QuorumError):
        hub.ask(queries(), next(scene.numbers), 5.0)
    for site in ("alba", "brno", "cork"):
        assert sent_kinds(scene, site) == last
        assert "not the whole cohort" in hub.reasons[site]


CHANGES: dict[str, Callable[[RoundContext], RoundContext]] = {
    "a smaller set": lambda c: replace(
        c, cohort=AGENTS[:3], regions=(replace(c.regions[0], holders=AGENTS[:3]),), thresholds=thresholds(3, 1)
    ),
    "no fixed set": lambda c: replace(c, fixed_set=False),
    "fewer colluders": lambda c: replace(c, thresholds=thresholds(4, 0)),
    "another run": lambda c: replace(c, run=bytes(16)),
    "a second attempt": lambda c: replace(c, attempt=2),
    "another purpose": lambda c: replace(c, purpose="curiosity"),
    "other queries": lambda c: replace(c, model_root=bytes(32)),
    "another charter": lambda c: replace(c, job=bytes(32)),
    "a smaller ring": lambda c: replace(c, bits=32, fraction_bits=24, regions=(_bounded(c.regions[0]),)),
}


def _bounded(region: Region) -> Region:
    return replace(region, blocks=(replace(region.blocks[0], bound=1),))


def question(context: RoundContext, x: Queries) -> Message:
    """What an asker sends first."""
    return Message(ASK, 1, wire.Start(context.digest, context.encode(), {}).encode(), {QUERIES: x})


@pytest.mark.parametrize("change", CHANGES)
def test_an_asker_that_proposes_anything_else_is_refused_before_a_key_is_drawn(scene: Scene, change: str) -> None:
    x, before = queries(), refusals(scene)
    context = CHANGES[change](scene.terms(ASKER).context(x, next(scene.numbers), WAIT))
    session = scene.open(ASKER, "brno")["brno"]
    session.send(question(context, x))
    assert "another sum than the charter" in refusal(session)
    assert not scene.taps["brno"].sent
    assert refusals(scene) == before + 1


def test_an_asker_cannot_make_an_agent_wait_longer_than_its_own_limit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, waits = queries(), SimpleQueue[float | None]()
    context = scene.terms(ASKER).context(x, next(scene.numbers), Durations(86400, 86400, 86400, 86400))
    session = scene.open(ASKER, "brno")["brno"]
    inner = scene.taps["brno"].inner

    def receive(timeout: float | None = None) -> Message:
        waits.put(timeout)
        return inner.receive(timeout)

    monkeypatch.setattr(scene.taps["brno"], "receive", receive, raising=False)
    session.send(question(context, x))
    assert waits.get(timeout=10) == LONGEST_WAIT
    session.close()


def refusals(scene: Scene) -> int:
    """How often brno wrote down that this asker proposed another sum."""
    told = [record.content for record in records(scene, "brno") if record.kind == "unanswered"]
    return sum(each["asker"] == ASKER and "another sum" in each["reason"] for each in told)


def test_different_queries_to_different_agents_are_never_added_up(scene: Scene) -> None:
    x, other = queries(seed=5), queries(seed=6)
    number = next(scene.numbers)
    terms, sessions = scene.terms(ASKER), scene.open(ASKER)
    mine = terms.context(x, number, WAIT)
    sessions["brno"].send(question(mine, other))  # the others' context
    assert "another sum" in refusal(sessions["brno"])
    theirs = terms.context(other, number, WAIT)
    adverts = {}
    for site, context, asked in (("alba", mine, x), ("cork", mine, x), ("dole", theirs, other)):  # each its own
        sessions[site].send(question(context, asked))
        adv = wire.decode(sessions[site].receive(5.0).body)
        assert isinstance(adv, wire.Adv)
        adverts[site] = wire.Advert(adv.c, adv.s, adv.sig)
    adverts["brno"] = replace(adverts["cork"], c=bytes(range(32)), s=bytes(range(1, 33)))
    sessions["alba"].send(Message(SECAGG, 1, wire.Keys(mine.digest, adverts).encode()))
    assert "signature" in refusal(sessions["alba"])


def test_no_number_is_used_twice(scene: Scene) -> None:
    hub, number, x = scene.hub(ASKER), next(scene.numbers), queries()
    hub.ask(x, number, 10.0)
    for again in (number, number - 1):
        with pytest.raises(QuorumError, match="admitted before"):
            scene.hub(ASKER).ask(x, again, 5.0)
    scene.services.clear()  # processes that start anew
    with pytest.raises(QuorumError, match="admitted before"):
        scene.hub(ASKER).ask(x, number, 5.0)
    assert ask(scene, x, "brno").agents == 4  # another asker has numbers of its own


MALFORMED: dict[str, tuple[Callable[[Message], Message], str]] = {
    "no queries": (lambda m: replace(m, tensors={}), "no question"),
    "another kind": (lambda m: replace(m, kind=SECAGG), "no question"),
    "more tensors": (lambda m: replace(m, tensors={**m.tensors, "more": queries()}), "no question"),
    "no START": (lambda m: replace(m, body=b"x"), "message"),
    "another message": (lambda m: replace(m, body=wire.Surv(bytes(32), AGENTS).encode()), "begins with START"),
}
ODD: dict[str, tuple[Callable[[Queries], npt.NDArray[Any]], str]] = {
    "doubles": (lambda x: x.astype(np.float64), "32-bit"),
    "one row": (lambda x: x[0], "32-bit"),
    "no rows": (lambda x: x[:0], "32-bit"),
    "another width": (lambda x: x[:, : INPUTS - 1], f"{INPUTS} inputs"),
    "no number": (lambda x: x * np.float32(np.nan), "finite"),
}


def refused_as(scene: Scene, message: Message, why: str) -> None:
    """An agent ends the session for this reason, and sends nothing else."""
    session = scene.open(ASKER, "cork")["cork"]
    session.send(message)
    assert why in refusal(session)
    assert not scene.taps["cork"].sent


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_no_question_ends_the_session(scene: Scene, what: str) -> None:
    x, (change, why) = queries(), MALFORMED[what]
    refused_as(scene, change(question(scene.terms(ASKER).context(x, next(scene.numbers), WAIT), x)), why)


@pytest.mark.parametrize("what", ODD)
def test_queries_that_are_none_end_the_session(scene: Scene, what: str) -> None:
    """The context names the odd queries themselves: nothing but their form is wrong."""
    change, why = ODD[what]
    odd = change(queries())
    context = scene.terms(ASKER).context(odd if len(odd) else queries(), next(scene.numbers), WAIT)
    refused_as(scene, question(context, odd), why)


def records(scene: Scene, site: str) -> list[Record]:
    """What a site wrote down."""
    return [entry.record for entry in scene.federation.folders[site].log().entries()]


def test_a_paused_agent_and_one_whose_policy_says_no_send_nothing(scene: Scene) -> None:
    folder = scene.federation.folders["brno"]
    folder.pause(paused=True)
    try:
        with pytest.raises(QuorumError, match="paused"):
            ask(scene, queries())
    finally:
        folder.pause(paused=False)
    assert not scene.taps["brno"].sent
    scene.federation.rewrite("brno", "site.cedar", old='== Action::"ask"', new='== Action::"hold"')
    try:
        with pytest.raises(QuorumError, match="no rule allows it"):
            ask(scene, queries())
    finally:
        scene.federation.rewrite("brno", "site.cedar", old='== Action::"hold"', new='== Action::"ask"')
    assert not scene.taps["brno"].sent


def test_the_asker_s_own_agent_decides_first_whether_the_others_see_its_rows(scene: Scene) -> None:
    folder, hub = scene.federation.folders[ASKER], scene.hub(ASKER)
    before = {site: decisions(scene, site) for site in AGENTS}
    folder.pause(paused=True)
    try:
        with pytest.raises(QuorumError, match=r"alba: .*paused"):
            hub.ask(queries(), next(scene.numbers), 5.0)
    finally:
        folder.pause(paused=False)
    assert not any(tap.sent for tap in scene.taps.values())
    asked = {site for site in AGENTS if decisions(scene, site) > before[site]}
    assert asked == {ASKER}


def decisions(scene: Scene, site: str) -> int:
    """How often a site's gate was asked."""
    return sum(record.kind == "channel-decision" for record in records(scene, site))
