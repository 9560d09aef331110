"""The agent of a cut model: its steps are the whole model's, its noise covers the ends, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pytest
import torch

from clients.agent import LocalWork
from clients.chain.agent import ChainAgent, Leg, OpenChain
from clients.chain.driver import ChainDriver
from clients.chain.home import Own
from clients.chain.in_process import in_process
from clients.chain.installed import Installed
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from clients.channel.session import ChannelClosedError
from clients.conformance import conform
from clients.records import Records
from clients.sites import site_of
from clients.work import contribute
from privacy.dp.noise import Entropy
from privacy.errors import ConfigError, RemoteProtocolError
from strategies.algorithm import LocalRule
from strategies.chain_plan import ChainPlan
from strategies.job import Job
from strategies.losses import record_losses
from strategies.models import build, load_vector
from tests.strategies.studied import SITES, job, study
from tests.strategies.test_chain_job import CUT, DEEP

ALBA = SITES[0]
ROWS = 24


def records(rows: int = ROWS) -> Records:
    drawn = np.random.default_rng(3)
    x = drawn.normal(size=(rows, study().task.n_inputs)).astype(np.float32)
    return Records(x, (x[:, 0] > 0).astype(np.float32))


@dataclass
class Near:
    """A holder in this process, which keeps what it ended with."""

    of: Job
    text: str = CUT
    asked: list[Leg] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def __call__(self, plan: ChainPlan, own: Own, leg: Leg, entropy: Entropy) -> Iterator[ChainDriver]:
        self.asked.append(leg)
        (spec,) = plan.held
        piece = Installed.of_study(study(self.text)).piece(spec, self.of.seed, train=True)
        held = Stage(piece, Learning(plan.optimizer, leg.learning_rate))
        releaser = Releaser(plan, payer=None, entropy=entropy, record=lambda _: None)
        releaser.pay(leg.steps)
        with in_process(plan, own, held, releaser) as driver:
            yield driver
        self.state = dict(held.state())


def cut(*privacy: str, text: str = CUT, **numbers: int) -> Job:
    parameters = {name: Decimal(value) for name, value in {"local_steps": 3, "batch": 0, **numbers}.items()}
    return job(of=study(text), privacy=privacy, parameters=parameters)


def work(**changes: Any) -> LocalWork:
    return LocalWork(**{"round_number": 2, "rule": LocalRule(), "drift": None, "entropy": bytes, **changes})


@pytest.mark.parametrize("batch", [0, 5])
@pytest.mark.parametrize("text", [CUT, CUT.replace('tail = "_3"', "").replace('"gradients"', '"labels"')])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_round_through_a_chain_is_the_whole_models_bit_for_bit(text: str, batch: int, optimizer: str) -> None:
    text += f'[agents.alba]\noptimizer = "{optimizer}"\n'
    chained = cut(text=text, batch=batch)
    near = Near(chained)
    site = site_of(chained, ALBA, records(), near)
    ends = site.agent.train(chained.initial_of(ALBA), work())
    whole = site_of(replace(chained, chain=None), ALBA, records()).agent.train(chained.initial, work())
    held = site.part.held
    np.testing.assert_array_equal(ends, whole[held])
    names = site.part.whole
    for name, array in near.state.items():
        np.testing.assert_array_equal(array, names.unflatten(whole)[name])
    assert near.asked == [Leg(2, 1, 3, 0.5, ROWS)]


def test_micro_batches_end_where_one_batch_ends_but_for_rounding() -> None:
    small = CUT.replace('tail = "_3"', 'tail = "_3"\nmicro_batch = 7')
    ends = [
        site_of(made, ALBA, records(), Near(made)).agent.train(made.initial_of(ALBA), work())
        for made in (cut(), cut(text=small))
    ]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)


def test_under_a_record_plan_the_ends_move_by_their_clipped_noisy_sum_and_the_piece_stands_still() -> None:
    private = cut("record", local_steps=1)
    near = Near(private)
    site = site_of(private, ALBA, records(), near)
    assert site.plan is not None
    mechanism, start = site.plan.mechanism, private.initial_of(ALBA)
    ends = site.agent.train(start, work(entropy=bytes))
    # The oracle: gradients of the whole model record by record, cut to the ends, clipped and summed by the plan.
    model = build(private.task.model, private.task.n_inputs, seed=0)
    load_vector(model, private.initial)
    rows = []
    for x, y in zip(records().x, records().y, strict=True):
        model.zero_grad()
        record_losses(model(torch.from_numpy(x[None])), torch.tensor([float(y)])).sum().backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad.reshape(-1) for parameter in model.parameters() if parameter.grad is not None]
        rows.append(torch.cat(found).double().numpy()[site.part.held])
    total = mechanism.constrain(np.array(rows))
    noisy = mechanism.add_noise(total, bytes) / site.plan.expected_batch
    np.testing.assert_allclose(ends, start - 0.5 * noisy.astype(np.float32), atol=1e-6)
    assert near.asked[0].learning_rate == 0
    for name, array in near.state.items():
        np.testing.assert_array_equal(array, site.part.whole.unflatten(private.initial)[name])


@pytest.mark.parametrize(("hidden", "arithmetic"), [(700, "integer_exact"), (2000, "float64")])
def test_the_size_of_the_ends_alone_decides_how_noise_is_drawn(hidden: int, arithmetic: str) -> None:
    text = CUT.replace("hidden = [4, 3, 2]", f"hidden = [{hidden}, 3, 2]")
    private = cut("record", text=text, local_steps=1)
    site = site_of(private, ALBA, records(), Near(private, text))
    assert site.plan is not None
    assert site.plan.arithmetic == arithmetic
    ends = site.agent.train(private.initial_of(ALBA), work(entropy=bytes))
    assert np.isfinite(ends).all()
    assert not np.array_equal(ends, private.initial_of(ALBA))


def test_a_rehearsal_shows_made_up_records_to_nobody_else() -> None:
    def never(*_: object) -> Any:
        raise AssertionError("a real chain was opened")

    site = site_of(cut("record"), ALBA, records(), cast("OpenChain", never))
    (found,) = conform(site, lambda size: np.random.default_rng().bytes(size))
    assert all(test.passed for test in found.tests), [test for test in found.tests if not test.passed]
    assert isinstance(site.agent, ChainAgent)


def test_a_chain_that_breaks_is_one_plain_refusal(caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def broken(*_: object) -> Iterator[ChainDriver]:
        raise ChannelClosedError("hub is gone: 10.0.0.1:443", told="hub is gone")
        yield

    site = site_of(cut(), ALBA, records(), cast("OpenChain", broken))
    with pytest.raises(RemoteProtocolError, match=r"the chain of alba broke: hub is gone$"):
        contribute(site, {"model": site.part.shared_of(site.initial)}, round_number=1)
    assert "10.0.0.1:443" in caplog.text


def test_what_an_agent_of_a_chain_does_not_do_is_refused() -> None:
    made = cut()
    site = site_of(made, ALBA, records(), Near(made))
    start = made.initial_of(ALBA)
    with pytest.raises(ConfigError, match="plain steps"):
        site.agent.train(start, work(rule=LocalRule(proximal=0.1)))
    with pytest.raises(ConfigError, match="only with its holder"):
        site_of(made, ALBA, records()).agent.train(start, work())
    agent = site_of(cut("record"), ALBA, records()).agent
    assert isinstance(agent, ChainAgent)
    with pytest.raises(ConfigError, match="other steps"):
        replace(agent, still=False)
    assert not isinstance(site_of(job(of=study(DEEP)), ALBA, records()).agent, ChainAgent)
