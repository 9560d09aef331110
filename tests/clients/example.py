"""A small site for tests: records, a task, a privacy plan, and entropy that can be played back."""

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clients.records import Records
from clients.work import Site
from privacy.dp.events import FULL_BATCH, Sampling, SamplingType
from privacy.dp.mechanism import GRID
from privacy.dp.plan import RecordPlan
from strategies.algorithm import Algorithm
from strategies.contribution import Vector
from strategies.fed_avg import FedAvg
from strategies.task import Feature, ModelSpec, SiteId, Target, Task, Training

VA = SiteId("va")
N_INPUTS = 3
N_PARAMETERS = N_INPUTS + 1
"""Of the logistic model: weights, then the intercept."""


def records(n_records: int = 12, *, seed: int = 5, scale: float = 1.0) -> Records:
    noise = np.random.default_rng(seed)
    x = noise.normal(size=(n_records, N_INPUTS)) * scale
    y = noise.integers(0, 2, n_records)
    return Records(x.astype(np.float32), y.astype(np.float32))


def task(
    *,
    steps: int = 3,
    learning_rate: float = 0.5,
    batch: int = 0,
    optimizer: Literal["sgd", "adam"] = "sgd",
    model: ModelSpec | None = None,
) -> Task:
    features = tuple(Feature(f"x{place}", "continuous") for place in range(N_INPUTS))
    training = Training(rounds=5, local_steps=steps, learning_rate=learning_rate, batch=batch, optimizer=optimizer)
    return Task(features, Target("y"), model or ModelSpec("logistic"), training)


def plan(
    n_records: int = 12, *, rate: str = "1", clip: str = "0.7", noise: str = "2", steps: int = 3, attempts: int = 5
) -> RecordPlan:
    """A plan without calibration: what it costs is not what these tests are about."""
    sampling = FULL_BATCH if rate == "1" else Sampling(SamplingType.POISSON, Decimal(rate))
    return RecordPlan(
        clip=Decimal(clip),
        noise_multiplier=Decimal(noise),
        sampling=sampling,
        n_records=n_records,
        steps_per_attempt=steps,
        max_attempts=attempts,
        target=Decimal(1),
        delta=Decimal("0.001"),
    )


def site(
    *,
    algorithm: Algorithm[Any] | None = None,
    private: RecordPlan | None = None,
    seed: int = 1,
    data: Records | None = None,
    **settings: Any,
) -> Site:
    return Site(VA, task(**settings), algorithm or FedAvg(), seed, private, data or records())


def same_but(one: Site, **changes: Any) -> Site:
    return replace(one, **changes)


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


START = vector(0.3, -0.2, 0.1, 0.4)


class Keys:
    """Entropy that can be played back: a different key for every call, and a note of each.

    Attributes:
      drawn: Every key, in order.
    """

    def __init__(self, salt: str = "") -> None:
        self.drawn: list[bytes] = []
        self._salt = salt

    def __call__(self, n_bytes: int) -> bytes:
        key = sha256(f"{self._salt}|{len(self.drawn)}".encode()).digest()[:n_bytes]
        self.drawn.append(key)
        return key


def logistic_gradients(data: Records, parameters: NDArray[Any]) -> NDArray[np.float64]:
    """Closed form of every record's gradient, ``(sigmoid(w x + b) - y) (x, 1)``, shape ``(n, N_PARAMETERS)``."""
    inputs = np.hstack([data.x, np.ones((len(data), 1))]).astype(np.float64)
    probability = 1.0 / (1.0 + np.exp(-inputs @ np.asarray(parameters, dtype=np.float64)))
    return np.asarray((probability - data.y)[:, None] * inputs)


def clipped_sum(per_record: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """Every record's vector shortened to ``clip``, rounded toward zero on the grid, and summed; gradient units."""
    norms = np.sqrt((per_record**2).sum(axis=1, keepdims=True))
    clipped = per_record * np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    return np.asarray(np.trunc(clipped * GRID / clip).sum(axis=0) * clip / GRID)
