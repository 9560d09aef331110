"""A record that nobody has: drawn from what a study declares about its features, or a drawn picture.

Every input of the model is put on a scale from 0 to 1, the ends of what its encoding can give. Symbols: ``n`` inputs.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clients.records import Records
from strategies.task import Feature, Task

Values = npt.NDArray[np.float64]

_NAME = 64  # longest that a report holds
_SMALLEST_PICTURE = 8
_PLACES = 4
_DEVIATIONS = 3.0  # how far an input goes here that has no declared end: scaled by a site's own deviation


@dataclass(frozen=True, eq=False)
class Scale:
    """Where a record's inputs can lie, by the public encoding alone.

    Attributes:
      names: One per input.
      low: Smallest encoded value, shape ``(n,)``.
      high: Largest.
      mean: Of a record that is drawn, encoded: what to guess without having seen anything.
      variance: Of a record that is drawn.
    """

    names: tuple[str, ...]
    low: Values
    high: Values
    mean: Values
    variance: Values

    @classmethod
    def of(cls, task: Task) -> "Scale":
        """Returns the scale of a task's records."""
        rows = [row for feature in task.features for row in _inputs(feature)]
        names, *columns = zip(*rows, strict=True)
        return cls(tuple(names), *(np.array(column, dtype=np.float64) for column in columns))

    def encoded(self, values: Values) -> Records:
        """Returns one record, of class 1, with these values between 0 and 1."""
        x = self.low + (self.high - self.low) * values
        return Records(x.astype(np.float32)[None], np.ones(1, np.float32))

    def values(self, x: Values) -> Values:
        """Returns encoded inputs as values, cut to the range from 0 to 1; 0 where only one value is possible."""
        width = self.high - self.low
        return np.clip((x - self.low) / np.where(width > 0, width, 1.0), 0.0, 1.0)


def drawn(task: Task, rng: np.random.Generator) -> Values:
    """Draws a record, each feature by itself and evenly over its range; shape ``(n,)``, between 0 and 1."""
    return np.concatenate([_drawn(feature, rng) for feature in task.features])


def picture_of(task: Task) -> tuple[int, int] | None:
    """Returns height and width if records are pictures, else ``None``.

    They are if the model says so, channels then one below the other, or if there are as many features as pixels in a
    square of at least 8 x 8, alike but for their names.
    """
    if task.model.image is not None:
        channels, height, width = task.model.image
        return channels * height, width
    first, side = task.features[0], math.isqrt(task.n_inputs)
    alike = all(replace(feature, name=first.name) == first for feature in task.features)
    square = side**2 == len(task.features) == task.n_inputs and side >= _SMALLEST_PICTURE
    return (side, side) if alike and square and first.kind == "continuous" else None


def glyph(height: int, width: int, rng: np.random.Generator) -> Values:
    """Draws a ring with a tail, a little off the middle; shape ``(height * width,)``, between 0 and 1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    right, down, slant = rng.uniform(-0.15, 0.15, size=3)
    ring = 1.0 - np.abs(np.hypot(x - right, y - down + 0.25) - 0.45) / 0.25
    tail = (1.0 - np.abs(x - right - 0.4 - slant * y) / 0.25) * (np.abs(y - down - 0.3) < 0.55)
    return np.asarray(np.clip(np.maximum(ring, tail), 0.0, 1.0).round(_PLACES).ravel(), np.float64)


def _inputs(feature: Feature) -> list[tuple[str, float, float, float, float]]:
    """Returns name, low, high, mean and variance of each input that a feature becomes; see `Feature`."""
    name = feature.name[:_NAME]
    if feature.kind == "binary":
        return [(name, -1.0, 1.0, 0.0, 1.0)]
    if feature.kind == "categorical":
        mean = 2.0 / len(feature.categories) - 1.0
        names = [f"{feature.name} = {category}"[:_NAME] for category in feature.categories[1:]]
        return [(each, -1.0, 1.0, mean, 1.0 - mean**2) for each in names]
    ends = (np.array([feature.low, feature.high]) - feature.centre) / feature.scale
    widest = feature.clamp if math.isfinite(feature.clamp) else _DEVIATIONS
    low, high = np.clip(ends, -widest, widest).tolist()
    return [(name, low, high, (low + high) / 2, (high - low) ** 2 / 12)]


def _drawn(feature: Feature, rng: np.random.Generator) -> Values:
    if feature.kind == "categorical":
        chosen = int(rng.integers(len(feature.categories)))
        return np.eye(len(feature.categories))[chosen, 1:]
    if feature.kind == "binary":
        return np.array([float(rng.integers(2))])
    return np.array([round(float(rng.uniform()), _PLACES)])
