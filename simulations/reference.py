"""What a run is compared with: everybody alone, all rows in one place, the same federation without privacy.

None of it is private and none of it could exist at real sites: a simulation may look at all rows because it is one.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clients.records import Records
from clients.training import Steps, plain_gradient, train
from clients.work import Work, contribute
from privacy.dp.plan import SitePlan
from server.rounds import FLOOR
from simulations.datasets import SiteData, pooled_training
from simulations.job import Job
from simulations.members import site_of
from simulations.scores import Scorer
from strategies.contribution import Aggregate, Vector, weighted_mean
from strategies.models import build, size_of, to_vector
from strategies.secure_sum import to_aggregate, to_units
from strategies.task import SiteId

_LEAVE_OUT_ALL = 4  # federations up to this size are also trained once without each of their sites


@dataclass(frozen=True)
class LeftOut:
    """A site that never trained, scored under a model that the others made."""

    id: SiteId
    n_test: int
    score: float
    trained_by: tuple[SiteId, ...]


@dataclass(frozen=True)
class Reference:
    """Scores to read a run against; per participating site unless said otherwise.

    Attributes:
      home: Own model at home.
      elsewhere: Mean of the other sites' own models here.
      pooled: Model trained on all participants' rows in one place.
      together: The same federation without privacy, or ``None`` if the run itself had none.
      constant: Mean score of one guess for everybody, the commonest label among all training rows.
      majority: Mean score of guessing each site's own commonest label.
    """

    home: Mapping[SiteId, float]
    elsewhere: Mapping[SiteId, float]
    pooled: Mapping[SiteId, float]
    together: Mapping[SiteId, float] | None
    left_out: tuple[LeftOut, ...]
    constant: float
    majority: float


def initial_model(job: Job) -> Vector:
    """Returns the parameters before round 1, shape ``(d,)``; public."""
    return to_vector(build(job.task.model, job.task.n_inputs, job.seed))


def federate(job: Job, data: Mapping[SiteId, SiteData]) -> Vector:
    """Runs a job's rounds as plain function calls, everybody answering: the definition that engines must equal.

    Returns: The model, shape ``(d,)``; without privacy, bit for bit what every engine delivers.
    """
    sites = [site_of(job, data[site]) for site in job.sites]
    weights = {site.id: float(site.records.n_units) for site in sites}
    controls: dict[SiteId, Vector | None] = {}
    state: Any = job.algorithm.init(initial_model(job))
    for number in range(1, job.task.training.rounds + 1):
        arrays = job.algorithm.broadcast(state)
        works = []
        for site in sites:
            work = contribute(site, arrays, round_number=number, control=controls.get(site.id))
            controls[site.id] = work.control
            works.append((site.id, work))
        state = job.algorithm.apply(state, _summed(job, works, weights), 1.0)
    return job.algorithm.parameters(state)


def _summed(job: Job, works: Sequence[tuple[SiteId, Work]], weights: Mapping[SiteId, float]) -> Aggregate:
    """Sums as the engines do: in floating point, or on the grid that masked sums live on, with the noise if any."""
    if not job.secagg:
        return weighted_mean([(site, work.contribution) for site, work in works], weights)
    declared, size = job.algorithm.declared, size_of(job.task.model, job.task.n_inputs)
    units = [
        to_units(work.contribution, declared, int(weights[site]), secrets.token_bytes)
        if work.units is None
        else work.units
        for site, work in works
    ]
    total, plan = sum(units[1:], start=units[0]), job.sum_plan
    if isinstance(plan, SitePlan):
        total = plan.noised(total, secrets.token_bytes)
    elif plan is not None:
        total = sum((plan.share(size, survivors=len(works), entropy=secrets.token_bytes) for _ in works), start=total)
    shares = [1.0 if job.equal_weights else weights[site] for site, _ in works]
    return to_aggregate(total, declared, size, shares, job.encoding)


def alone(job: Job, records: Records, name: SiteId) -> Vector:
    """Trains one model on one set of rows with the scenario's reference settings, without privacy."""
    training, reference = job.task.training, job.task.training.reference
    steps = training.rounds * training.local_steps
    if reference is not None:
        training = replace(
            training,
            learning_rate=reference.learning_rate,
            batch=reference.batch,
            optimizer=reference.optimizer,
        )
        steps = reference.epochs * (math.ceil(len(records.y) / reference.batch) if reference.batch else 1)
    model = build(job.task.model, job.task.n_inputs, job.seed)
    gradient = plain_gradient(records, training, site=name, seed=job.seed)
    return train(model, to_vector(model), Steps(training, 0, steps), gradient)


def measure(job: Job, data: Mapping[SiteId, SiteData], delivered: Vector) -> Reference:
    """Trains and scores every reference of a run."""
    scorer = Scorer(job.task)
    own = {site: alone(job, data[site].train, site) for site in job.sites}
    scores = {(of, at): scorer.score(own[of], data[at].test) for of in job.sites for at in job.sites}
    pooled = alone(job, pooled_training([data[site] for site in job.sites]), SiteId("pooled"))
    together = federate(job.without_privacy(), data) if job.privacy else None
    positive = _mean([float((data[site].train.y > 0).sum()) for site in job.sites]) * 2 > _mean(
        [float(len(data[site].train.y)) for site in job.sites]
    )
    return Reference(
        home={site: scores[site, site] for site in job.sites},
        elsewhere={at: _mean([scores[of, at] for of in job.sites if of != at]) for at in job.sites},
        pooled={site: scorer.score(pooled, data[site].test) for site in job.sites},
        together=None if together is None else {s: scorer.score(together, data[s].test) for s in job.sites},
        left_out=_left_out(job, data, delivered, scorer),
        constant=_mean([scorer.constant(positive, data[site].test) for site in job.sites]),
        majority=_mean([scorer.constant(data[s].train.y.mean() > 0.5, data[s].test) for s in job.sites]),
    )


def _left_out(job: Job, data: Mapping[SiteId, SiteData], delivered: Vector, scorer: Scorer) -> tuple[LeftOut, ...]:
    outside = [site for site in data if site not in job.sites]
    found = [_scored(site, data, delivered, scorer, job.sites) for site in outside]
    if not outside and len(job.sites) > FLOOR:
        chosen = job.sites if len(job.sites) <= _LEAVE_OUT_ALL else job.sites[-1:]
        for site in chosen:
            others = job.without_site(site)
            found.append(_scored(site, data, federate(others, data), scorer, others.sites))
    return tuple(found)


def _scored(
    site: SiteId, data: Mapping[SiteId, SiteData], model: Vector, scorer: Scorer, trained_by: tuple[SiteId, ...]
) -> LeftOut:
    test = data[site].test
    return LeftOut(site, len(test.y), scorer.score(model, test), trained_by)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
