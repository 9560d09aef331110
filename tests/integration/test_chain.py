"""Chains over three processes and mutual TLS: the model bit for bit, and what a kill, a cut and a stall leave of it.

Home is the test's own process; brno and cork run ``collegium stage serve``.
"""

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.chain import opening
from clients.chain.driver import ChainDriver
from clients.chain.held import HELD_FOLDER, State
from clients.chain.home import Own
from clients.chain.installed import Installed
from clients.chain.measure import KIND as MEASURE
from clients.chain.opening import PeerDial, open_chain
from clients.chain.payer import Payer
from clients.chain.released import Releaser
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from clients.channel.session import RemoteRefusalError
from privacy.errors import BudgetExhaustedError, PrivacyError, TransportError
from strategies.chain_plan import ChainPlan
from strategies.losses import mean_loss
from strategies.release import Crossing, Release
from tests.clients.chain.holders import CNN, MLP, OPEN, RATE, batch, kept, own_of, plan_of, whole
from tests.federation import ASSET, CHANNEL_POLICY, PURPOSE, Federation, federate
from tests.integration.chaos import GOOD, Chaos, Line
from tests.integration.real import Command, free_port, until

HOME, FIRST, LAST = "alba", "brno", "cork"
ANSWERS = "answers"
U = (HOME, FIRST, LAST, HOME)
NOISED = tuple(Release(HOME, to, frozenset({Crossing.ACTIVATIONS}), 1.0, 20.0, 2) for to in (FIRST, LAST))
PLANS = {
    "u": plan_of(MLP, U),
    "line": plan_of(MLP, (HOME, FIRST, LAST)),
    "micro": plan_of(MLP, U, micro_batch=5, in_flight=3),
    "bare": plan_of(MLP, U, releases=OPEN[:1]),
    "asked": plan_of(MLP, U, train=False, micro_batch=5, in_flight=2),
    "noised": plan_of(MLP, (HOME, FIRST, LAST), train=False, releases=NOISED),
}
UNLISTED = plan_of(MLP, U, micro_batch=7)


@dataclass
class Chains:
    """Three sites; two of them serve.

    Attributes:
      factory: The name by which holders find the model.
      lines: The lines home -> brno, brno -> cork and home -> cork, by the two ends.
    """

    federation: Federation
    installed: Installed
    factory: str
    lines: dict[tuple[str, str], Chaos]
    ports: dict[str, int]
    served: dict[str, Command] = field(default_factory=dict)
    dialler: Dialler = field(init=False)

    def __post_init__(self) -> None:
        own = Identity.of_folder(self.federation.folders[HOME], lambda: datetime.now(UTC))
        self.dialler = Dialler(own, limits=Limits(resume=10.0, keepalive=1.0))

    def serve(self, site: str) -> None:
        """Starts a holder, maybe in the place of one that ended."""
        folder = self.federation.folders[site].path
        self.served[site] = Command(
            self.federation.path / f"{site}.log", "stage", "serve", str(folder), "--model", self.factory,
            "--deadline", "2",
        )  # fmt: skip

    def open(
        self, plan: ChainPlan, own: Own, releaser: Releaser | None = None, deadline: float = 4, **fields: Any
    ) -> AbstractContextManager[ChainDriver]:
        """A chain from home."""
        dial = PeerDial(self.dialler, lambda: {site: f"127.0.0.1:{self.lines[HOME, site].port}" for site in self.ports})
        purpose, rate = (PURPOSE, RATE) if plan.train else (ANSWERS, 0.0)
        releaser = releaser or payer(plan)
        return open_chain(plan, dial, own, releaser, purpose=purpose, deadline=deadline, learning_rate=rate, **fields)

    def trained(
        self, plan: ChainPlan, steps: int, fault: Callable[[int], None] = lambda _: None, run: str = "", **fields: Any
    ) -> State:
        """Parameters of all pieces after so many steps; ``fault`` comes before each."""
        run, own = run or secrets.token_hex(8), own_of(plan, self.installed)
        with self.open(plan, own, run=run, round=1, **fields) as driver:
            for number in range(steps):
                fault(number)
                driver.step(*batch(number, self.installed))
        return self.state(plan, own, run, attempt=fields.get("attempt", 1))

    def state(self, plan: ChainPlan, own: Own, run: str, number: int = 1, attempt: int = 1) -> State:
        """Parameters of all pieces, of which the holders kept theirs."""
        found = {key: value for stage in own.stages for key, value in stage.state().items()}
        for stage in plan.held:
            folder = self.federation.folders[stage.device].path / HELD_FOLDER
            found |= kept(folder, run, stage.device, number, attempt)
        return found

    def logged(self, site: str, kind: str) -> list[Any]:
        """What a site's log has of a kind."""
        return [
            entry.record.content for entry in self.federation.folders[site].log().entries() if entry.record.kind == kind
        ]


