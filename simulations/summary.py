"""The ``--json`` object of a run (``privacy/audit/schemas/simulate-v1.json``)."""

from typing import Any

from privacy.dp.accounting import round_up
from simulations.outcome import Outcome, Spent
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
        "status": "finished",
        "metric": job.task.metric,
        "mean": {name: _rounded(value) for name, value in outcome.means().items()},
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
        "egress": {site: vars(outcome.egress(site)) for site in job.sites},
        "seconds": round((outcome.finished - outcome.started).total_seconds(), 3),
    }


def _site_json(outcome: Outcome, site: SiteId) -> dict[str, Any]:
    data, spent = outcome.data[site], outcome.spent.get(site)
    private = [] if spent is None else [_privacy_json(spent)]
    return {
        "id": site,
        "n_train": len(data.train.y),
        "n_test": len(data.test.y),
        **{name: _rounded(value) for name, value in outcome.columns(site).items()},
        "interval": [_rounded(bound) for bound in outcome.interval(site)],
        "privacy": private,
    }


def _privacy_json(spent: Spent) -> dict[str, Any]:
    return {
        "unit": "record",
        "epsilon": float(round_up(spent.epsilon())),
        "delta": float(spent.plan.delta),
        "relation": str(spent.plan.relation),
        "sampling": str(spent.plan.sampling.type),
        "accountant": "PLD",
        "noise": float(spent.plan.noise_multiplier),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
