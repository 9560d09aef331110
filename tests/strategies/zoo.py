"""Small models of every kind that can be met, with example inputs: what analysis and cuts are tried on."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from simulations.bench.plan import Gpt

Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


def mlp() -> Made:
    layers = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    return layers, (torch.randn(6, 12),)


def cnn() -> Made:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 7 * 7, 10),
    ), (torch.randn(5, 1, 28, 28),)  # fmt: skip


class Residual(nn.Module):
    """Post-activation block; the last ReLU works in place, as in torchvision's."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 or before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out += x if self.short is None else self.short(x)
        kept: torch.Tensor = self.relu(out)
        return kept


def resnet() -> Made:
    widths = (4, 4, 8, 8, 16, 16, 16)
    blocks = [Residual(a, b, 2 if b > a else 1) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(*stem, *blocks, *head), (torch.randn(4, 3, 16, 16),)


class PreActivation(nn.Module):
    """Pre-activation block (He et al., 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 or before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.norm1(x))
        short = x if self.short is None else self.short(out)
        kept: torch.Tensor = self.conv2(functional.relu(self.norm2(self.conv1(out)))) + short
        return kept


class PreActResNet18(nn.Module):
    """Four stages of two blocks; an eighth of the usual width."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        widths = [width, *(width * 2**stage for stage in range(4) for _ in range(2))]
        strides = [1, 1, 2, 1, 2, 1, 2, 1]
        self.blocks = nn.Sequential(*(PreActivation(*w, s) for w, s in zip(pairwise(widths), strides, strict=True)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.blocks(self.stem(x))))
        out: torch.Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


def preact_resnet18() -> Made:
    return PreActResNet18(), (torch.randn(2, 3, 16, 16),)


def gpt() -> Made:
    return Gpt(40, 32, 4, 3, 8), (torch.randint(40, (3, 8)),)


def tied_gpt() -> Made:
    return Gpt(40, 32, 4, 3, 8, tied=True), (torch.randint(40, (3, 8)),)


class UNet(nn.Module):
    """One skip over the whole middle."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.up, self.leave = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = functional.relu(self.enter(x))
        up = self.up(functional.relu(self.down(skip)))
        out: torch.Tensor = self.last(functional.relu(self.leave(torch.cat([skip, up], 1))))
        return out


def unet() -> Made:
    return UNet(), (torch.randn(2, 1, 8, 8),)


class TwoInputs(nn.Module):
    """Two branches that join."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 8), nn.Linear(7, 8)
        self.join, self.last = nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([functional.relu(self.left(a)), functional.relu(self.right(b))], 1)
        out: torch.Tensor = self.last(functional.relu(self.join(joined)))
        return out


def two_inputs() -> Made:
    return TwoInputs(), (torch.randn(4, 5), torch.randn(4, 7))


class Encoder(nn.Module):
    """Torch's own encoder, which is one leaf: its code cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.encoder(self.enter(x)).mean(1))
        return out


def encoder() -> Made:
    return Encoder(), (torch.randn(3, 7, 6),)


class Lstm(nn.Module):
    """A recurrent layer, whose outputs are a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(5, 8, 2, batch_first=True)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every, _ = self.cells(x)
        out: torch.Tensor = self.last(every[:, -1])
        return out


def lstm() -> Made:
    return Lstm(), (torch.randn(4, 9, 5),)


_PREACT = [
    "stem",
    "add",
    "add_1",
    "blocks_2_norm1",
    "relu_4",
    "add_2",
    "add_3",
    "blocks_4_norm1",
    "relu_8",
    "add_4",
    "add_5",
    "blocks_6_norm1",
    "relu_12",
    "add_6",
    "add_7",
    "norm",
    "relu_16",
    "adaptive_avg_pool2d",
    "flatten",
]
_GPT = ["words", "add", *(f"add_{block}" for block in range(1, 7)), "norm"]

# With the cuts that each has. The design page's counts are the same for mlp, cnn, preact_resnet18, encoder, lstm, unet
# and two_inputs; in the resnet, a value that a ReLU changes in place cannot cross.
MODELS: dict[str, tuple[Callable[[], Made], list[str]]] = {
    "mlp": (mlp, ["_0", "_1", "_2", "_3"]),
    "cnn": (cnn, [f"_{layer}" for layer in range(7)]),
    "resnet": (resnet, ["_0", "_2", *(f"_{block}_relu_1" for block in range(3, 9)), "_9", "_10"]),
    "preact_resnet18": (preact_resnet18, _PREACT),
    "gpt": (gpt, _GPT),
    "tied_gpt": (tied_gpt, _GPT),
    "unet": (unet, ["enter", "relu", "cat", "leave", "relu_2"]),
    "two_inputs": (two_inputs, ["cat", "join", "relu_2"]),
    "encoder": (encoder, ["enter", "encoder", "mean"]),
    "lstm": (lstm, ["getitem_2"]),
}


def made(name: str) -> Made:
    """Builds a model of the zoo with the same weights and inputs every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return MODELS[name][0]()
