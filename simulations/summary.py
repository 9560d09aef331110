"""The ``--json`` object of a run (``privacy/audit/schemas/simulate-v1.json``)."""

from collections.abc import Callable
from typing import Any

from privacy.dp.accounting import round_up
from privacy.dp.events import SamplingType
from privacy.dp.plan import RecordPlan
from server.claims import PrivacyClaim, Spent
from simulations.accounts import SERVER
from simulations.divided import Baseline, Divided
from simulations.outcome import Outcome
from strategies.task import SiteId


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Returns what ``collegium simulate --json`` prints."""
    job = outcome.job
    return {
        "schema": "collegium/simulate/v1",
        "scenario": job.scenario.name,
        "strategy": job.strategy,
        "seed": job.seed,
        "rounds": job.task.training.rounds,
        "run": outcome.folder,
        "status": outcome.status,
        "metric": job.task.metric,
        "mean": {
            **{name: _rounded(value) for name, value in outcome.means().items()},
            "ensemble": _rounded(outcome.mean_ensemble),
        },
        "sites": [_site_json(outcome, site) for site in job.sites],
        "left_out": [
            {"id": one.id, "n_test": one.n_test, "score": _rounded(one.score), "trained_by": list(one.trained_by)}
            for one in outcome.reference.left_out
        ],
        "baselines": {
            "constant": _rounded(outcome.reference.constant),
            "majority": _rounded(outcome.reference.majority),
        },
        "protections": outcome.protections,
        "submodels": None if outcome.divided is None else submodels(outcome.divided, _rounded),
        "egress": {site: vars(outcome.egress(site)) for site in job.sites},
        "seconds": round((outcome.finished - outcome.started).total_seconds(), 3),
    }


def submodels(divided: Divided, written: Callable[[float | None], Any]) -> dict[str, Any]:
    """Returns parts, regions and baselines as the summary and the signed report list them.

    Args:
      divided: What was found.
      written: Spells a score.
    """
    smallest = min(divided.parts, key=lambda part: part.parameters)

    def baseline(found: Baseline, part: str) -> dict[str, Any]:
        return {
            "part": part,
            "sites": list(found.sites),
            "score": written(found.score),
            "scored_at": list(found.scored_at),
        }

    return {
        "floor": divided.floor,
        "slack": divided.slack,
        "parts": [
            {
                "name": part.name,
                "sites": list(part.sites),
                "parameters": part.parameters,
                "upload_bytes": part.upload,
                "score": [written(score) for score in part.score],
                "scored_at": list(part.scored_at),
            }
            for part in divided.parts
        ],
        "regions": [
            {"holders": list(region.holders), "parameters": region.parameters, "still": region.still}
            for region in divided.regions
        ],
        "baselines": {
            "smallest": baseline(divided.smallest, smallest.name),
            "strong": None
            if divided.strong is None
            else baseline(divided.strong, next(p.name for p in divided.parts if p.sites == divided.strong.sites)),
        },
    }


def _site_json(outcome: Outcome, site: SiteId) -> dict[str, Any]:
    data, interval = outcome.data[site], outcome.interval(site)
    private = [
        _privacy_json(claim, spent)
        for claim in outcome.claims
        for holder, spent in claim.spent.items()
        if holder in (site, SERVER)
    ]
    return {
        "id": site,
        "n_train": len(data.train.y),
        "n_test": len(data.test.y),
        **{name: _rounded(value) for name, value in outcome.columns(site).items()},
        "ensemble": _rounded(outcome.reference.ensemble[site]),
        "interval": None if interval is None else [_rounded(bound) for bound in interval],
        "privacy": private,
    }


def _privacy_json(claim: PrivacyClaim, spent: Spent) -> dict[str, Any]:
    plan = spent.plan
    return {
        "unit": str(plan.unit),
        "placement": claim.placement,
        "epsilon": float(round_up(spent.epsilon())),
        "delta": float(plan.delta),
        "relation": str(plan.relation),
        "sampling": str(plan.sampling.type if isinstance(plan, RecordPlan) else SamplingType.FULL),
        "accountant": plan.accountant,
        "noise": float(plan.noise_multiplier),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
