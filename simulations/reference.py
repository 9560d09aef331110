"""What a run is compared with: everybody alone, all rows in one place, the same federation without privacy.

None of it is private and none of it could exist at real sites: a simulation may look at all rows because it is one.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clients.home import train_alone
from clients.records import Records
from clients.scores import Scorer, mean_known
from clients.sites import site_of
from clients.work import Site, Work, contribute
from privacy.dp.plan import SitePlan
from privacy.errors import SensitivityError
from privacy.secagg.context import MAX_ATTEMPTS, thresholds
from server.rounds import FLOOR
from simulations.data.datasets import SiteData, pooled_training
from simulations.job import Job
from simulations.pieces import Pieces
from strategies.contribution import Aggregate, Vector, weighted_mean
from strategies.regions import HeldRegion
from strategies.secure_sum import Units, in_region, summed, to_aggregate, to_units
from strategies.task import SiteId

_POOLED = SiteId("pooled")  # in no part, hence the whole model
_LEAVE_OUT_ALL = 4  # federations up to this size are also trained once without each of their sites


@dataclass(frozen=True)
class LeftOut:
    """A site that never trained, scored under a model that the others made."""

    id: SiteId
    n_test: int
    score: float | None
    trained_by: tuple[SiteId, ...]


@dataclass(frozen=True)
class Reference:
    """Scores to read a run against; per participating site unless said otherwise, ``None`` where there is no score.

    Attributes:
      home: Own model at home.
      elsewhere: Mean of the other sites' own models here.
      ensemble: All sites' own models together here, by the mean of their probabilities: what `collegium predict --mode
        ensemble` answers, but for the grid of its sum.
      pooled: Model trained on all participants' rows in one place.
      together: The same federation without privacy, or ``None`` if the run itself had none.
      constant: Mean score of one guess for everybody, the commonest label among all training rows.
      majority: Mean score of guessing each site's own commonest label.
    """

    home: Mapping[SiteId, float | None]
    elsewhere: Mapping[SiteId, float | None]
    ensemble: Mapping[SiteId, float | None]
    pooled: Mapping[SiteId, float | None]
    together: Mapping[SiteId, float | None] | None
    left_out: tuple[LeftOut, ...]
    constant: float
    majority: float


@dataclass(frozen=True)
class _Counted:
    """What came of a round: ``None``, the model stayed as it was; who is in the mean; attempts that it took."""

    aggregate: Aggregate | None
    answered: tuple[SiteId, ...]
    attempts: int = 1


def federate(job: Job, data: Mapping[SiteId, SiteData]) -> Pieces:
    """Runs a job's rounds as plain function calls, every site on time: the definition that engines must equal.

    Of a cut model every site trains all of it: a cut changes where a model is trained and not what it learns. A site
    whose update must not be summed is missed as it is in an engine: one that is not finite or too large, or all zero in
    a region that is summed without noise.

    Returns: The model and what sites keep; without privacy, bit for bit what every engine delivers, but for rounding
      in the ends of a cut model.
    """
    job = replace(job, chain=None)
    return federate_sites(job, [site_of(job, site, data[site].train) for site in job.sites])


def federate_sites(job: Job, sites: Sequence[Site]) -> Pieces:
    """Runs a job's rounds over its sites as they are given, see `federate`."""
    weights = {site.id: 1.0 if job.equal_weights else float(site.records.n_units) for site in sites}
    kept: dict[SiteId, Mapping[str, Vector]] = {site.id: {} for site in sites}
    private: dict[SiteId, Vector] = {}
    state, retries, everybody = job.algorithm.init(job.initial), job.task.training.retries, math.fsum(weights.values())
    for number in range(1, job.task.training.rounds + 1):
        arrays = job.algorithm.broadcast(state)
        works: dict[SiteId, Work] = {}
        for site in sites:
            held = job.plan.held_of(site.id, arrays)
            works[site.id] = contribute(site, held, round_number=number, kept=kept[site.id])
        private |= {site: work.kept["private"] for site, work in works.items() if "private" in work.kept}
        most = min(retries + 1, MAX_ATTEMPTS)
        counted = _summed(job, works, weights, most) if job.secagg else _in_the_clear(works, weights)
        if counted.aggregate is not None:
            state = job.algorithm.apply(state, counted.aggregate, counted.aggregate.weight / everybody)
            kept.update((site, works[site].kept) for site in counted.answered)
        retries -= counted.attempts - 1
    return Pieces(job, job.algorithm.parameters(state), private)


def _in_the_clear(works: Mapping[SiteId, Work], weights: Mapping[SiteId, float]) -> _Counted:
    fit = [
        (site, work.contribution)
        for site, work in works.items()
        if all(np.isfinite(array).all() for array in work.contribution.arrays.values())
    ]
    return _Counted(weighted_mean(fit, weights) if len(fit) >= FLOOR else None, tuple(site for site, _ in fit))


def _summed(job: Job, works: Mapping[SiteId, Work], weights: Mapping[SiteId, float], most: int) -> _Counted:
    """Sums as masked sums do, region by region on their grid, with the noise if any, in at most so many attempts."""
    floors, still = thresholds(len(works)), set[tuple[str, ...]]()
    units = {site: _units(job, work, int(weights[site])) for site, work in works.items()}
    for attempt in range(1, most + 1):
        chosen = summed(job.plan, works, floors.min_cover, still)
        if not chosen:
            return _Counted(None, (), attempt)
        vectors = {site: _vectors(job, site, own, chosen) for site, own in units.items()}
        there = [site for site, own in vectors.items() if own is not None]
        lost = next((each for each in chosen if len({*there} & {*each.holders}) < floors.min_cover), None)
        if lost is None and len(there) >= floors.min_survivors:
            inputs = [own for own in vectors.values() if own is not None]
            sums: dict[int, Units] = {}
            for k in range(len(chosen)):
                held = [own[k] for own in inputs if k in own]
                sums[k] = sum(held[1:], start=held[0]) + _noise(job, held[0].size, len(held))
            heard = {site: weights[site] for site in there}
            declared, size = job.algorithm.declared, job.plan.layout.size
            return _Counted(to_aggregate(sums, chosen, declared, size, heard, job.encoding), tuple(there), attempt)
        if lost is not None and len(chosen) > 1:
            still.add(lost.holders)
    return _Counted(None, (), most)


def _units(job: Job, work: Work, weight: int) -> Mapping[str, Units] | None:
    """Returns a site's grid units by declared array; ``None``: they must not be summed."""
    declared = job.algorithm.declared
    if work.units is not None:
        return {declared.arrays[0]: work.units}
    try:
        return to_units(work.contribution, declared, weight, secrets.token_bytes, job.encoding)
    except SensitivityError:
        return None


def _vectors(
    job: Job, site: SiteId, units: Mapping[str, Units] | None, chosen: Sequence[HeldRegion]
) -> dict[int, Units] | None:
    """Returns what a site puts into each sum that it holds a part of; ``None``: nothing into any."""
    if units is None:
        return None
    held = job.plan.held_by(site)
    found = {
        k: np.concatenate([in_region(units[name], held, region) for name in job.algorithm.declared.arrays])
        for k, region in enumerate(chosen)
        if site in region.holders
    }
    return found if job.sum_plan is not None or all(each.any() for each in found.values()) else None


def _noise(job: Job, size: int, holders: int) -> Units:
    """Returns the noise of a region's sum: as much as if everybody's shares are in it, or the server's."""
    plan, none = job.sum_plan, np.zeros(size, np.int64)
    if isinstance(plan, SitePlan):
        return plan.noised(none, secrets.token_bytes)
    if plan is None:
        return none
    floors = thresholds(len(job.sites))
    sure = max(floors.min_cover, holders - (len(job.sites) - floors.min_survivors))
    return sum((plan.share(size, sure, secrets.token_bytes) for _ in range(holders)), start=none)


def alone(job: Job, records: Records, name: SiteId) -> Vector:
    """Trains one site's model, or the whole, on one set of rows with the scenario's reference settings, no privacy."""
    return train_alone(job.task, job.spec_of(name), records, site=name, seed=job.seed)


def measure(job: Job, data: Mapping[SiteId, SiteData], delivered: Pieces) -> Reference:
    """Trains and scores every reference of a run."""
    scorer, scorers = Scorer(job.task), {site: Scorer(job.task, job.spec_of(site)) for site in job.sites}
    own = {site: alone(job, data[site].train, site) for site in job.sites}
    judged = {(of, at): scorers[of].judged(own[of], data[at].test) for of in job.sites for at in job.sites}
    scores = {pair: score for pair, (score, _) in judged.items()}
    likely = {at: np.mean([judged[of, at][1] for of in job.sites], axis=0) for at in job.sites}
    pooled = alone(job, pooled_training([data[site] for site in job.sites]), _POOLED)
    together = federate(job.without_privacy(), data) if job.privacy else None
    guess = _commonest(*(data[site].train for site in job.sites))
    return Reference(
        home={site: scores[site, site] for site in job.sites},
        elsewhere={at: mean_known(scores[of, at] for of in job.sites if of != at) for at in job.sites},
        ensemble={at: scorer.score_probabilities(likely[at], data[at].test) for at in job.sites},
        pooled={site: scorer.score(pooled, data[site].test) for site in job.sites},
        together=None if together is None else {s: together.score(s, data[s].test) for s in job.sites},
        left_out=_left_out(job, data, delivered),
        constant=_mean([scorer.constant(guess, data[site].test) for site in job.sites]),
        majority=_mean([scorer.constant(_commonest(data[s].train), data[s].test) for s in job.sites]),
    )


def _commonest(*records: Records) -> float:
    """Returns the label that most of these records have; of several, the smallest."""
    labels, counts = np.unique(np.concatenate([each.y for each in records]), return_counts=True)
    return float(labels[counts.argmax()])


def _left_out(job: Job, data: Mapping[SiteId, SiteData], delivered: Pieces) -> tuple[LeftOut, ...]:
    if job.division.private:
        return ()  # who never trained has no private parameters to complete the model with
    outside = [site for site in data if site not in job.sites]
    found = [_scored(site, data, delivered, job.sites) for site in outside]
    if not outside and len(job.sites) > FLOOR:
        chosen = job.sites if len(job.sites) <= _LEAVE_OUT_ALL else job.sites[-1:]
        for site in chosen:
            others = job.without_site(site)
            if not job.secagg or summed(others.plan, others.sites, thresholds(len(others.sites)).min_cover):
                found.append(_scored(site, data, federate(others, data), others.sites))
    return tuple(found)


def _scored(site: SiteId, data: Mapping[SiteId, SiteData], model: Pieces, trained_by: tuple[SiteId, ...]) -> LeftOut:
    test = data[site].test
    return LeftOut(site, len(test.y), model.score(site, test), trained_by)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
