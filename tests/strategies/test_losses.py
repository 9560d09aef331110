"""Losses against torch's own and against the formula; what one record loses is no other's affair."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from strategies.losses import final, mean_loss, record_losses


def example(*shape: int) -> tuple[Tensor, Tensor]:
    """Logits, and float32 labels as a site has them."""
    draws = torch.Generator().manual_seed(4)
    n_labels = max(shape[-1], 2)
    labels = torch.randint(0, n_labels, shape[:1], generator=draws).float()
    return (3 * torch.randn(shape, generator=draws)).requires_grad_(), labels


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_two_classes_against_torch_and_the_formula() -> None:
    logits, labels = example(7, 1)
    expected = binary_cross_entropy_with_logits(logits[:, 0], labels, reduction="none")
    assert torch.equal(record_losses(logits, labels), expected)
    z, y = logits.detach().double().numpy()[:, 0], labels.numpy()
    np.testing.assert_allclose(expected.detach().numpy(), -np.log(np.where(y == 1, expit(z), expit(-z))), rtol=1e-5)


def test_more_classes_against_torch_and_the_formula() -> None:
    logits, labels = example(9, 4)
    found = record_losses(logits, labels)
    assert torch.equal(found, cross_entropy(logits, labels.long(), reduction="none"))
    by_hand = -log_softmax(logits.detach().double().numpy(), axis=1)[np.arange(9), labels.long().numpy()]
    np.testing.assert_allclose(found.detach().numpy(), by_hand, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 4])
def test_exits_count_alike(k: int) -> None:
    logits, labels = example(6, 3, k)
    of_each = torch.stack([record_losses(logits[:, e], labels) for e in range(3)], dim=1)
    torch.testing.assert_close(record_losses(logits, labels), of_each.sum(dim=1))
    torch.testing.assert_close(mean_loss(logits, labels), of_each.sum(dim=1).mean())
    assert record_losses(logits, labels).shape == (6,)


def test_of_two_exits_that_know_nothing_the_loss_is_twice_that_of_a_coin() -> None:
    """The sum of the exits, not their mean; docs/how-to-own-data.md says so."""
    assert mean_loss(torch.zeros(4, 2, 1), torch.zeros(4)).item() == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("n", [3, 7, 13, 199])
@pytest.mark.parametrize("k", [1, 4])
def test_the_mean_has_torchs_own_gradient_bit_for_bit(n: int, k: int) -> None:
    logits, labels = example(n, k)
    torchs = (
        binary_cross_entropy_with_logits(logits.squeeze(1), labels) if k == 1 else cross_entropy(logits, labels.long())
    )
    assert torch.equal(gradient(mean_loss(logits, labels), logits), gradient(torchs, logits))


@pytest.mark.parametrize("shape", [(5, 1), (5, 4), (5, 3, 1), (5, 3, 4)])
def test_a_record_moves_its_own_loss_only(shape: tuple[int, ...]) -> None:
    logits, labels = example(*shape)
    for row in range(5):
        moved = gradient(record_losses(logits, labels)[row], logits).flatten(1).abs().sum(dim=1)
        assert torch.equal(moved > 0, torch.arange(5) == row)


def test_final_is_the_last_exit() -> None:
    logits, _ = example(5, 3, 4)
    assert torch.equal(final(logits), logits[:, 2])
    one, _ = example(5, 4)
    assert final(one) is one


@pytest.mark.parametrize("k", [1, 4])
def test_no_records_lose_nothing(k: int) -> None:
    for shape in ((0, k), (0, 3, k)):
        assert record_losses(torch.zeros(shape), torch.zeros(0)).shape == (0,)
