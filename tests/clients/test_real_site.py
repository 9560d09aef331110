"""A real site from its folder: what it refuses, whoever signed it, and that nothing leaves or is spent then."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

import clients.app
from clients.run_store import RunStore
from privacy.audit.site_statement import opened
from privacy.errors import SensitivityError
from privacy.policy import shipped
from privacy.secagg.admission import check_entries
from privacy.secagg.client import _Advertised
from privacy.store.budgets import Debit
from strategies.job import Job
from strategies.messages import CLOSE, MASKED, SECAGG, Closing, Hello
from strategies.task import SiteId
from tests.clients.invited import RUN, Parties
from tests.clients.node import body_of, refusal
from tests.clients.test_app import not_finite
from tests.federation import ASSET
from tests.privacy.charter import example

SITE = "alba"


@dataclass(frozen=True)
class Case:
    """Something that a coordinator asks for, and which rule of the site refuses it."""

    name: str
    by: str
    arrange: Callable[[Parties], bytes]
    reason: str = ""


def narrowed(parties: Parties, strategy: str, **ranges: Any) -> None:
    """The charter's next version lists one strategy alone, with these ranges."""
    listed = parties.federation.charter.body["strategies"][strategy]
    parties.federation.amend(strategies={strategy: {**listed, **ranges}})


def of(
    changes: dict[str, Any] | None = None,
    *,
    amend: dict[str, Any] | None = None,
    privacy: tuple[str, ...] = ("record",),
    **job: Any,
) -> Callable[[Parties], bytes]:
    """An invitation to a job with changes in either, under a charter with changes."""

    def arrange(parties: Parties) -> bytes:
        if amend:
            parties.federation.amend(**amend)
        return parties.signed(parties.job(*privacy, **job), **(changes or {}))

    return arrange


def another_application(parties: Parties) -> bytes:
    parties.federation.amend(application="ab" * 32)
    return parties.signed(parties.job("record"), application="ab" * 32)


def unknown_strategy(parties: Parties) -> bytes:
    return parties.signed(parties.job("record"), strategy="fedmagic")


def unlisted_strategy(parties: Parties) -> bytes:
    narrowed(parties, "fedavg")
    return parties.signed(parties.job("record", strategy="fedprox"))


def out_of_range(parties: Parties) -> bytes:
    narrowed(parties, "fedavg", learning_rate={"low": "0", "high": "0.4"})
    return parties.signed(parties.job("record", learning_rate="0.5"))


def hospital(parties: Parties) -> None:
    """The site takes the hospital's policy, in its own time zone."""
    folder = parties.federation.folders[SITE].path
    (folder / "site.cedar").write_text(shipped.read("hospital.cedar"))


def by_day(parties: Parties) -> bytes:
    hospital(parties)
    parties.federation.rewrite(SITE, "site.cedar", old="context.survivors < 4", new="context.survivors < 3")
    parties.clock.moment = datetime.now(UTC).replace(hour=11)
    return parties.signed(parties.job("record"))


def few_survivors(parties: Parties) -> bytes:
    hospital(parties)
    parties.clock.moment = datetime.now(UTC).replace(hour=23)
    return parties.signed(parties.job("record"))


def pay(parties: Parties, job: Job, run: str) -> None:
    """The site's ledger has a debit of a run for all that the job could cost."""
    folder = parties.federation.folders[SITE]
    plan = job.record_plan(SiteId(SITE), 40)
    assert plan is not None
    debit = Debit(ASSET, 1, 1, plan.event(plan.max_executions), limit=9, run=run, claim=plan.claim)
    folder.ledger().release(folder.ledger().reserve([debit]))


def spent(parties: Parties) -> bytes:
    """Earlier runs left less than this one would take."""
    job = parties.job("record", epsilon=Decimal(2))
    for run in ("one", "two", "three"):
        pay(parties, job, run)
    return parties.signed(job)


def foreign_purpose(parties: Parties) -> bytes:
    """The charter allows it and this site does not."""
    assets = {ASSET: {"purposes": ["training", "marketing"], "epsilon": "4", "delta": "0.001"}}
    parties.federation.amend(assets=assets)
    return parties.signed(parties.job("record"), purpose="marketing")


def late(parties: Parties) -> bytes:
    parties.clock.pass_by(days=61)
    return parties.signed(parties.job("record"))


