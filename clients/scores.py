"""Scores of a model on test rows, with intervals: kept at a real site; in a simulation the experimenter sees them.

There is not always one: an area under the ROC curve takes records of both classes, and outputs that are numbers.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from clients.records import Records
from strategies.contribution import Vector
from strategies.losses import final, mean_loss, record_losses
from strategies.models import build, load_vector
from strategies.task import ModelSpec, Task

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Scorer:
    """Scores parameter vectors for one task.

    Attributes:
      model: What the vectors are parameters of; ``None``: the task's model.
    """

    task: Task
    model: ModelSpec | None = None

    def score(self, parameters: Vector, records: Records) -> float | None:
        """Returns accuracy of the likeliest class, or the area under the ROC curve, as the task says.

        ``None``: there is no such area, since the records have one class or an output is not finite.
        """
        return self._score(final(self._outputs(parameters, records)), records)

    def score_exit(self, parameters: Vector, records: Records, exit_index: int) -> float | None:
        """Returns the `score` of one exit of a model with exits, counted from 0."""
        return self._score(self._outputs(parameters, records)[:, exit_index], records)

    def loss(self, parameters: Vector, records: Records) -> float:
        """Returns the mean cross-entropy in nats, of the last exit where there are several."""
        return float(mean_loss(final(self._outputs(parameters, records)), torch.from_numpy(records.y)))

    def losses(self, parameters: Vector, records: Records) -> npt.NDArray[np.float64]:
        """Returns each record's cross-entropy in nats, of the last exit where there are several; shape ``(n,)``.

        In double precision: in single, the losses of records that a model is sure of would all be 0.
        """
        logits = final(self._outputs(parameters, records)).double()
        found: npt.NDArray[np.float64] = record_losses(logits, torch.from_numpy(records.y).double()).numpy()
        return found

    def judged(self, parameters: Vector, records: Records) -> tuple[float | None, npt.NDArray[np.float64]]:
        """Returns the `score`, and how likely the model finds each class of each record, shape ``(n, classes)``."""
        outputs = self._outputs(parameters, records)
        return self._score(final(outputs), records), probabilities(outputs)

    def score_probabilities(self, likely: npt.NDArray[np.float64], records: Records) -> float | None:
        """Returns the `score` of probabilities, shape ``(n, classes)``."""
        if self.task.metric == "auc":
            return _area(records, likely[:, 1])
        return float((likely.argmax(axis=1) == records.y).mean())

    def interval(self, score: float | None, records: Records) -> tuple[float, float] | None:
        """Returns the 95 % interval of a score, if any: Wilson for accuracy, Hanley and McNeil (1982) for the area."""
        if score is None:
            return None
        if self.task.metric == "auc":
            positives = int((records.y > 0).sum())
            return hanley_mcneil(score, positives, len(records.y) - positives)
        return wilson(score, len(records.y))

    def constant(self, label: float, records: Records) -> float:
        """Scores the guess that every record has this label."""
        if self.task.metric == "auc":
            return 0.5
        return float((records.y == label).mean())

    def _score(self, logits: torch.Tensor, records: Records) -> float | None:
        if self.task.metric == "auc":
            return _area(records, logits.squeeze(1).numpy())
        likeliest = logits.squeeze(1) > 0 if logits.shape[1] == 1 else logits.argmax(dim=1)
        return float((likeliest.numpy() == records.y).mean())

    def _outputs(self, parameters: Vector, records: Records) -> torch.Tensor:
        torch.set_num_threads(1)
        model = build(self.model or self.task.model, self.task.n_inputs, seed=0)
        load_vector(model, parameters)
        model.eval()
        with torch.no_grad():
            outputs: torch.Tensor = model(torch.from_numpy(records.x))
        return outputs


def mean_known(scores: Iterable[float | None]) -> float | None:
    """Returns the mean of the scores that there are; ``None``: there is none."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def _area(records: Records, outputs: npt.NDArray[np.floating[Any]]) -> float | None:
    if not (np.isfinite(outputs).all() and {*np.unique(records.y)} == {0.0, 1.0}):
        return None
    return float(roc_auc_score(records.y, outputs))


def probabilities(outputs: torch.Tensor) -> npt.NDArray[np.float64]:
    """Returns softmax of logits in double precision, shape ``(n, classes)``; one logit stands for two classes."""
    logits = final(outputs).double()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    found: npt.NDArray[np.float64] = torch.softmax(logits, dim=1).numpy()
    return found


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
