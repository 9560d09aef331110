"""A model in pieces over several agents is the model, bit for bit, in training and in answering."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from clients.chain.stage import Stage
from clients.clipping import Clipping
from clients.training import integer_sum
from privacy.dp.mechanism import ClippedSum
from strategies.chain_plan import Optimizer
from strategies.losses import mean_loss
from strategies.task import ModelSpec
from tests.clients.chain.rows import CNN, MLP, RATE, at_work, batches, model, plan_of

SHAPES = {
    "two stages": ("owner-pc", "owner-room"),
    "three stages": ("owner-pc", "owner-room", "owner-cellar"),
    "U": ("owner-pc", "owner-room", "owner-pc"),
    "U over two": ("owner-pc", "owner-room", "owner-cellar", "owner-pc"),
    "nothing at home": ("owner-room", "owner-cellar"),
    "all with one": ("owner-room",),
}
AT_HOME = [(MLP, "three stages"), (MLP, "U"), (CNN, "two stages"), (CNN, "U over two")]
"""With pieces at home."""
SOME = [(MLP, "two stages"), (MLP, "U over two"), (CNN, "three stages"), (CNN, "U")]
FEW = [*AT_HOME, (MLP, "two stages"), (CNN, "U"), (MLP, "nothing at home")]
REST = [
    pytest.param(spec, shape, marks=pytest.mark.soak)
    for spec in (MLP, CNN)
    for shape in SHAPES
    if (spec, shape) not in FEW
]


class Whole:
    """The oracle: the model in one process, by torch alone."""

    def __init__(self, spec: ModelSpec, made: Callable[..., torch.optim.Optimizer] = torch.optim.SGD) -> None:
        self.module = model(spec).train()
        self.optimizer = made(self.module.parameters(), lr=RATE)

    def step(self, x: Tensor, y: Tensor, micro_batch: int = 2**20) -> float:
        """Accumulates over chunks, each with its share of the mean."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for inputs, labels in zip(torch.split(x, micro_batch), torch.split(y, micro_batch), strict=True):
            loss = mean_loss(self.module(inputs), labels) * (len(labels) / len(y))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self.optimizer.step()
        return total


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert torch.equal(found[name], each), name


@pytest.mark.parametrize(("spec", "shape"), [*FEW, *REST])
def test_fifty_steps_give_the_whole_models_gradients_and_parameters_bit_for_bit(
    spec: ModelSpec, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, list[Tensor]] = {}

    def noting(stage: Stage) -> None:
        for name, each in stage.module.named_parameters():
            assert each.grad is not None
            found.setdefault(name, []).append(each.grad.clone())
        apply(stage)

    apply = Stage.apply
    monkeypatch.setattr(Stage, "apply", noting)
    whole, expected = Whole(spec), dict[str, list[Tensor]]()
    with at_work(plan_of(model(spec), SHAPES[shape]), model(spec)) as row:
        for x, y in batches(spec, 50):
            assert row.driver.step(x, y) == whole.step(x, y)
            for name, each in whole.module.named_parameters():
                assert each.grad is not None
                expected.setdefault(name, []).append(each.grad.clone())
    assert not row.errors
    same(row.parameters(), dict(whole.module.named_parameters()))
    same({name: torch.stack(each) for name, each in found.items()}, {n: torch.stack(e) for n, e in expected.items()})


