"""Scores of a model on test rows, with intervals: the experimenter's view, which no app ever sends."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clients.records import Records
from strategies.contribution import Vector
from strategies.models import build, load_vector
from strategies.task import Task

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Scorer:
    """Scores parameter vectors for one task."""

    task: Task

    def score(self, parameters: Vector, records: Records) -> float:
        """Returns accuracy at probability one half, or the area under the ROC curve, as the task says."""
        logits = self._logits(parameters, records)
        if self.task.metric == "auc":
            return float(roc_auc_score(records.y, logits))
        return float(((logits > 0) == (records.y > 0)).mean())

    def loss(self, parameters: Vector, records: Records) -> float:
        """Returns the mean cross-entropy in nats."""
        logits = torch.from_numpy(self._logits(parameters, records))
        return float(binary_cross_entropy_with_logits(logits, torch.from_numpy(records.y)))

    def interval(self, score: float, records: Records) -> tuple[float, float]:
        """Returns the 95 % interval of a score: Wilson for accuracy, Hanley and McNeil (1982) for the ROC area."""
        if self.task.metric == "auc":
            positives = int((records.y > 0).sum())
            return hanley_mcneil(score, positives, len(records.y) - positives)
        return wilson(score, len(records.y))

    def constant(self, positive: bool, records: Records) -> float:
        """Scores the guess that everybody is, or is not, positive."""
        if self.task.metric == "auc":
            return 0.5
        return float(((records.y > 0) == positive).mean())

    def _logits(self, parameters: Vector, records: Records) -> npt.NDArray[np.float32]:
        torch.set_num_threads(1)
        model: nn.Module = build(self.task.model, self.task.n_inputs, seed=0)
        load_vector(model, parameters)
        model.eval()
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = model(torch.from_numpy(records.x)).squeeze(1).numpy()
        return logits


def wilson(share: float, n: int) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval of a share of ``n`` trials (Wilson 1927)."""
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def hanley_mcneil(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """Returns the 95 % interval of an ROC area by Hanley and McNeil's standard error (Radiology 143, 1982)."""
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    half = _Z95 * math.sqrt(max(variance, 0.0) / (positives * negatives))
    return max(0.0, area - half), min(1.0, area + half)
