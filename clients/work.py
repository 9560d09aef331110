"""What a site does in one attempt of a round: arrays in, contribution out. No Flower, no files."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clients.records import Records
from clients.training import Steps, integer_sum, plain_gradient, private_gradient, record_losses, train
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SumPlan, Unit
from strategies.algorithm import Algorithm
from strategies.contribution import Contribution, Vector, check_sent
from strategies.models import build, load_vector
from strategies.scaffold import next_control
from strategies.task import SiteId, Task


@dataclass(frozen=True)
class Site:
    """One organisation: its records and what it has agreed to. Fields other than ``records`` are public.

    Attributes:
      records: Training records. Secret.
      plan: Noise in every step, or ``None`` for none.
      sum_plan: Noise in the sum over sites, or ``None`` for none.
      seed: Orders batches when there is no plan; noise never depends on it.
    """

    id: SiteId
    task: Task
    algorithm: Algorithm[Any]
    seed: int
    plan: RecordPlan | None
    records: Records = field(repr=False)
    sum_plan: SumPlan | None = None


def plans_of(site: Site) -> tuple[PrivacyPlan, ...]:
    """Returns the plans whose noise the site itself adds, and therefore pays for."""
    distributed = (site.sum_plan,) if isinstance(site.sum_plan, DistributedPlan) else ()
    return (*((site.plan,) if site.plan is not None else ()), *distributed)


@dataclass(frozen=True)
class Work:
    """Outcome of an attempt.

    Attributes:
      contribution: Declared arrays and scalars; secret until debited (with a plan) or at all (without one).
      units: Where the sum is noised: the clipped contribution, grid units, shape ``(d,)``. Secret.
      control: The site's next control variate if the contribution is accepted; stays at the site.
      executions: Noisy steps taken.
    """

    contribution: Contribution
    control: Vector | None
    executions: int
    units: npt.NDArray[np.int64] | None = None


def contribute(
    site: Site,
    arrays: Mapping[str, Vector],
    *,
    round_number: int,
    control: Vector | None = None,
    entropy: Entropy = secrets.token_bytes,
) -> Work:
    """Trains on the site's own records and declares what would leave.

    Args:
      site: Who trains.
      arrays: What the server broadcast: ``model``, and ``control`` for Scaffold; each of shape ``(d,)``.
      round_number: From 1; fixes which batches come next.
      control: The site's own control variate c_i, zeros if ``None``; used by Scaffold only.
      entropy: Randomness of noise and sampling.

    Raises: LocalProtocolError: The result is not what the algorithm declares.
    """
    start = arrays["model"]
    if site.sum_plan is not None and site.sum_plan.unit is not Unit.SITE:
        return _sum_over_records(site, start, site.sum_plan)
    training, rule = site.task.training, site.algorithm.local
    drift: Vector | None = None
    own = np.zeros_like(start) if control is None else control
    if rule.control:
        drift = arrays["control"] - own
    steps = Steps(training, (round_number - 1) * training.local_steps, training.local_steps, rule.proximal, drift)
    model = build(site.task.model, site.task.n_inputs, seed=0)
    if site.plan is None:
        gradient = plain_gradient(site.records, training, site=site.id, seed=site.seed)
    else:
        gradient = private_gradient(site.records, site.plan, entropy=entropy)
    update = train(model, start, steps, gradient) - start
    following: Vector | None = None
    sent = {"update": update}
    if rule.control:
        following = next_control(
            own, arrays["control"], update, steps=training.local_steps, learning_rate=training.learning_rate
        )
        sent["control"] = following - own
    contribution = Contribution(sent)
    check_sent(contribution, site.algorithm.declared, start.size)
    units = None if site.sum_plan is None else site.sum_plan.mechanism.constrain(update[None].astype(np.float64))
    return Work(contribution, following, training.local_steps if site.plan is not None else 0, units)


def _sum_over_records(site: Site, start: Vector, plan: SumPlan) -> Work:
    """One step a round: every record's gradient clipped and summed on the grid, the step taken after the noise."""
    torch.set_num_threads(1)  # as in training: one thread gives the same sums in every engine
    model = build(site.task.model, site.task.n_inputs, seed=0)
    load_vector(model, start)
    model.train()
    records, sizes = site.records.of_units(np.ones(site.records.n_units, dtype=np.bool_))
    batch = torch.from_numpy(records.x), torch.from_numpy(records.y), sizes
    return Work(Contribution({}), None, 0, integer_sum(model, record_losses, batch, plan.mechanism))