def early(parties: Parties) -> bytes:
    parties.clock.pass_by(days=-2)
    return parties.signed(parties.job("record"))


def forged(parties: Parties) -> bytes:
    made = parties.invitation(parties.job("record"))
    return made.signed(parties.federation.folders["brno"].identity)


def altered(parties: Parties) -> bytes:
    return parties.signed(parties.job("record")).replace(b'"purpose":"training"', b'"purpose":"trading"')


def second_invitation(parties: Parties) -> bytes:
    """The run was begun with another one."""
    parties.hello(SITE, parties.signed(parties.job("record")))
    return parties.signed(parties.job("record", seed=2))


def opted_out(parties: Parties) -> bytes:
    """Since its records were read for this run."""
    folder = parties.federation.folders[SITE].path
    parties.federation.rewrite(SITE, "site.toml", old="sensitivity", new='opt_out = "out"\nsensitivity')
    (folder / "out").write_text("")
    data = parties.signed(parties.job("record"))
    body_of(parties.hello(SITE, data))
    (folder / "out").write_text("3\n4\n")
    return data


def few(parties: Parties) -> bytes:
    parties.federation.amend(floors={"cohort": 4, "survivors": 3, "threshold": 2, "cover": 3})
    return parties.signed(parties.job("record", sites=parties.federation.sites[:3]))


