"""Split training in a run of real sites: over mutual TLS, by the run's papers alone, and what a holder refuses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.numpy

from clients.assets import load
from clients.chain.held import Held
from clients.chain.installed import Installed
from clients.chain.invited import by_invitation
from clients.chain.opening import Dial
from clients.chain.request import CHAIN_BYTES, KIND, End, StageRequest
from clients.chain.service import StageService
from clients.chain.stage import Stage
from clients.channel.credentials import Identity
from clients.channel.listener import Listener
from clients.channel_gate import ChannelGate
from clients.sites import site_of
from privacy.audit import envelope, statement
from privacy.errors import FederationError, QuorumError
from privacy.store.log import Record
from privacy.store.run_folder import MODEL_FILE, REPORT_FILE
from simulations.job import Job as SimulatedJob
from simulations.reference import federate_sites
from strategies.chain_job import chain_of
from strategies.chain_plan import ChainPlan
from strategies.job import Job
from strategies.messages import MASKED, STAGE
from strategies.models import build, layout_of
from strategies.secure_sum import FRACTION_BITS
from strategies.task import SiteId
from tests.clients.invited import RUN, Parties
from tests.federation import CHANNEL_POLICY, STUDY, Federation, federate, study_of

HOLDER = "erin"
SITES = ("alba", "brno", "cork", "dole")
CUT = (
    STUDY.replace('kind = "logistic"', 'kind = "mlp"\nhidden = [6, 5, 4]').replace(
        "learning_rate = 0.5", "learning_rate = 0.5\nlocal_steps = 2"
    )
    + """
[chain]
holder = "erin"
front = "_1"
tail = "_5"

[[chain.releases]]
owner = "*"
to = "erin"
what = ["activations", "gradients"]
unsafe = "invented patients"
"""
)


@dataclass
class World:
    """A federation of which one site holds the middle of the others' model.

    Attributes:
      recorded: What the holder put on record.
    """

    parties: Parties
    recorded: list[Record] = field(default_factory=list)

    @property
    def federation(self) -> Federation:
        return self.parties.federation

    def job(self, *privacy: str, **changes: Any) -> Job:
        return self.parties.job(*privacy, sites=SITES, local_steps="2", **changes)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The holder serves, and every other site knows where."""
        folder = self.federation.folders[HOLDER]
        service = StageService(
            site=HOLDER,
            device="",
            installed=Installed.of_study(self.federation.study),
            authorise=by_invitation(self.federation.study, lambda: folder.charter),
            gate=ChannelGate.of_folder(folder, self.parties.clock).hold,
            dial=cast("Dial", None),  # the chain has one holder
            held=folder.path / "held",
            record=self.recorded.append,
        )
        own = Identity.of_folder(folder, self.parties.clock)
        with Listener("127.0.0.1:0", own, {KIND: service}, record=self.recorded.append) as listener:
            for site in SITES:
                self.tell(site, f'[channel.peers]\n{HOLDER} = "127.0.0.1:{listener.port}"\n')
            yield

    def tell(self, site: str, lines: str) -> None:
        path = self.federation.folders[site].path / "site.toml"
        path.write_text(path.read_text().partition("[channel")[0] + lines)

    def held(self) -> dict[str, Any]:
        """What the holder has of the run."""
        (path,) = {each.parent for each in (self.federation.folders[HOLDER].path / "held").rglob("*.safetensors")}
        (spec,) = chain_of(self.job(), SiteId("alba")).held
        initial = Stage(Installed.of_study(self.federation.study).piece(spec, 1, train=True)).state()
        return dict(Held.of_folder(path, initial).latest()[1])

    def decisions(self, site: str, kind: str) -> list[Any]:
        entries = self.federation.folders[site].log().entries()
        return [entry.record.content for entry in entries if entry.record.kind == kind]


def asked(plan: ChainPlan, **terms: Any) -> StageRequest:
    return StageRequest(plan=plan.encode(), place=0, end=End.BEFORE, chain=bytes(CHAIN_BYTES), **terms)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    sites = (*SITES, HOLDER)
    folder = tmp_path_factory.mktemp("chain") / "made"
    return federate(folder, sites, study_of(sites, CUT), policy=CHANNEL_POLICY)


@pytest.fixture
def world(made: Federation, tmp_path: Path) -> World:
    return World(Parties(made.copied(tmp_path / "federation")))


def whole(world: World, job: Job) -> dict[str, Any]:
    """The same run with the whole model at every site, in this process."""
    plain = replace(job, chain=None)
    assets = {site: world.federation.folders[site].settings.assets["hearts"] for site in SITES}
    sites = [site_of(plain, SiteId(site), load(assets[site], job.task, priced=None).train) for site in SITES]
    found = federate_sites(cast("SimulatedJob", plain), sites)
    return layout_of(build(job.task.model, job.task.n_inputs, job.seed)).unflatten(found.model)


