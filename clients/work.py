"""What a site does in one attempt of a round: arrays in, contribution out. No Flower, no files.

Symbols: ``h`` coordinates of the whole model that the site's part shares, in the order of ``part.held``; ``p`` private
ones.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clients.agent import Agent, LocalWork
from clients.records import Records
from clients.training import integer_sum
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SumPlan, Unit
from privacy.errors import ConfigError, LocalProtocolError
from strategies.algorithm import Algorithm
from strategies.contribution import Contribution, Vector
from strategies.losses import record_losses
from strategies.models import build, load_vector
from strategies.scaffold import next_control
from strategies.secure_sum import PLAIN, Encoding
from strategies.sub_models import SubModel
from strategies.task import SiteId, Task

_NOTHING: Mapping[str, Vector] = MappingProxyType({})


@dataclass(frozen=True)
class Site:
    """One organisation: its records and what it has agreed to. Fields other than ``records`` are public.

    Attributes:
      records: Training records. Secret.
      plan: Noise in every step, or ``None`` for none.
      sum_plan: Noise in the sum over sites, or ``None`` for none.
      seed: Orders batches when there is no plan; noise never depends on it.
      part: What of the whole model it holds.
      agent: Who trains it.
      initial: The piece's own initial parameters, shape ``(part.piece.size,)``.
      weight: How much it counts in the sum, a whole number; its units of records, or 1 where all count alike.
      encoding: What the integers of the sum stand for.

    Raises: ValueError: The agent adds other noise than ``plan`` is debited for: the caller's bug.
    """

    id: SiteId
    task: Task
    algorithm: Algorithm[Any]
    seed: int
    plan: RecordPlan | None
    records: Records = field(repr=False)
    sum_plan: SumPlan | None = None
    part: SubModel = field(kw_only=True)
    agent: Agent = field(kw_only=True, repr=False)
    initial: Vector = field(kw_only=True)
    weight: int = field(kw_only=True)
    encoding: Encoding = field(default=PLAIN, kw_only=True)

    def __post_init__(self) -> None:
        if self.agent.plan != self.plan:
            raise ValueError("a site's agent must train by the plan that the site is debited for")


def plans_of(site: Site) -> tuple[PrivacyPlan, ...]:
    """Returns the plans whose noise the site itself adds, and therefore pays for."""
    distributed = (site.sum_plan,) if isinstance(site.sum_plan, DistributedPlan) else ()
    return (*((site.plan,) if site.plan is not None else ()), *distributed)


@dataclass(frozen=True)
class Work:
    """Outcome of an attempt.

    Attributes:
      contribution: Declared arrays, shape ``(h,)``, and scalars; secret until debited (with a plan) or at all
        (without one). Not finite if the training was not: that, too, is secret until then.
      kept: What stays at the site and counts if the contribution is accepted: ``control``, Scaffold's next control
        variate, shape ``(h,)``; ``private``, the private parameters, shape ``(p,)``. Secret.
      executions: Noisy steps taken.
      units: Where the sum is noised: the clipped contribution, grid units, shape ``(h,)``. Secret.
    """

    contribution: Contribution
    kept: Mapping[str, Vector]
    executions: int
    units: npt.NDArray[np.int64] | None = None


def contribute(
    site: Site,
    arrays: Mapping[str, Vector],
    *,
    round_number: int,
    attempt: int = 1,
    kept: Mapping[str, Vector] = _NOTHING,
    entropy: Entropy = secrets.token_bytes,
) -> Work:
    """Trains on the site's own records and declares what would leave.

    Args:
      site: Who trains.
      arrays: What the server broadcast: ``model``, and ``control`` for Scaffold; each of shape ``(h,)``.
      round_number: From 1; fixes which batches come next.
      attempt: Of the round, from 1.
      kept: `Work.kept` of the site's last accepted attempt. Without ``control``, c_i is zero (Scaffold only); without
        ``private``, private parameters are the initial ones.
      entropy: Randomness of noise and sampling.

    Raises:
      LocalProtocolError: The agent returned something else than parameters of its part.
      ConfigError: The agent cannot do what is asked.
    """
    start, part, rule = arrays["model"], site.part, site.algorithm.local
    if site.sum_plan is not None and site.sum_plan.unit is not Unit.SITE:
        return _sum_over_records(site, start, site.sum_plan)
    own = kept.get("control", np.zeros_like(start))
    drift = _on_piece(part, arrays["control"] - own) if rule.control else None
    piece = part.piece_of(start, site.initial, kept.get("private"))
    trained = site.agent.train(piece, LocalWork(round_number, rule, drift, entropy, attempt))
    if trained.shape != piece.shape or trained.dtype != np.float32:
        raise LocalProtocolError("nothing was sent: the agent did not return float32 parameters of its part")
    with np.errstate(all="ignore"):  # no error and no warning may depend on what is no number
        work = _work_of(site, arrays, trained, own)
    finite = all(np.isfinite(each).all() for each in work.contribution.arrays.values())
    return work if finite else replace(work, kept={})


def _work_of(site: Site, arrays: Mapping[str, Vector], trained: Vector, own: Vector) -> Work:
    """Makes an agent's parameters into what leaves and what is kept; ``own`` is c_i."""
    start, part, rule = arrays["model"], site.part, site.algorithm.local
    update = part.shared_of(trained) - start
    if not np.isfinite(trained).all():  # in a private parameter too
        update = np.full_like(start, np.nan)
    training, keeping, sent = site.agent.training, dict[str, Vector](), {"update": update}
    if rule.control:
        keeping["control"] = next_control(
            own, arrays["control"], update, steps=training.local_steps, learning_rate=training.learning_rate
        )
        sent["control"] = keeping["control"] - own
    if part.private:
        keeping["private"] = part.private_of(trained)
    units = None if site.sum_plan is None else site.sum_plan.mechanism.constrain(update[None].astype(np.float64))
    return Work(Contribution(sent), keeping, training.local_steps if site.plan is not None else 0, units)


def _on_piece(part: SubModel, shared: Vector) -> Vector:
    """Lays values of the shared coordinates out on the piece, 0 elsewhere."""
    laid = np.zeros(part.piece.size, np.float32)
    laid[part.slots] = shared
    return laid


def _sum_over_records(site: Site, start: Vector, plan: SumPlan) -> Work:
    """One step a round: every record's gradient clipped and summed on the grid, the step taken after the noise."""
    if not site.part.held.size == site.part.piece.size == site.part.whole.size or "record" not in site.agent.offers:
        raise ConfigError(
            f"{site.id} cannot sum records one by one: that takes the whole model and the torch agent",
            hint="Add --set unit=site.",
        )
    torch.set_num_threads(1)  # as in training: one thread gives the same sums in every engine
    model = build(site.task.model, site.task.n_inputs, seed=0)
    load_vector(model, start)
    model.train()
    records, sizes = site.records.of_units(np.ones(site.records.n_units, dtype=np.bool_))
    batch = torch.from_numpy(records.x), torch.from_numpy(records.y), sizes
    return Work(Contribution({}), {}, 0, integer_sum(model, record_losses, batch, plan.mechanism))