CASES = [
    Case("another application", "invitation", of({"application": "ab" * 32}), "another application"),
    Case("an application that the charter lists and nobody has here", "invitation", another_application),
    Case("an application that the charter does not list", "charter: application", of(amend={"application": "ab" * 32})),
    Case("a strategy that there is not", "invitation", unknown_strategy),
    Case("a strategy that the charter does not list", "charter: strategy", unlisted_strategy),
    Case("a parameter out of range", "charter: ranges", out_of_range),
    Case("a cohort too small for the charter", "charter: cohort", few),
    Case("a cohort too small for anybody", "the site itself", of(sites=("alba", "brno"))),
    Case("a cohort without this site", "invitation", of(sites=("brno", "cork", "dole"))),
    Case(
        "no differential privacy",
        "charter: privacy",
        of(privacy=(), amend={"unsafe_without_dp": False}),
    ),
    Case(
        "a setting that is not listed", "charter: setting", of(amend={"privacy": {"distributed": example.allowance()}})
    ),
    Case("too much epsilon", "charter: epsilon", of(epsilon=Decimal(3))),
    Case("too large a delta", "charter: delta", of(delta=Decimal("0.002"))),
    Case(
        "less noise than the charter's least",
        "charter: noise",
        of(amend={"privacy": {"record": {"epsilon": "2", "delta": "0.001", "clip": "10", "noise": "50"}}}),
    ),
    Case(
        "a larger clip than the charter's",
        "charter: clip",
        of(amend={"privacy": {"record": {"epsilon": "2", "delta": "0.001", "clip": "0.5", "noise": "0.5"}}}),
    ),
    Case("a budget that is spent", "budget or asset", spent, "what is left of the budget"),
    Case("a claim that the site keeps no budget for", "budget or asset", of(privacy=("distributed",)), "no budget"),
    Case("a purpose that the charter does not list", "charter: purpose", of({"purpose": "marketing"})),
    Case("a purpose that the site does not list", "budget or asset", foreign_purpose),
    Case("an asset that the site does not have", "budget or asset", of({"asset": "lungs"}), "no asset lungs"),
    Case("after the window", "charter: not after", late),
    Case("before the window", "charter: not before", early),
    Case("at a time that the site's policy forbids", "policy: day-time", by_day),
    Case("fewer survivors than the site's policy", "policy: few-survivors", few_survivors),
    Case("another charter", "charter: version", of({"charter": "ab" * 32})),
    Case("a study that nobody has", "invitation", of({"study": "ab" * 32})),
    Case("other settings than are told", "invitation", of({"seed": 2}), "another job"),
    Case("in the clear", "invitation", of({"secagg": False}), "another job"),
    Case("another federation", "invitation", of({"federation": "south"})),
    Case("a run that is a path", "invitation", of({"run": "../brno"})),
    Case("a run without a name", "invitation", of({"run": ""})),
    Case("signed by somebody else", "invitation", forged),
    Case("changed since it was signed", "invitation", altered),
    Case("a run that was begun with another invitation", "invitation", second_invitation, "another invitation"),
    Case("a patient who opted out since", "opt-out", opted_out),
    Case("no unit that there is", "invitation", of({"unit": "village"})),
    Case("no privacy setting that there is", "invitation", of({"privacy": ("pretended",)}, privacy=())),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_site_refuses_is_on_record_and_nothing_leaves(case: Case, parties: Parties) -> None:
    data = case.arrange(parties)
    before = (parties.debits(SITE), len(parties.decisions(SITE)))
    stored = [path for path in parties.stored(SITE) if path.name != "node"]
    said = refusal(parties.hello(SITE, data, number=9))
    assert case.reason in said
    assert parties.debits(SITE) == before[0]
    decided = parties.decisions(SITE)[before[1] :]
    assert [(entry["allowed"], entry["by"]) for entry in decided] == [(False, case.by)]
    assert decided[0]["policy"] == hashlib.sha256(parties.federation.folders[SITE].policy.encode()).hexdigest()
    assert decided[0]["charter"] == parties.federation.charter.digest
    assert [path for path in parties.stored(SITE) if path.name != "node"] == stored, "it remembers nothing of it"


def begun(parties: Parties, *privacy: str, **settings: Any) -> Job:
    """The site was invited to a run, and the gate let it pass."""
    job = parties.job(*(privacy or ("record",)), **settings)
    body_of(parties.hello(SITE, parties.signed(job)))
    return job


def unanswered(parties: Parties) -> list[str]:
    entries = parties.federation.folders[SITE].log().entries()
    return [entry.record.content["reason"] for entry in entries if entry.record.kind == "unanswered"]


def test_what_is_let_pass_is_on_record_too_and_a_start_is_answered(parties: Parties) -> None:
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    assert [(entry["allowed"], entry["run"], entry["strategy"]) for entry in parties.decisions(SITE)] == [
        (True, RUN, "fedavg")
    ] * 2
    assert unanswered(parties) == []


def test_nothing_but_the_roll_call_is_answered_before_an_invitation(parties: Parties) -> None:
    start = parties.start(SITE, parties.job("record"))
    for kind in (MASKED, SECAGG, CLOSE):
        assert "not invited" in refusal(parties.ask(SITE, kind, start))
    assert parties.debits(SITE) == 0
    assert parties.stored(SITE) == []


def test_a_start_that_came_twice_is_answered_with_the_same_bytes(parties: Parties) -> None:
    """docs/protocol.md §3: a repetition must not end the attempt that is under way."""
    job = begun(parties)
    first = body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    assert body_of(parties.ask(SITE, MASKED, parties.start(SITE, job))) == first
    assert unanswered(parties) == []


def test_a_replayed_start_is_refused_on_record_and_nothing_leaves(parties: Parties) -> None:
    job = begun(parties)
    start = parties.start(SITE, job)
    body_of(parties.ask(SITE, MASKED, start))
    refusal(parties.ask(SITE, MASKED, parties.start(SITE, job, federation="south")))
    assert len(unanswered(parties)) == 1
    body_of(parties.ask(SITE, MASKED, start))
    parties.restart(SITE)
    refusal(parties.ask(SITE, MASKED, start))
    refusal(parties.ask(SITE, SECAGG, start))
    assert len(unanswered(parties)) == 3
    assert parties.debits(SITE) == 0


def test_a_start_is_answered_alike_whatever_came_of_training(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADV is not paid for, so neither it nor its absence may depend on the records (docs/protocol.md §3.0)."""
    monkeypatch.setattr(clients.app, "contribute", not_finite)
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    assert parties.debits(SITE) == 0
    (joined,) = parties.agent(SITE)._joined.values()
    (attempt,) = joined.secure._live.values()
    assert isinstance(attempt.state.memory, _Advertised)
    with pytest.raises(SensitivityError, match="outside its bound"):
        check_entries(attempt.state.memory.context, attempt.state.memory.own)


class TestWithoutNoise:
    """No ledger limits what a site answers then: the rounds and retries that it agreed to do."""

    def begun(self, parties: Parties) -> Job:
        parties.federation.amend(unsafe_without_dp=True)
        job = parties.job(rounds="3", retries="1")
        body_of(parties.hello(SITE, parties.signed(job)))
        return job

    @pytest.mark.parametrize(("number", "attempt"), [(4, 1), (10**6, 1), (1, 3)])
    def test_no_round_and_no_attempt_beyond_the_agreed_is_answered(
        self, number: int, attempt: int, parties: Parties
    ) -> None:
        job = self.begun(parties)
        start = parties.start(SITE, job, round_number=number, attempt=attempt)
        assert f"agreed to no round {number} attempt {attempt}" in refusal(parties.ask(SITE, MASKED, start))
        body_of(parties.ask(SITE, MASKED, parties.start(SITE, job, round_number=3, attempt=2)))

    def test_no_more_attempts_than_were_agreed_are_answered_in_all(self, parties: Parties) -> None:
        job = self.begun(parties)
        for number, attempt in [(1, 1), (1, 2), (2, 1), (2, 2)]:
            parties.restart(SITE)  # counted on disk
            body_of(parties.ask(SITE, MASKED, parties.start(SITE, job, round_number=number, attempt=attempt)))
        start = parties.start(SITE, job, round_number=3)
        assert "agreed to 4 attempts in this run" in refusal(parties.ask(SITE, MASKED, start))


def test_what_an_attempt_remembers_is_erased_when_its_time_is_up(parties: Parties) -> None:
    job, late = begun(parties), 0.0
    (joined,) = parties.agent(SITE)._joined.values()
    joined.secure.clock = lambda: late
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    (attempt,) = joined.secure._live.values()
    parties.agent(SITE).expire()
    assert attempt.state.memory is not None
    late = 30 * 86400.0
    parties.agent(SITE).expire()
    assert attempt.state.memory is None


@pytest.mark.parametrize(
    "told",
    [{"federation": "south"}, {"run": "another"}, {"asset": "lungs"}, {"purpose": "marketing"}],
    ids=lambda told: next(iter(told)),
)
def test_a_start_says_what_the_invitation_said(told: dict[str, Any], parties: Parties) -> None:
    """What the sites sign under the masks would be another run, or for another purpose, than they let pass."""
    job = begun(parties)
    refusal(parties.ask(SITE, MASKED, parties.start(SITE, job, **told)))
    assert parties.debits(SITE) == 0
    assert len(unanswered(parties)) == 1


FLOORS = {"cohort": 3, "survivors": 3, "threshold": 2, "cover": 3}


@pytest.mark.parametrize(
    ("floors", "sites", "clause"),
    [
        ({"cohort": 4}, ("alba", "brno", "cork"), "cohort"),
        ({"survivors": 4}, (), "survivors"),
        ({"threshold": 4, "survivors": 4}, (), "survivors"),
        ({"cover": 4, "survivors": 4}, (), "survivors"),
        ({}, ("alba", "brno", "cork"), ""),
    ],
    ids=str,
)
def test_no_attempt_goes_below_the_floors_of_the_charter(
    floors: dict[str, int], sites: tuple[str, ...], clause: str, parties: Parties
) -> None:
    """The coordinator of this test knows of no charter, and takes FSA1's own thresholds."""
    parties.federation.amend(floors={**FLOORS, **floors})
    job = begun(parties)
    reply = parties.ask(SITE, MASKED, parties.start(SITE, job, asked=sites))
    if not clause:
        body_of(reply)
        return
    assert f"({clause})" in refusal(reply)
    assert parties.debits(SITE) == 0
    true = parties.start(SITE, job, floors=parties.federation.charter.floors)
    body_of(parties.ask(SITE, MASKED, true))


@pytest.mark.parametrize("when", ["closed window", "amended charter", "opted out", "policy"])
def test_the_gate_is_asked_again_at_every_start(when: str, parties: Parties) -> None:
    folder = parties.federation.folders[SITE].path
    parties.federation.rewrite(SITE, "site.toml", old="sensitivity", new='opt_out = "out"\nsensitivity')
    (folder / "out").write_text("")
    job = begun(parties)
    start = parties.start(SITE, job)
    match when:
        case "closed window":
            parties.clock.pass_by(days=61)
        case "amended charter":
            parties.federation.amend(SITE, revoked=["1f"])
        case "opted out":
            (folder / "out").write_text("7\n")
        case _:
            parties.federation.rewrite(SITE, "site.cedar", old="contains(context.purpose)", new='contains("nothing")')
    refusal(parties.ask(SITE, MASKED, start))
    by = {"closed window": "charter: not after", "amended charter": "charter: version", "opted out": "opt-out"}
    assert [(each["allowed"], each["by"]) for each in parties.decisions(SITE)] == [
        (True, ""),
        (False, by.get(when, "policy: no rule allows it")),
    ]
    assert parties.debits(SITE) == 0


def test_a_refused_invitation_does_not_settle_what_another_one_to_the_same_run_means(parties: Parties) -> None:
    """Else a coordinator is refused with settings out of range, and let pass with the same job and harmless words."""
    narrowed(parties, "fedavg", learning_rate={"low": "0", "high": "0.5"})
    wild, tame = parties.job("record", learning_rate="5"), parties.job("record")
    assert "ranges" in refusal(parties.hello(SITE, parties.signed(wild)))
    said = parties.invitation(tame)
    assert "another job" in refusal(parties.hello(SITE, parties.signed(wild, parameters=said.parameters)))
    assert [each["allowed"] for each in parties.decisions(SITE)] == [False, False]
    body_of(parties.hello(SITE, parties.signed(tame)))
    refusal(parties.ask(SITE, MASKED, parties.start(SITE, wild)))
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, tame)))


