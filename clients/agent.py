"""Somebody's training code at a site, and ours: torch, with noise in every step where a plan asks for it.

Symbols: ``p`` parameters of the piece, the model that the agent trains.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from clients.records import Records
from clients.training import Steps, plain_gradient, private_gradient, train
from privacy.dp.noise import Entropy
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError
from strategies.algorithm import LocalRule
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.models import build, layout_of
from strategies.task import ModelSpec, SiteId, Training


@dataclass(frozen=True, eq=False)
class LocalWork:
    """What an attempt of a round asks of an agent.

    Attributes:
      round_number: From 1; fixes which batches come next.
      attempt: Of the round, from 1.
      rule: How steps differ from plain gradient descent.
      drift: Scaffold's ``c - c_i``, shape ``(p,)``, 0 where there is no control variate. Secret.
      entropy: Randomness of noise and sampling.
    """

    round_number: int
    rule: LocalRule
    drift: Vector | None = field(repr=False)
    entropy: Entropy
    attempt: int = 1


class Agent(Protocol):
    """Training code of one site: from the piece's parameters to new ones. It sees the records, and keeps no state.

    Attributes:
      offers: Privacy settings that it can serve, of ``none``, ``record``, ``site`` and ``distributed``.
    """

    offers: ClassVar[frozenset[str]]

    @property
    def training(self) -> Training:
        """The settings it trains by, this site's own among them; public."""

    @property
    def plan(self) -> RecordPlan | None:
        """The noise that it adds in every step, or ``None`` for none; public."""

    def train(self, start: Vector, work: LocalWork) -> Vector:
        """Trains for one round.

        Args:
          start: Parameters of the piece, shape ``(p,)``.
          work: What is asked.

        Returns: The new ones, shape ``(p,)``, float32. Secret, but for what ``plan`` makes private.
        Raises: ConfigError: It cannot do what is asked.
        """


@dataclass(frozen=True, eq=False)
class TorchAgent:
    """Our own training code. With a plan, everything that is trained shares one clip and one noise, private heads too.

    So the trap of a head trained without noise beside a body trained with it, whose gradients depend on the head,
    cannot be built. What is frozen has no gradient, hence no part in the norm that is clipped and no noise.

    Attributes:
      model: The piece.
      training: With the site's own settings in place.
      records: Training records. Secret.
      seed: Orders batches where there is no plan; noise never depends on it.
      frozen: Which coordinates of the piece are not trained, shape ``(p,)``; ``None``: all are.

    Raises:
      ConfigError: A parameter that is frozen in part, or a plan that pays for another number of steps.
      ValueError: ``frozen`` of another length: the caller's bug.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"none", "record", "site", "distributed"})
    site: SiteId
    model: ModelSpec
    n_inputs: int
    training: Training
    records: Records = field(repr=False)
    seed: int
    plan: RecordPlan | None = None
    frozen: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.plan is not None and self.plan.steps_per_attempt != self.training.local_steps:
            raise ConfigError(
                f"{self.site} takes {self.training.local_steps} steps a round,"
                f" and its privacy plan pays for {self.plan.steps_per_attempt}"
            )
        self._module()

    def train(self, start: Vector, work: LocalWork) -> Vector:
        """Takes ``local_steps`` steps. See `Agent.train`."""
        training, drift = self.training, work.drift
        if drift is not None and self.frozen is not None:
            drift = drift[~self.frozen]
        first = (work.round_number - 1) * training.local_steps
        steps = Steps(training, first, training.local_steps, work.rule.proximal, drift)
        if self.plan is None:
            gradient = plain_gradient(self.records, training, site=self.site, seed=self.seed)
        else:
            gradient = private_gradient(self.records, self.plan, entropy=work.entropy)
        return train(self._module(), start, steps, gradient)

    def _module(self) -> nn.Module:
        """Builds the piece; its values do not matter, they are loaded before every round."""
        module = build(self.model, self.n_inputs, seed=0)
        if self.frozen is not None:
            trained = _trained_parameters(layout_of(module), self.frozen)
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in trained)
        return module


def _trained_parameters(layout: Layout, frozen: npt.NDArray[np.bool_]) -> frozenset[str]:
    if frozen.shape != (layout.size,):
        raise ValueError(f"frozen is of shape {frozen.shape}, not ({layout.size},)")
    masks = dict(zip(layout.names, np.split(frozen, layout.offsets[1:]), strict=True))
    mixed = [name for name, mask in masks.items() if mask.any() != mask.all()]
    if mixed:
        raise ConfigError(f"only a whole parameter can be frozen, and of {mixed[0]!r} some entries are trained")
    return frozenset(name for name, mask in masks.items() if not mask.any())
