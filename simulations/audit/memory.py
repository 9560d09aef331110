"""A model that remembers its records: what every attack must see, or its silence about the run says nothing.

The run's own model may be too small to remember anything (14 parameters for four hospitals), so this is another one:
wide, trained without privacy for as long as it takes, on the rows of all sites in one place.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from clients.records import Records
from clients.scores import Scorer
from clients.training import Steps, plain_gradient, train
from simulations.job import Job
from strategies.models import build, to_vector
from strategies.task import ModelSpec, SiteId, Training

NAME = "one hidden layer of 256, without privacy, on records of all sites"
MOST = 1000
"""Real records that it is trained on, at most: more would take longer to remember."""

Losses: TypeAlias = Callable[[Records], npt.NDArray[np.float64]]
"""From records to the cross-entropy of each."""

_REMEMBERS, _LEARNS = 500, 50  # steps over all records; the first remembers labels that nothing speaks for


def remember(job: Job, records: Records) -> Losses:
    """Trains the model until it knows its records by heart.

    Args:
      job: Names the task, and the seed of the first parameters.
      records: Secret; what the model makes of them is, too.
    """
    return _trained(job, records, _REMEMBERS)


def learn(job: Job, records: Records) -> Losses:
    """Trains the model for as long as it learns what holds for records that it never saw. See `remember`."""
    return _trained(job, records, _LEARNS)


def some(job: Job, records: Records) -> Records:
    """Returns at most ``MOST`` of the records, chosen by the job's seed."""
    rows = np.random.default_rng(job.seed).permutation(len(records))[:MOST]
    return records.take(np.sort(rows))


def _trained(job: Job, records: Records, steps: int) -> Losses:
    spec = ModelSpec("mlp", (256,), "torch", outputs=job.task.model.outputs)
    training = Training(rounds=1, local_steps=steps, learning_rate=0.01, optimizer="adam")
    model = build(spec, job.task.n_inputs, job.seed)
    gradient = plain_gradient(records, training, site=SiteId("pooled"), seed=job.seed)
    parameters = train(model, to_vector(model), Steps(training, 0, steps), gradient)
    scorer = Scorer(job.task, spec)
    return lambda asked: scorer.losses(parameters, asked)
