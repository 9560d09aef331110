"""A small site for tests: records, a task, a privacy plan, and entropy that can be played back."""

from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clients.agents import agent_of
from clients.records import Records
from clients.work import Site
from privacy.dp.events import FULL_BATCH, Sampling, SamplingType
from privacy.dp.mechanism import GRID
from privacy.dp.plan import RecordPlan, SumPlan
from strategies.algorithm import Algorithm
from strategies.contribution import Vector
from strategies.fed_avg import FedAvg
from strategies.models import build, layout_of, to_vector
from strategies.parts import AgentSpec
from strategies.regions import Plan
from strategies.sub_models import SubModel, keys, whole
from strategies.task import Feature, ModelSpec, SiteId, Target, Task, Training

VA = SiteId("va")
N_INPUTS = 3
N_PARAMETERS = N_INPUTS + 1
"""Of the logistic model: weights, then the intercept."""
MLP = ModelSpec("mlp", hidden=(4,), init="torch")
LAYOUT = layout_of(build(MLP, N_INPUTS, 0))
HEAD = keys(LAYOUT, ["*"], private=["2.*"])
"""Shares the first layer, 16 parameters, and keeps the head, 5, to itself."""


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
    name: str = VA,
    algorithm: Algorithm[Any] | None = None,
    private: RecordPlan | None = None,
    seed: int = 1,
    data: Records | None = None,
    part: SubModel | None = None,
    piece: ModelSpec | None = None,
    agent: AgentSpec | None = None,
    sum_plan: SumPlan | None = None,
    **settings: Any,
) -> Site:
    """A site that holds all of the task's model, unless ``part`` says otherwise, whose own model is then ``piece``."""
    what, held = task(**settings), data or records()
    spec = piece or what.model
    module = build(spec, N_INPUTS, seed)
    part = part or whole(layout_of(module))
    trainer = agent_of(
        agent or AgentSpec(),
        site=SiteId(name),
        model=spec,
        n_inputs=N_INPUTS,
        training=what.training,
        records=held,
        seed=seed,
        plan=private,
        part=part,
    )
    return Site(
        SiteId(name),
        what,
        algorithm or FedAvg(),
        seed,
        private,
        held,
        sum_plan,
        part=part,
        agent=trainer,
        initial=to_vector(module),
        weight=held.n_units,
    )


def by_itself(one: Site) -> Plan:
    """Returns the plan that knows of no other site."""
    return Plan(one.part.whole, {one.id: one.part})


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


def mlp_gradients(data: Records, parameters: NDArray[Any]) -> NDArray[np.float64]:
    """Backward pass by hand of every record through linear, ReLU, linear: shape ``(n, p)``, in torch's order."""
    n_hidden = (len(parameters) - 1) // (N_INPUTS + 2)
    x, p = data.x.astype(np.float64), np.asarray(parameters, dtype=np.float64)
    w1, b1, w2, b2 = np.split(p, np.cumsum([N_INPUTS * n_hidden, n_hidden, n_hidden]))
    before = x @ w1.reshape(n_hidden, N_INPUTS).T + b1
    hidden = np.maximum(before, 0.0)
    out = 1.0 / (1.0 + np.exp(-(hidden @ w2 + b2))) - data.y
    back = out[:, None] * w2 * (before > 0)
    first = (back[:, :, None] * x[:, None, :]).reshape(len(data), -1)
    return np.hstack([first, back, out[:, None] * hidden, out[:, None]])


def clipped_sum(per_record: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """Every record's vector shortened to ``clip``, rounded toward zero on the grid, and summed; gradient units."""
    norms = np.sqrt((per_record**2).sum(axis=1, keepdims=True))
    clipped = per_record * np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    return np.asarray(np.trunc(clipped * GRID / clip).sum(axis=0) * clip / GRID)
