"""What is learnt: features with public constants, target, model and training settings, parsed once to frozen values.

Everything here is public and fixed before any private row is read. A feature's encoding is a function of one record
and of these constants alone (docs/privacy-rules.md, 1): scaling a record by its neighbours would break the
sensitivity that per-record clipping promises.
"""

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NewType

from privacy.errors import ConfigError

GROUP = 4
"""Channels that a ``cnn`` normalises together; fixed, so that a narrower one has some of the same groups."""

_MOST_WEIGHTS = 2**31

SiteId = NewType("SiteId", str)


@dataclass(frozen=True)
class Feature:
    """One input column and its encoding; every field is public.

    A ``continuous`` column becomes one value ``clamp((v - centre) / scale, -clamp, clamp)``; a ``binary`` one
    becomes -1 or 1; a ``categorical`` one becomes one value of -1 or 1 per entry of ``categories`` after the first.

    Attributes:
      low: Smallest value the public range admits (continuous only).
      high: Largest value the public range admits (continuous only).
      missing: Values that mean "not measured"; they are encoded as 0, the neutral value.
    """

    name: str
    kind: Literal["continuous", "binary", "categorical"]
    low: float = 0.0
    high: float = 1.0
    centre: float = 0.5
    scale: float = 0.5
    clamp: float = 3.0
    categories: tuple[float | str, ...] = ()
    missing: tuple[float | str, ...] = ()

    @property
    def width(self) -> int:
        """Number of model inputs this column becomes."""
        return len(self.categories) - 1 if self.kind == "categorical" else 1


@dataclass(frozen=True)
class Target:
    """The label column.

    Attributes:
      threshold: Of two classes: a record is positive when its value is greater.
      classes: More than two: the value is the class itself, a whole number from 0 to ``classes - 1``.
    """

    name: str
    threshold: float = 0.0
    classes: int = 2


@dataclass(frozen=True)
class ModelSpec:
    """A model by name: ``logistic``, ``mlp`` (hidden layers, each with ReLU) or ``cnn`` (convolutional blocks).

    Attributes:
      hidden: Units of each hidden layer, or channels of each block.
      exits: Whether every hidden layer or block has a head of its own, so that the first few are a model too.
      image: Channels, height and width that a record's inputs are, row by row (``cnn`` only).
      outputs: Logits: one for two classes, else one for each class.
    """

    kind: Literal["logistic", "mlp", "cnn"]
    hidden: tuple[int, ...] = ()
    init: Literal["zero", "torch"] = "zero"
    exits: bool = False
    image: tuple[int, int, int] | None = None
    outputs: int = 1

    def check(self, n_inputs: int) -> None:
        """Says whether there is such a model for records with this many inputs.

        Raises: ConfigError: There is none, or only one that cannot learn.
        """
        if n_inputs < 1 or self.outputs < 1:
            raise ConfigError(
                f"a model with {n_inputs} inputs and {self.outputs} outputs", hint="Declare at least one feature."
            )
        if self.kind == "logistic" and (self.hidden or self.exits):
            raise ConfigError("a logistic model has no hidden layer", hint="Leave hidden away, or set kind to mlp.")
        if self.kind != "logistic" and (not self.hidden or min(self.hidden) < 1):
            raise ConfigError(
                f"a model of kind {self.kind} with hidden sizes {list(self.hidden)}",
                hint="Give at least one, each at least 1.",
            )
        if self.kind != "logistic" and self.init == "zero":
            raise ConfigError(
                f"a model of kind {self.kind} cannot start at zero: its hidden units would stay equal for ever",
                hint='Set init to "torch".',
            )
        if (self.image is None) is (self.kind == "cnn"):
            raise ConfigError("a model of kind cnn has an image, and no other has", hint="Give image to a cnn only.")
        if self.image is not None:
            self._check_image(self.image, n_inputs)
        weights = sum(a * b for a, b in pairwise((n_inputs, *self.hidden, self.outputs)))
        if weights > _MOST_WEIGHTS:
            raise ConfigError("a model of more weights than any machine here holds", hint="Give smaller hidden sizes.")

    def part(self, width: float = 1.0, depth: int = 0) -> "ModelSpec":
        """Returns a smaller model whose parameters are leading slices of this one's.

        Args:
          width: Share of every hidden size, in (0, 1]; each must come out whole.
          depth: How many of the hidden layers or blocks, from the input; 0: all. Fewer than all need exits.

        Raises: ConfigError: There is no such part.
        """
        if not 0 < width <= 1:
            raise ConfigError(f"a part of width {width:g}", hint="Choose a share above 0 and at most 1.")
        if not 0 <= depth <= len(self.hidden):
            raise ConfigError(
                f"a part of depth {depth}, and the model has {len(self.hidden)} hidden layers or blocks",
                hint="Choose from 1 to that number, or 0 for all.",
            )
        if 0 < depth < len(self.hidden) and not self.exits:
            raise ConfigError("only a model with exits has parts of less depth", hint="Set exits = true in the model.")
        if width < 1 and not self.hidden:
            raise ConfigError(
                f"a {self.kind} model has no hidden size to narrow", hint="Use a model of kind mlp or cnn."
            )
        # Through the shortest decimal: 0.07 of 100 is 7, which is not what the nearest binary fraction gives.
        sizes = [Fraction(repr(width)) * size for size in self.hidden[: depth or None]]
        unit, wanted = (GROUP, f"multiples of {GROUP}") if self.kind == "cnn" else (1, "whole numbers")
        if any(size % unit for size in sizes):
            raise ConfigError(
                f"width {width:g} of hidden sizes {list(self.hidden)} does not give {wanted}",
                hint="Choose a share such as 0.5 or 0.25, or other hidden sizes.",
            )
        return replace(self, hidden=tuple(int(size) for size in sizes))

    def _check_image(self, image: tuple[int, int, int], n_inputs: int) -> None:
        shape = " x ".join(str(extent) for extent in image)
        if min(image) < 1 or math.prod(image) != n_inputs:
            raise ConfigError(
                f"an image of {shape} values, and the features give {n_inputs}",
                hint="image = [channels, height, width], one feature for every value.",
            )
        if any(size % GROUP for size in self.hidden):
            raise ConfigError(
                f"channels {list(self.hidden)}: {GROUP} at a time are normalised together",
                hint=f"Choose multiples of {GROUP}.",
            )
        if min(image[1:]) >> (len(self.hidden) - 1) < 1:
            raise ConfigError(
                f"{len(self.hidden)} blocks are too many for an image of {shape}: each but the first halves it",
                hint="List fewer channels.",
            )


