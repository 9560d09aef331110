"""A model whose training step takes long enough to be compared with an estimate, for ``--model``."""

import itertools

import torch
from torch import Tensor, nn

RECORDS, INPUTS, WIDTH, CLASSES = 128, 64, 768, 10


def mlp() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Five layers; always the same weights."""
    sizes = (INPUTS, WIDTH, WIDTH, WIDTH, WIDTH, CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), (torch.zeros(RECORDS, INPUTS),)