def test_a_run_through_the_chain_ends_where_the_whole_model_ends(world: World) -> None:
    """To the rounding of three masked sums: of the ends alone, a site blurs other bits."""
    job = world.job()
    with world.serving():
        done = world.parties.run(job)
    assert [record.answered for record in done.rounds] == [tuple(map(SiteId, SITES))] * 3
    expected, runs = whole(world, job), world.federation.hub.path / "runs" / RUN
    ends = safetensors.numpy.load((runs / MODEL_FILE).read_bytes())
    middle = world.held()
    assert sorted([*ends, *middle]) == sorted(expected)
    for name, array in {**ends, **middle}.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=3 * 2.0**-FRACTION_BITS)
    report = statement.decode(envelope.decode((runs / REPORT_FILE).read_bytes()).payload)
    assert {one["owner"] for one in report.predicate["releases"]} == set(SITES)
    left = report.claim("sites.egress") or {}
    assert all(STAGE in {one["kind"] for one in entry["payloads"]} for entry in left["sites"])
    assert "invented patients" in (runs / "report.html").read_text()
    assert {one["allowed"] for one in world.decisions("alba", "channel-decision")} == {True}
    assert len(world.decisions("alba", "unsafe-release")) == 3
    assert {one["facts"]["study"] for one in world.decisions(HOLDER, "channel-decision")} == {job_study(world)}
    assert {record.kind for record in world.recorded} == {"channel-opened"}, "and nothing was refused"


def job_study(world: World) -> str:
    return world.federation.study.digest


@pytest.mark.soak
def test_in_a_private_run_the_held_piece_stands_still(world: World) -> None:
    with world.serving():
        world.parties.run(world.job("record", rounds="1"))
    (spec,) = chain_of(world.job(), SiteId("alba")).held
    initial = Stage(Installed.of_study(world.federation.study).piece(spec, 1, train=True)).state()
    for name, array in world.held().items():
        np.testing.assert_array_equal(array, initial[name])


def test_the_round_goes_on_without_a_site_that_cannot_reach_the_holder(world: World) -> None:
    with world.serving():
        world.tell("dole", '[channel.peers]\nerin = "127.0.0.1:9"\n')
        done = world.parties.run(world.job(rounds="1", retries="1"))
    (record,) = done.rounds
    assert record.answered == ("alba", "brno", "cork")
    assert "erin" in record.missing[SiteId("dole")]


def test_without_the_holder_there_is_no_round_and_nothing_left(world: World) -> None:
    with world.serving():
        pass
    with pytest.raises(QuorumError, match="no round had 3 survivors"):
        world.parties.run(world.job(rounds="1", retries="0"))
    assert not world.decisions("alba", "unsafe-release")


def test_a_site_whose_policy_forbids_the_release_sends_nothing(world: World) -> None:
    world.federation.rewrite("dole", "site.cedar", old=', Action::"release"', new="")
    with world.serving():
        done = world.parties.run(world.job(rounds="1", retries="0"))
    assert "policy" in done.rounds[0].missing[SiteId("dole")]
    (decision,) = world.decisions("dole", "channel-decision")
    assert (decision["allowed"], decision["action"]) == (False, "release")
    assert not world.decisions("dole", "unsafe-release")
    assert "dole" not in json.dumps(world.decisions(HOLDER, "channel-decision"))


def test_a_site_of_a_cut_model_trains_by_no_other_message(world: World) -> None:
    job = world.job()
    world.tell("alba", '[channel.peers]\nerin = "127.0.0.1:9"\n')
    assert not world.parties.hello("alba", world.parties.signed(job)).has_error()
    reply = world.parties.ask("alba", MASKED, world.parties.start("alba", job))
    assert "asked for something else" in (reply.error.reason or "")
    assert not world.decisions("alba", "channel-decision")


TERMS = {
    "a faster piece": {"learning_rate": 0.6},
    "more steps": {"steps": 3},
    "another start": {"seed": 2},
    "another run": {"run": "second"},
    "a round too many": {"round": 4},
    "no round": {"round": 0},
    "an attempt too many": {"attempt": 5},
}


@pytest.mark.parametrize("changes", TERMS.values(), ids=TERMS)
def test_a_holder_takes_the_terms_from_the_papers_and_not_from_who_dials(world: World, changes: dict[str, Any]) -> None:
    job, folder = world.job(), world.federation.folders[HOLDER]
    authorise = by_invitation(world.federation.study, lambda: folder.charter)
    plan = chain_of(job, SiteId("alba"))
    terms = {"learning_rate": 0.5, "steps": 2, "seed": 1, "run": RUN, "round": 1, "grant": world.parties.signed(job)}
    allowed = authorise("alba", asked(plan, **terms))
    assert (allowed.plan, allowed.seed, allowed.study) == (plan, 1, world.federation.study.digest)
    with pytest.raises(FederationError):
        authorise("alba", asked(plan, **{**terms, **changes}))


def test_a_holder_refuses_papers_that_are_not_of_this_peer_run_or_charter(world: World) -> None:
    job, folder = world.job(), world.federation.folders[HOLDER]
    authorise = by_invitation(world.federation.study, lambda: folder.charter)
    plan = chain_of(job, SiteId("alba"))
    terms = {"learning_rate": 0.5, "steps": 2, "seed": 1, "run": RUN, "round": 1, "grant": world.parties.signed(job)}
    with pytest.raises(FederationError, match="another chain"):
        authorise("brno", asked(plan, **terms))
    with pytest.raises(FederationError, match="was not invited"):
        authorise(HOLDER, asked(plan, **terms))
    private = {**terms, "grant": world.parties.signed(world.job("record"))}
    with pytest.raises(FederationError, match="other steps"):  # the piece would learn in a private run
        authorise("alba", asked(plan, **private))
    mine = world.parties.invitation(job).signed(folder.identity)
    with pytest.raises(FederationError):
        authorise("alba", asked(plan, **{**terms, "grant": mine}))
    old = {**terms, "grant": world.parties.signed(job, charter="0" * 64)}
    with pytest.raises(FederationError, match="another charter"):
        authorise("alba", asked(plan, **old))
