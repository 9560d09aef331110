"""Training code of one's own for a site: logistic regression in numpy. See docs/sub-models.md."""
# ruff: noqa: INP001 - an example to copy, not part of a package

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from clients.agent import LocalWork
from clients.records import Records
from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.task import Training


@dataclass(frozen=True, eq=False)
class NumpyAgent:
    """Full-batch logistic regression; ``records`` are secret and stay here."""

    offers: ClassVar[frozenset[str]] = frozenset({"none", "site", "distributed"})
    plan: ClassVar[None] = None  # it adds no noise in its steps, so it cannot serve `record`
    training: Training
    records: Records = field(repr=False)

    def train(self, start: Vector, work: LocalWork) -> Vector:
        """Takes ``local_steps`` steps from ``start``: the weights, then the intercept. See `clients.agent.Agent`."""
        if work.rule.proximal or work.rule.control:
            raise ConfigError("this agent takes plain steps only", hint="Choose --strategy fedavg.")
        x, y, theta = self.records.x.astype(np.float64), self.records.y, start.astype(np.float64)
        for _ in range(self.training.local_steps):
            error = 1 / (1 + np.exp(-(x @ theta[:-1] + theta[-1]))) - y
            theta -= self.training.learning_rate * np.append(error @ x, error.sum()) / len(y)
        return theta.astype(np.float32)
