"""A site's own model: trained on its own records alone, without noise, by the settings of the study."""

import math
from dataclasses import replace

from clients.records import Records
from clients.training import Steps, plain_gradient, train
from strategies.contribution import Vector
from strategies.models import build, to_vector
from strategies.task import ModelSpec, SiteId, Task


def train_alone(task: Task, spec: ModelSpec, records: Records, *, site: SiteId, seed: int) -> Vector:
    """Trains a model with the study's reference settings, or with as many steps as a run would take.

    Args:
      task: Settings of the training. Public.
      spec: The model: the task's, or a site's part of it. Public.
      records: Secret, and so is what comes back: it may give them away.
      site: Orders the batches.
      seed: Of the initial values and the batches.

    Returns: Shape ``(d,)``.
    """
    training, reference = task.training, task.training.reference
    steps = training.rounds * training.local_steps
    if reference is not None:
        training = replace(
            training,
            learning_rate=reference.learning_rate,
            batch=reference.batch,
            optimizer=reference.optimizer,
        )
        steps = reference.epochs * (math.ceil(len(records.y) / reference.batch) if reference.batch else 1)
    model = build(spec, task.n_inputs, seed)
    gradient = plain_gradient(records, training, site=site, seed=seed)
    return train(model, to_vector(model), Steps(training, 0, steps), gradient)