def payer(plan: ChainPlan) -> Releaser:
    """Lets values leave; the releases here are unsafe ones, which cost nothing."""
    releaser = Releaser(plan, payer=None, entropy=secrets.token_bytes, record=lambda _: None)
    releaser.pay(1000)
    return releaser


def equal(found: State, expected: State) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


@contextmanager
def at_work(folder: Path, installed: Installed, factory: str, plans: Mapping[str, ChainPlan]) -> Iterator[Chains]:
    """Makes the federation, and starts both holders behind lines that can be made bad."""
    sites = (HOME, FIRST, LAST)
    made = federate(
        folder,
        sites,
        policy=CHANNEL_POLICY,
        chains={name: plan.digest for name, plan in plans.items()},
        inference={
            "agents": [*sites],
            "weights": dict.fromkeys(sites, 1),
            "modes": ["chain"],
            "purposes": [ANSWERS],
            "most_queries": 100,
            "noise": None,
        },
    )
    ports = {site: free_port() for site in (FIRST, LAST)}
    with Chaos(ports[FIRST]) as first, Chaos(ports[LAST]) as between, Chaos(ports[LAST]) as last:
        for site, port in ports.items():
            settings = f'[channel]\nlisten = "127.0.0.1:{port}"\n[channel.peers]\n{LAST} = "127.0.0.1:{between.port}"\n'
            with (made.folders[site].path / "site.toml").open("a") as file:
                file.write(settings)
        lines = {(HOME, FIRST): first, (FIRST, LAST): between, (HOME, LAST): last}
        chains = Chains(made, installed, factory, lines, ports)
        try:
            for site in ports:
                chains.serve(site)
            for command in chains.served.values():
                command.says("listens on")
            yield chains
        finally:
            chains.dialler.close()
            for command in chains.served.values():
                command.kill()


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chains]:
    folder = tmp_path_factory.mktemp("chain") / "north"
    with at_work(folder, MLP, "tests.clients.chain.holders:mlp", PLANS) as chains:
        yield chains


@pytest.mark.parametrize("name", ["u", "line"])
def test_fifty_steps_give_the_parameters_of_the_whole_model_bit_for_bit(chains: Chains, name: str) -> None:
    equal(chains.trained(PLANS[name], 50), whole(MLP, 50))


