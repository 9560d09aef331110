"""What is learnt: features with public constants, target, model and training settings, parsed once to frozen values.

Everything here is public and fixed before any private row is read. A feature's encoding is a function of one record
and of these constants alone (privacy-audit corrections, 1): scaling a record by its neighbours would break the
sensitivity that per-record clipping promises.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NewType

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
    """The label column; a record is positive when its value is greater than ``threshold``."""

    name: str
    threshold: float = 0.0


@dataclass(frozen=True)
class ModelSpec:
    """A model by name: ``logistic`` or ``mlp`` (one hidden layer, ReLU). One logit out."""

    kind: Literal["logistic", "mlp"]
    hidden: int = 0
    init: Literal["zero", "torch"] = "zero"


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
