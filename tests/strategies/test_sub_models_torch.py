"""A part's window is a model: it computes what the whole computes when everything outside of the window is zero."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.sub_models import by_shape

SIDE = 4  # images are SIDE x SIDE, so each channel becomes 16 features of the flattened vector


class Net(nn.Module):
    """Convolutions, a residual one, group norm with 4 channels a group, channel-major flatten, linear layers."""

    def __init__(self, first: int, second: int, hidden: int, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.residual = nn.Conv2d(second, second, 3, padding=1)
        self.norm: nn.Module = nn.GroupNorm(second // 4, second) if norm else nn.Identity()
        self.linear = nn.Linear(second * SIDE * SIDE, hidden)
        self.head = nn.Linear(hidden, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.conv2(self.conv1(images).relu()).relu()
        found = (found + self.norm(self.residual(found))).relu()
        out: torch.Tensor = self.head(self.linear(found.flatten(1)).relu())
        return out


def layout_of(net: nn.Module) -> Layout:
    named = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    return Layout(tuple(named), tuple(named.values()))


def output(net: nn.Module, parameters: Vector, images: torch.Tensor) -> torch.Tensor:
    cut = layout_of(net).unflatten(parameters)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in cut.items()})
    with torch.no_grad():
        out: torch.Tensor = net.double()(images)
    return out


def windows(first: int, second: int, hidden: int, *, feature: int) -> dict[str, tuple[int, ...]]:
    """Returns where each tensor's window starts if the three groups of channels are rolled that far."""
    starts = (0, first, second, hidden, 0)
    (conv1, conv2, linear, head) = pairwise(starts)
    return {
        "conv1.weight": (conv1[1], 0, 0, 0), "conv1.bias": (conv1[1],),
        "conv2.weight": (conv2[1], conv2[0], 0, 0), "conv2.bias": (conv2[1],),
        "residual.weight": (second, second, 0, 0), "residual.bias": (second,),
        "norm.weight": (second,), "norm.bias": (second,),
        "linear.weight": (linear[1], feature), "linear.bias": (linear[1],),
        "head.weight": (head[1], head[0]), "head.bias": (0,),
    }  # fmt: skip


def difference(start: dict[str, tuple[int, ...]], *, norm: bool, seed: int = 1) -> float:
    """Returns how far the piece's output lies from that of the whole with zeros outside of the window, at most."""
    rng = np.random.default_rng(seed)
    big, small = Net(12, 16, 10, norm=norm), Net(8, 8, 6, norm=norm)
    layout = layout_of(big)
    given = {name: at for name, at in start.items() if name in layout.names}
    part = by_shape(layout, layout_of(small), start=given)
    values = rng.standard_normal(layout.size, np.float32)
    rest = np.zeros(layout.size, np.float32)
    rest[part.held] = values[part.held]
    piece = part.piece_of(values[part.held], np.full(part.piece.size, np.nan, np.float32), None)
    images = torch.from_numpy(rng.standard_normal((5, 1, SIDE, SIDE)))
    expected = output(big, rest, images)
    assert expected.abs().max() > 1.0
    return float(((output(small, piece, images) - expected).abs().max() / expected.abs().max()).item())


@pytest.mark.parametrize("norm", [False, True])
def test_leading_slices_agree_from_layer_to_layer(*, norm: bool) -> None:
    assert difference({}, norm=norm) < 1e-12


@pytest.mark.parametrize("rolled", [(1, 4, 2), (11, 12, 9), (7, 8, 5)])
@pytest.mark.parametrize("norm", [False, True])
def test_rolled_windows_agree_from_layer_to_layer(rolled: tuple[int, int, int], *, norm: bool) -> None:
    assert difference(windows(*rolled, feature=rolled[1] * SIDE * SIDE), norm=norm) < 1e-12


def test_rolled_windows_that_do_not_follow_the_flatten_compute_something_else() -> None:
    assert difference(windows(1, 4, 2, feature=4), norm=False) > 1e-3
    assert difference({"conv1.weight": (1, 0, 0, 0), "conv1.bias": (1,)}, norm=False) > 1e-3


def test_gradients_of_a_slice_are_the_wholes_at_its_places() -> None:
    """One step of the piece moves the shared coordinates as one step of the zeroed whole moves them."""
    rng = np.random.default_rng(2)
    big, small = Net(12, 16, 10, norm=False), Net(8, 8, 6, norm=False)
    part = by_shape(layout_of(big), layout_of(small))
    values = np.zeros(part.whole.size, np.float32)
    values[part.held] = rng.standard_normal(part.held.size, np.float32)
    images = torch.from_numpy(rng.standard_normal((5, 1, SIDE, SIDE)))
    flat = {}
    for net, vector in (
        (big, values),
        (small, part.piece_of(values[part.held], np.zeros(part.piece.size, np.float32), None)),
    ):
        output(net, vector, images)
        net(images).square().sum().backward()
        flat[net] = np.concatenate([np.asarray(p.grad, np.float32).reshape(-1) for p in net.parameters()])
    np.testing.assert_allclose(part.shared_of(flat[small]), flat[big][part.held], rtol=1e-5, atol=1e-5)
