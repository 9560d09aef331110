"""The body of the signed report (``report-v1.json``): claims, their limits, and what they rest on."""

import math
from collections.abc import Mapping
from typing import Any

import privacy
from privacy.dp.accounting import round_up
from privacy.dp.events import Relation, SamplingType, merged
from privacy.secagg.context import thresholds
from server.rounds import RoundRecord
from simulations.outcome import Outcome, Spent
from strategies.task import SiteId


def predicate(outcome: Outcome, *, model_sha256: str, signer: Mapping[str, str]) -> dict[str, Any]:
    """Returns the predicate that the run's key signs."""
    claims: list[dict[str, Any]] = [
        {
            "id": "model.digest",
            "kind": "attested",
            "file": "model.safetensors",
            "sha256": model_sha256,
            "parameters": int(outcome.trained.model.size),
        }
    ]
    if outcome.spent:
        claims.append(_epsilon_claim(outcome))
    return {
        "schema": "collegium/report/v1",
        "tool": {"name": "collegium", "version": privacy.__version__},
        "run": _run(outcome),
        "signer": dict(signer),
        "protections": outcome.protections,
        "claims": claims,
        "utility": _utility(outcome),
        "rounds": [_round(record, loss) for record, loss in outcome.trained.rounds],
        "egress": [{"site": site, **vars(outcome.egress(site))} for site in outcome.job.sites],
        "not_protected": not_protected(outcome),
        "assumptions": assumptions(outcome),
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    return {
        "id": outcome.run_id,
        "scenario": job.scenario.name,
        "title": job.scenario.title,
        "data": f"{job.scenario.owner}; {job.scenario.licence}",
        "strategy": job.strategy,
        "engine": outcome.engine,
        "seed": job.seed,
        "rounds": job.task.training.rounds,
        "completed": len(outcome.trained.rounds) - outcome.skipped,
        "skipped": outcome.skipped,
        "status": "finished",
        "started": outcome.started.isoformat(timespec="seconds"),
        "finished": outcome.finished.isoformat(timespec="seconds"),
    }


def _round(record: RoundRecord, loss: float) -> dict[str, Any]:
    return {
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "loss": _text(loss),
    }


def _utility(outcome: Outcome) -> dict[str, Any]:
    return {
        "metric": outcome.job.task.metric,
        "view": "experimenter, not covered by the privacy claims",
        "sites": [
            {
                "id": site,
                "n_train": len(outcome.data[site].train.y),
                "n_test": len(outcome.data[site].test.y),
                **{name: _text(value) for name, value in outcome.columns(site).items()},
                "interval": [_text(bound) for bound in outcome.interval(site)],
            }
            for site in outcome.job.sites
        ],
        "mean": {name: _text(value) for name, value in outcome.means().items()},
        "left_out": [
            {"id": one.id, "n_test": one.n_test, "score": _text(one.score), "trained_by": list(one.trained_by)}
            for one in outcome.reference.left_out
        ],
        "baselines": {
            "constant": _text(outcome.reference.constant),
            "majority": _text(outcome.reference.majority),
        },
    }


def _epsilon_claim(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    return {
        "id": "privacy.epsilon",
        "kind": "asserted",
        "unit": "record",
        "relation": str(Relation.REPLACE_SPECIAL),
        "delta": f"{job.delta:f}",
        "accountant": "PLD",
        "target_epsilon": f"{job.epsilon:f}",
        "executions_per_attempt": job.task.training.local_steps,
        "budget_executions": job.max_attempts * job.task.training.local_steps,
        "sites": [_site_epsilon(site, outcome.spent[site]) for site in job.sites if site in outcome.spent],
    }


def _site_epsilon(site: SiteId, spent: Spent) -> dict[str, Any]:
    plan, executions = spent.plan, spent.executions
    return {
        "site": site,
        "n_train": plan.n_records,
        "clip": f"{plan.clip:f}",
        "epsilon": round_up(spent.epsilon()),
        "epsilon_replace_one": round_up(spent.epsilon(Relation.REPLACE_ONE)),
        "epsilon_rdp": round_up(plan.epsilon(executions, accountant="RDP")),
        "planned_epsilon": round_up(plan.epsilon(plan.max_executions)),
        "events": [event.to_json() for event in merged(spent.events)],
    }


def server_view(outcome: Outcome) -> str:
    """Returns what the server saw of single sites, in words."""
    if not outcome.job.secagg:
        return "The server sees every site's single update: there was no secure aggregation."
    n = len(outcome.job.sites)
    limits = thresholds(n)
    return (
        f"The server sees sums over at least {limits.min_survivors} of {n} sites; in league with {limits.n_c} of them,"
        f" sums over {limits.min_survivors - limits.n_c} or more. Sums over different survivors can be subtracted."
    )


def not_protected(outcome: Outcome) -> list[str]:
    """Returns what this run does not protect, in words; a mandatory part of every report."""
    lines = [server_view(outcome)]
    if not outcome.job.record_privacy:
        lines.append("No differential privacy was applied: updates and model may give away training records.")
    else:
        lines += [
            "Scores, losses and the comparison models are the experimenter's view and not covered by epsilon.",
            "A patient with several records, or in several hospitals, is protected less than one with a single record.",
            "What was learnt about everybody, also about people who never took part, is not protected by any epsilon.",
        ]
    lines += [
        "All parties ran on one machine, without TLS: this is a simulation and shows nothing about transport.",
        "Nothing shows that a site trained honestly, nor who holds the key that signed this report.",
    ]
    return lines


def assumptions(outcome: Outcome) -> list[str]:
    """Returns what the claims rest on."""
    if not outcome.job.record_privacy:
        return ["The model file is the one that the run's key signed."]
    lines = [
        "Numbers of records, weights, clip, rates, rounds and scaling constants are public and fixed beforehand.",
        "Neighbouring data sets are training sets after the split into training and test rows.",
        "Noise and sampling come from the operating system's randomness.",
        "The Gaussian is a 64-bit floating-point one, rounded to a public grid: epsilon is asserted, not proved.",
        "Each site debited its ledger before anything made from its records left; the events listed are those debits.",
    ]
    if any(spent.plan.sampling.type is SamplingType.POISSON for spent in outcome.spent.values()):
        lines.append("Nobody outside a site learns which of its records entered a batch.")
    exposed = [site for site, spent in outcome.spent.items() if spent.plan.delta * spent.plan.n_records >= 1]
    if exposed:
        lines.append(f"Delta is not below 1/N at {', '.join(exposed)}: a smaller --delta is advisable there.")
    return lines


def _text(value: float | None) -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:.4f}"