def test_of_a_closed_run_nothing_is_answered_but_that_it_is_over(parties: Parties) -> None:
    """A coordinator that crashed before it had the statements asks for them again; it gets no further attempt."""
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    closing = Closing(job.digest, 3, job.initial).encode()
    first = body_of(parties.ask(SITE, CLOSE, closing))
    kept = {path.name: path.read_bytes() for path in parties.stored(SITE) if path.is_file()}
    assert {"model.f32", "score.json", "closed"} <= set(kept)
    for kind in (MASKED, SECAGG):
        assert "is over" in refusal(parties.ask(SITE, kind, parties.start(SITE, job)))
    parties.restart(SITE)
    body_of(parties.hello(SITE, parties.signed(job), number=2))
    assert "is over" in refusal(parties.ask(SITE, MASKED, parties.start(SITE, job), number=2))
    again = body_of(parties.ask(SITE, CLOSE, Closing(job.digest, 3, job.initial + 1).encode(), number=2))
    charter = parties.federation.charter
    both = [opened(signed, {SITE: charter.sites[SITE].identity}) for signed in (first, again)]
    assert [(each.run, each.job, each.allowed) for each in both] == [(RUN, job.digest, 2), (RUN, job.digest, 3)]
    assert (parties.federation.folders[SITE].path / "runs" / RUN / "model.f32").read_bytes() == kept["model.f32"]