def test_micro_batches_give_what_accumulating_over_the_same_chunks_gives(chains: Chains) -> None:
    module = MLP.make(0)[0].train()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for number in range(5):
        inputs, labels = batch(number)
        optimizer.zero_grad()
        for x, y in zip(torch.split(inputs, 5), torch.split(labels, 5), strict=True):
            (mean_loss(module(x), y) * (len(y) / len(labels))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    equal(chains.trained(PLANS["micro"], 5), expected)


def test_a_chain_answers_as_the_whole_model_does(chains: Chains) -> None:
    plan, module = PLANS["asked"], MLP.make(0)[0].eval()
    inputs = torch.cat([batch(number)[0] for number in range(4)])
    with chains.open(plan, own_of(plan)) as driver, torch.no_grad():
        expected = torch.cat([module(each) for each in torch.split(inputs, plan.micro_batch)])
        torch.testing.assert_close(driver.infer(inputs), expected, rtol=0, atol=0)


def test_cut_lines_change_nothing(chains: Chains) -> None:
    cuts = dict(enumerate(chains.lines.values(), start=3))

    def fault(number: int) -> None:
        if number in cuts:
            assert cuts[number]._open
            cuts[number].cut()

    equal(chains.trained(PLANS["u"], 8, fault), whole(MLP, 8))


@pytest.mark.soak
@pytest.mark.parametrize("ends", [(HOME, FIRST), (FIRST, LAST), (HOME, LAST)], ids="-".join)
def test_a_stalled_line_ends_in_a_plain_error_and_the_next_attempt_goes_well(
    chains: Chains, ends: tuple[str, str]
) -> None:
    line, run = chains.lines[ends], secrets.token_hex(8)
    before = len(chains.logged(FIRST, "chain-ended"))

    def stall(number: int) -> None:
        if number == 2:
            line.line = Line(dead=True)

    try:
        with pytest.raises(TransportError) as caught:
            chains.trained(PLANS["u"], 4, stall, run=run, deadline=1)
        assert len(caught.value.lines()) <= 2
        assert "\n" not in str(caught.value)
        until(lambda: len(chains.logged(FIRST, "chain-ended")) > before, "the holder gives up as well", 30)
    finally:
        line.line = GOOD
        line.cut()
    equal(chains.trained(PLANS["u"], 4, run=run, attempt=2), whole(MLP, 4))


def test_a_killed_holder_ends_the_chain_and_a_new_one_goes_on_from_the_round_before(chains: Chains) -> None:
    run, plan = secrets.token_hex(8), PLANS["u"]

    def kill(number: int) -> None:
        if number == 2:
            chains.served[LAST].kill()

    first = chains.trained(plan, 4, run=run)
    with pytest.raises(TransportError):
        chains.trained(plan, 4, kill, run=run, attempt=2, deadline=1)
    chains.serve(LAST)
    chains.served[LAST].says("listens on")
    own = own_of(plan)
    for stage in own.stages:
        stage.load({key: first[key] for key in stage.state()})
    with chains.open(plan, own, run=run, round=2) as driver:
        for number in range(4, 6):
            driver.step(*batch(number))
    found, expected = chains.state(plan, own, run, number=2), whole(MLP, 6)
    for key, value in expected.items():  # what was held of round 1 went through the grid of sums
        assert np.abs(np.asarray(found[key], float) - np.asarray(value, float)).max() < 1e-5


def test_a_plan_that_the_charter_does_not_list_is_refused_on_record(chains: Chains) -> None:
    with pytest.raises(RemoteRefusalError, match="none of the approved chains"):
        chains.trained(UNLISTED, 1)
    decision = chains.logged(FIRST, "channel-decision")[-1]
    assert (decision["allowed"], decision["facts"]["plan"]) == (False, UNLISTED.digest)


def test_nobody_is_measured_who_did_not_ask_for_it(chains: Chains) -> None:
    with pytest.raises(RemoteRefusalError, match="offers no service called measure"):
        chains.dialler.open(f"127.0.0.1:{chains.ports[FIRST]}", FIRST, kind=MEASURE)


def test_a_crossing_without_release_is_refused_at_both_ends(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyError, match="activations of alba would reach cork, and the plan has no release"):
        chains.open(PLANS["bare"], own_of(PLANS["bare"]), payer(PLANS["u"])).__enter__()
    monkeypatch.setattr(opening, "check_crossings", lambda _: None)  # as of a home that does not look
    with pytest.raises(RemoteRefusalError, match="activations of alba would reach cork"):
        chains.open(PLANS["bare"], own_of(PLANS["bare"]), payer(PLANS["u"])).__enter__()
    assert "would reach cork" in chains.logged(FIRST, "stage-refused")[-1]["reason"]


def test_noise_is_paid_for_before_and_stays_paid_when_the_chain_breaks(chains: Chains) -> None:
    plan, home = PLANS["noised"], chains.federation.folders[HOME]
    line = chains.lines[HOME, FIRST]

    def paid() -> Releaser:
        budget = Payer(home.ledger(), ASSET, PURPOSE, most_records=1, note_ledger=lambda: None)
        releaser = Releaser(plan, payer=budget, entropy=secrets.token_bytes, record=lambda _: None)
        releaser.pay(1)
        return releaser

    def asked_over_a_dead_line() -> None:
        with chains.open(plan, own_of(plan), paid(), deadline=1) as driver:
            line.line = Line(dead=True)
            driver.infer(batch(1)[0])

    with chains.open(plan, own_of(plan), paid()) as driver:
        assert driver.infer(batch(1)[0]).shape == (12, 3)
    try:
        with pytest.raises(TransportError):
            asked_over_a_dead_line()
    finally:
        line.line = GOOD
        line.cut()
    assert [debit.event.count for debit in home.ledger().debits(ASSET)] == [1, 1]
    with pytest.raises(BudgetExhaustedError, match="may leave for brno 2 times, and 2 are spent"):
        paid()


def test_a_pause_ends_what_is_at_work_and_lets_nothing_begin(chains: Chains) -> None:
    plan, folder = PLANS["u"], chains.federation.folders[FIRST]

    def pause(number: int) -> None:
        if number == 1:
            folder.pause(paused=True)
            until(lambda: len(chains.logged(FIRST, "stages-stopped")) > before, "the chain is over", 30)

    before = len(chains.logged(FIRST, "stages-stopped"))
    try:
        with pytest.raises(TransportError, match="this site is paused"):
            chains.trained(plan, 3, pause)
        with pytest.raises(RemoteRefusalError, match="this site is paused"):
            chains.trained(plan, 1)
    finally:
        folder.pause(paused=False)


def test_a_holder_that_is_told_to_stop_stops(chains: Chains) -> None:
    chains.served[LAST].signal(signal.SIGINT)
    assert chains.served[LAST].wait(30) == 0
    assert chains.served[LAST].text.endswith("stopped\n")
    chains.serve(LAST)
    chains.served[LAST].says("listens on")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_images_over_lines_that_are_cut_at_every_step_give_the_whole_model(tmp_path: Path) -> None:
    plans = {"u": plan_of(CNN, U), "micro": plan_of(CNN, U, micro_batch=5, in_flight=3)}
    with at_work(tmp_path / "north", CNN, "tests.clients.chain.holders:cnn", plans) as chains:
        lines = [*chains.lines.values()]
        equal(chains.trained(plans["u"], 50, lambda number: lines[number % 3].cut()), whole(CNN, 50))
        quiet = chains.trained(plans["micro"], 20)
        equal(chains.trained(plans["micro"], 20, lambda number: lines[number % 3].cut()), quiet)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("site", [FIRST, LAST])
@pytest.mark.parametrize("stopped", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], ids=lambda signal: signal.name)
@pytest.mark.parametrize("step", [0, 3])
def test_whatever_ends_a_holder_home_hears_of_it_in_time(
    chains: Chains, site: str, stopped: signal.Signals, step: int
) -> None:
    run, plan = secrets.token_hex(8), PLANS["micro"]
    began: list[float] = []

    def fault(number: int) -> None:
        if number == step:
            began.append(time.monotonic())
            chains.served[site].signal(stopped)

    with pytest.raises(TransportError):
        chains.trained(plan, 500, fault, run=run, deadline=3)
    assert time.monotonic() - began[0] < 3 + 10  # the deadline, and what closing may take
    chains.served[site].kill()
    chains.serve(site)
    chains.served[site].says("listens on")
    equal(chains.trained(plan, 4, run=run, attempt=2), chains.trained(plan, 4))
