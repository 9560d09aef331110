"""Record-level privacy of every kind of model that a task can name: gradients against Opacus and autograd."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.clipping import Clipping
from clients.training import check_private_model, integer_sum, opacus_model, per_record_gradients
from privacy.dp.mechanism import GRID
from strategies.losses import record_losses
from strategies.models import build
from strategies.task import ModelSpec
from tests.clients.example import plan

CNN = ModelSpec("cnn", (4, 8), "torch", image=(1, 6, 5), outputs=3)
SPECS = {
    "logistic, three classes": ModelSpec("logistic", outputs=3),
    "deep mlp": ModelSpec("mlp", (6, 5), "torch"),
    "mlp with exits": ModelSpec("mlp", (6, 5), "torch", exits=True),
    "mlp with exits, three classes": ModelSpec("mlp", (6, 5), "torch", exits=True, outputs=3),
    "cnn": CNN,
    "cnn with exits": replace(CNN, exits=True),
}
N_INPUTS = 30


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def example(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    spec, draws = SPECS[name], torch.Generator().manual_seed(2)
    labels = torch.randint(0, max(2, spec.outputs), (11,), generator=draws).float()
    return build(spec, N_INPUTS, seed=4), torch.randn(11, N_INPUTS, generator=draws), labels


def of_opacus(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Shape ``(b, d)``."""
    wrapped = opacus_model(copy.deepcopy(model))
    found = per_record_gradients(wrapped, record_losses, inputs, labels)
    return torch.cat([each.flatten(1) for each in found], dim=1).double()


def of_autograd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Shape ``(b, d)``, float64, a record at a time."""
    double = copy.deepcopy(model).double()
    rows = []
    for x, y in zip(inputs.double()[:, None], labels.double()[:, None], strict=True):
        gradients = torch.autograd.grad(record_losses(double(x), y).sum(), list(double.parameters()))
        rows.append(torch.cat([each.flatten() for each in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", SPECS)
def test_opacus_gives_each_records_gradient(name: str) -> None:
    """The integer path takes its gradients from there."""
    torch.testing.assert_close(of_opacus(*example(name)), of_autograd(*example(name)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", [None, [3, 1, 7]], ids=["records", "patients"])
@pytest.mark.parametrize("name", SPECS)
def test_the_float_path_clips_what_opacus_gives(name: str, sizes: list[int] | None) -> None:
    model, inputs, labels = example(name)
    units = of_opacus(model, inputs, labels)
    if sizes is not None:
        units = torch.stack([part.sum(0) for part in units.split_with_sizes(sizes)])
    norms = units.norm(dim=1)
    for clip in (float(norms.median()), 1e-3, 1e3):
        expected = (units * (clip / norms).clamp(max=1.0)[:, None]).sum(0)
        found = Clipping(model, record_losses).sum(inputs, labels, clip=clip, sizes=sizes).double()
        assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


@pytest.mark.parametrize("name", SPECS)
def test_both_paths_agree_and_no_record_is_longer_than_the_clip(name: str) -> None:
    model, inputs, labels = example(name)
    mechanism = plan(clip="0.3").mechanism
    units = integer_sum(model, record_losses, (inputs, labels, None), mechanism)
    floating = Clipping(model, record_losses).sum(inputs, labels, clip=0.3)
    np.testing.assert_allclose(units * (0.3 / GRID), floating.numpy(), atol=11 * 2 * 0.3 / GRID)
    for row in range(3):
        one = integer_sum(model, record_losses, (inputs[row : row + 1], labels[row : row + 1], None), mechanism)
        assert sum(int(unit) ** 2 for unit in one) <= GRID**2


@pytest.mark.parametrize("name", SPECS)
def test_no_layer_mixes_records(name: str) -> None:
    model, inputs, labels = example(name)
    check_private_model(model)
    outputs = model(inputs)
    changed = inputs.clone()
    changed[0] += 1.0
    torch.testing.assert_close(model(changed)[1:], outputs[1:], rtol=0, atol=0)
    assert record_losses(outputs, labels).shape == (11,)