@dataclass(frozen=True)
class Reference:
    """How the models of one site alone and of all rows pooled train, where that differs from the federated rule."""

    epochs: int
    learning_rate: float
    batch: int = 0
    optimizer: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True)
class Training:
    """Public training settings; ``batch`` 0 means all records in one batch.

    Attributes:
      clip: Largest norm of one record's gradient, under record-level privacy.
      update_clip: Largest norm of one site's update, under site-level privacy.
      reference: ``None``: models to compare with take ``rounds * local_steps`` steps of the rule given here.
    """

    rounds: int
    local_steps: int
    learning_rate: float
    batch: int = 0
    clip: float = 1.0
    update_clip: float = 1.0
    retries: int = 2
    optimizer: Literal["sgd", "adam"] = "sgd"
    reference: Reference | None = None


@dataclass(frozen=True)
class Task:
    """Features, target, model and settings: what every party agrees on before the first round.

    Attributes:
      strategy_settings: Per algorithm, its settings; ``learning_rate`` there is the sites' (see `training_for`).
      scaling: ``public``: constants of the features. ``own``: each site's own mean and deviation, categories as 0 or
        1; not a function of one record, hence never under record-level privacy.
      patient: Column whose values tell patients apart, and never leave a site; empty: every record is a patient.
    """

    features: tuple[Feature, ...]
    target: Target
    model: ModelSpec
    training: Training
    metric: Literal["accuracy", "auc"] = "accuracy"
    strategy_settings: dict[str, dict[str, float]] = field(default_factory=dict)
    scaling: Literal["public", "own"] = "public"
    patient: str = ""

    @property
    def n_inputs(self) -> int:
        """Width of the encoded record."""
        return sum(feature.width for feature in self.features)

    def training_for(self, strategy: str) -> Training:
        """Returns the training settings under an algorithm: its own ``learning_rate`` where the task gives one."""
        rate = self.strategy_settings.get(strategy, {}).get("learning_rate", self.training.learning_rate)
        return replace(self.training, learning_rate=rate)

    def settings_for(self, strategy: str) -> dict[str, float]:
        """Returns the settings that the algorithm itself takes."""
        given = self.strategy_settings.get(strategy, {})
        return {key: value for key, value in given.items() if key != "learning_rate"}
