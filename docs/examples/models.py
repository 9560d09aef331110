"""A model to plan with: a small CNN for pictures of 28 x 28 points. See docs/how-to-plan.md."""
# ruff: noqa: INP001 - a module that is named on the command line, not part of a package

import torch
from torch import nn


def cnn() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Returns the model and an example micro-batch: its shape and type count, its values do not."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, (torch.zeros(32, 1, 28, 28),)