@pytest.mark.parametrize("in_flight", [1, 3, pytest.param(64, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("spec", "shape"), [*FEW, *REST])
def test_micro_batches_are_accumulation_over_the_same_chunks_bit_for_bit(
    spec: ModelSpec, shape: str, in_flight: int
) -> None:
    whole = Whole(spec)
    plan = plan_of(model(spec), SHAPES[shape], micro_batch=5, in_flight=in_flight)
    with at_work(plan, model(spec)) as row:
        for x, y in batches(spec, 6, records=43):
            row.driver.step(x, y)
            whole.step(x, y, micro_batch=5)
    same(row.parameters(), dict(whole.module.named_parameters()))


@pytest.mark.parametrize("spec", [MLP, CNN])
def test_a_steps_gradients_of_micro_batches_are_close_to_those_of_one_batch(spec: ModelSpec) -> None:
    whole = Whole(spec)
    ((x, y),) = batches(spec, 1, records=64)
    with at_work(plan_of(model(spec), SHAPES["U"], micro_batch=16), model(spec)) as row:
        row.driver.accumulate(x, y)
        mean_loss(whole.module(x), y).backward()  # type: ignore[no-untyped-call]
        own = {name: each for stage in row.own.stages for name, each in stage.module.named_parameters()}
        expected = dict(whole.module.named_parameters())
        assert own
        for name, each in own.items():
            assert each.grad is not None
            torch.testing.assert_close(each.grad, expected[name].grad, rtol=0, atol=1e-5)
    whole.optimizer.step()
    for name, moved in row.parameters().items():
        if name not in own:  # one step of the optimiser, at the holder
            torch.testing.assert_close(moved, expected[name].detach(), rtol=0, atol=1e-5 * RATE + 1e-7)


@pytest.mark.parametrize(
    ("optimizer", "oracle"), [("adam", torch.optim.Adam), ("momentum", partial(torch.optim.SGD, momentum=0.9))]
)
def test_other_optimisers_keep_their_state_from_step_to_step(
    optimizer: Optimizer, oracle: Callable[..., torch.optim.Optimizer]
) -> None:
    whole = Whole(MLP, oracle)
    with at_work(plan_of(model(MLP), SHAPES["U"], optimizer=optimizer), model(MLP)) as row:
        for x, y in batches(MLP, 20):
            row.driver.step(x, y)
            whole.step(x, y)
    same(row.parameters(), dict(whole.module.named_parameters()))


@pytest.mark.parametrize("micro_batch", [7, pytest.param(2**20, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("spec", "shape"), [*FEW, *REST])
def test_answers_are_the_whole_models_bit_for_bit(spec: ModelSpec, shape: str, micro_batch: int) -> None:
    whole = model(spec).eval()
    with at_work(
        plan_of(model(spec), SHAPES[shape], train=False, micro_batch=micro_batch, in_flight=3), model(spec)
    ) as row:
        for x, _ in batches(spec, 3):
            found = row.driver.infer(x)
            with torch.no_grad():
                assert torch.equal(found, torch.cat([whole(chunk) for chunk in torch.split(x, micro_batch)]))
    same(row.parameters(), dict(whole.named_parameters()))


@pytest.mark.parametrize("micro_batch", [5, pytest.param(2**20, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("spec", "shape"), [*AT_HOME, *(pytest.param(*each, marks=pytest.mark.soak) for each in SOME)])
def test_clipped_sums_through_a_cut_are_the_uncut_models(spec: ModelSpec, shape: str, micro_batch: int) -> None:
    whole = dict((uncut := model(spec)).named_parameters())
    ((x, y),) = batches(spec, 1, records=23)
    with at_work(plan_of(uncut, SHAPES[shape], micro_batch=micro_batch), uncut) as row:
        driven = row.driver.per_record(x, y)
        names = [name.split(".", 1)[1] for name, _ in driven.model.named_parameters()]
        assert names == [name for stage in row.own.stages for name, _ in stage.module.named_parameters()]
        rows = []
        for record in range(len(x)):
            loss = mean_loss(uncut(x[record : record + 1]), y[record : record + 1])
            rows.append(
                torch.cat([each.flatten() for each in torch.autograd.grad(loss, [whole[n] for n in names])]).double()
            )
        norms = torch.stack(rows).norm(dim=1)
        clip = float(norms.median())  # some are clipped, some are not
        expected = (torch.stack(rows) * (clip * (1 - 2**-20) / norms).clamp(max=1.0)[:, None]).sum(0)
        found = Clipping(driven.model, driven.losses).sum(driven.batch[0], driven.batch[1], clip=clip).double()
        assert float((found - expected).norm() / expected.norm()) < 1e-6

        mechanism = ClippedSum(clip, 2**20)  # the integer path, with Opacus' gradients
        units = torch.from_numpy(integer_sum(driven.model, driven.losses, driven.batch, mechanism)) * clip / 2**20
        assert float((units - expected).norm() / expected.norm()) < 1e-3
