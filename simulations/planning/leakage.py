"""What would leak at each cut of a model: attacks on what crosses, on public or made-up records, before anybody trains.

Two parties can look. Whoever has the part behind the cut sees the activations and rebuilds inputs from them; whoever
has the part before it sees the gradients that come back and reads labels off them. Both attack records that they never
saw, with the model as it is before training and after one epoch. The pieces are those that would run.

Figures for these records and these attacks, not bounds. Somebody who has the front itself recognises every record that
is among its own, whatever the inverter makes of it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from clients.records import Records
from clients.training import Steps, plain_gradient, train
from privacy.attacks.cut import Array, cosine_auc, inverted, norm_auc, recognised
from privacy.errors import ConfigError
from simulations.planning.sample import Sample
from strategies.analysis import Analysis
from strategies.cuts import Cut, build, split
from strategies.losses import record_losses
from strategies.models import to_vector
from strategies.task import SiteId, Training

_OWN, _ATTACKED, _FEWEST = 1000, 500, 100
_PRODUCTS = 2e10  # of the inverter's kernel, and FLOPs of the model over its records: seconds a cut on one core
_EPOCH = 4  # times as many records to train on as the attacker has
_ROWS = 100  # through the model at once


@dataclass(frozen=True)
class Attacked:
    """What the attacks on one cut made of the records.

    Attributes:
      error: Mean squared error of the rebuilt inputs, in the units of the encoded inputs.
      recognised: How often a rebuilt record is nearest to the right one.
      norm_auc: Labels from the lengths of gradients, 0.5 to 1; ``None`` where no gradients come back.
      cosine_auc: Labels from their directions, by one known label.
    """

    error: float
    recognised: float
    norm_auc: float | None
    cosine_auc: float | None


@dataclass(frozen=True)
class CutLeakage:
    """A cut before training and after one epoch."""

    untrained: Attacked
    epoch: Attacked


@dataclass(frozen=True)
class Leakage:
    """What was measured, and on what.

    Attributes:
      provenance: Of the records.
      trained: Records that the epoch goes through.
      own: Records that the inverter learns from, the first of those.
      attacked: Others.
      guess: The error of somebody who sees nothing and guesses the mean record.
      cuts: By node.
    """

    provenance: str
    trained: int
    own: int
    attacked: int
    guess: float
    cuts: Mapping[str, CutLeakage]


def measure(
    analysis: Analysis,
    cuts: Sequence[Cut],
    sample: Sample,
    training: Training,
    *,
    gradients: bool,
    told: Callable[[str], None],
) -> Leakage:
    """Attacks every cut, before and after an epoch.

    Args:
      analysis: Of a model with weights; they are trained in place.
      cuts: At least one.
      sample: Public or made-up records.
      training: Optimiser, learning rate and batch of the epoch.
      gradients: Whether any come back, that is whether the model is to be trained.
      told: Hears what is being attacked.

    Raises: ConfigError: The model is too large to attack in seconds a cut, or cannot be trained.
    """
    own, attacked = _sizes(analysis, cuts, sample)
    known, secret = _first(sample.train, own), _first(sample.held_out, attacked)
    epoch = _first(sample.train, _EPOCH * own)
    model, was_training = analysis.trace.model, analysis.trace.model.training
    found: list[dict[str, Attacked]] = []
    try:
        for when in ("untrained", "after one epoch"):
            if found:
                told("training one epoch")
                _train(model, epoch, sample.shape, training)
            model.eval()  # a record's activations and gradients are then its own, norms and dropout included
            attacks = _Attacks(analysis, known, secret, sample.shape, gradients=gradients)
            found.append({})
            for cut in cuts:
                told(f"attacking the cut after {cut.node}, {when}")
                found[-1][cut.node] = attacks.on(cut)
    finally:
        model.train(was_training)
    guess = float(np.square(secret.x - known.x.mean(axis=0, dtype=np.float64)).mean())
    both = {cut.node: CutLeakage(found[0][cut.node], found[1][cut.node]) for cut in cuts}
    return Leakage(sample.provenance, len(epoch), own, attacked, guess, both)


class _Attacks:
    """The attacks on one state of a model."""

    def __init__(
        self, analysis: Analysis, known: Records, secret: Records, shape: tuple[int, ...], *, gradients: bool
    ) -> None:
        self._trace, self._gradients = analysis.trace, gradients
        self._known, self._secret, self._shape = known, secret, shape

    def on(self, cut: Cut) -> Attacked:
        # Tied parameters do not matter here: nothing is trained through the pieces.
        front, tail = (build(self._trace, piece) for piece in split(self._trace, (cut,), unsafe_shared=True))
        own = [_rows(front(x)) for x, _ in self._batches(self._known)]
        seen, back = [], []
        for x, y in self._batches(self._secret):
            crossing = front(x).detach().requires_grad_()
            seen.append(_rows(crossing))
            if self._gradients:
                (gradient,) = torch.autograd.grad(record_losses(tail(crossing), y).sum(), crossing)
                back.append(_rows(gradient))
        rebuilt = inverted(np.concatenate(own), self._known.x, np.concatenate(seen))
        norm, cosine = self._labels(np.concatenate(back)) if back else (None, None)
        return Attacked(
            error=float(np.square(rebuilt - self._secret.x).mean(dtype=np.float64)),
            recognised=recognised(rebuilt, self._secret.x),
            norm_auc=norm,
            cosine_auc=cosine,
        )

    def _labels(self, gradients: Array) -> tuple[float, float]:
        return norm_auc(gradients, self._secret.y), cosine_auc(gradients, self._secret.y)

    def _batches(self, records: Records) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y = torch.from_numpy(records.x).reshape(-1, *self._shape), torch.from_numpy(records.y)
        for start in range(0, len(y), _ROWS):
            yield x[start : start + _ROWS], y[start : start + _ROWS]


def _sizes(analysis: Analysis, cuts: Sequence[Cut], sample: Sample) -> tuple[int, int]:
    """Returns how many records the attacker has and how many are attacked, the same at every cut so that they compare.

    Raises: ConfigError: It would take too long, or too much memory.
    """
    inputs = analysis.input_items / analysis.records
    widest = max(inputs, *(cut.input_ratio * inputs for cut in cuts))
    possible = min(math.sqrt(_PRODUCTS / widest), _PRODUCTS * analysis.records / max(analysis.flops, 1))
    if possible < _FEWEST:
        raise ConfigError(
            "the model is too large to attack every cut within seconds",
            hint="Measure it with smaller inputs, or leave --leakage out.",
        )
    own = min(_OWN, int(possible), len(sample.train))
    return own, min(_ATTACKED, own, len(sample.held_out))


def _train(model: nn.Module, records: Records, shape: tuple[int, ...], training: Training) -> None:
    """Takes a model through its records once, by the code that sites run."""
    model.train()
    steps = -(-len(records) // training.batch)
    shaped = nn.Sequential(nn.Unflatten(1, shape), model)
    source = plain_gradient(records, training, site=SiteId("sample"), seed=0)
    train(shaped, to_vector(shaped), Steps(training, 0, steps), source)


def _rows(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().flatten(1).numpy(), np.float32)


def _first(records: Records, n: int) -> Records:
    return records.take(np.arange(min(n, len(records))))