def test_a_site_goes_on_where_it_was_when_both_ends_are_new_processes(parties: Parties) -> None:
    """A resumed run has another number at Flower's; what the site remembers of its rounds is still there."""
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    store = RunStore(parties.federation.folders[SITE].path / "runs", RUN)
    remembered = RecordDict({"collegium-site": ConfigRecord({"round": 1, "attempt": 1, "kept.control": b"1234"})})
    store.save(remembered)
    parties.restart(SITE)
    said = Hello.decode(body_of(parties.hello(SITE, parties.signed(job), number=2)))
    assert (said.site, said.n_records, said.seen) == (SITE, store.units, parties.server_log(SITE).seen)
    again = RecordDict()
    store.restore(again)
    assert dict(again["collegium-site"]) == dict(remembered["collegium-site"])
    assert "has answered round 1" in refusal(parties.ask(SITE, MASKED, parties.start(SITE, job), number=2))
    assert RunStore.of_node(store.path.parent, 1) is None


def test_an_agent_that_was_killed_goes_on_in_the_same_run(parties: Parties) -> None:
    """The coordinator never noticed: it calls no roll, and the next START finds all that is needed on disk."""
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    parties.restart(SITE)
    refusal(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    parties.restart(SITE)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job, round_number=2)))


def test_the_policy_is_asked_about_the_sites_that_are_really_in_an_attempt(parties: Parties) -> None:
    job = begun(parties)
    path = parties.federation.folders[SITE].path / "site.cedar"
    path.write_text(
        path.read_text() + '@id("small") forbid (principal, action, resource) when { context.cohort < 4 };\n'
    )
    start = parties.start(SITE, job, asked=("alba", "brno", "cork"))
    assert "small" in refusal(parties.ask(SITE, MASKED, start))
    assert parties.debits(SITE) == 0
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
