"""The body of the signed report (``report-v1.json``): claims, their limits, and what they rest on."""

import math
from collections.abc import Mapping
from typing import Any

import privacy
from privacy.audit import division, division_words, masked_rounds, words
from privacy.dp.accounting import epsilon, round_up
from privacy.dp.events import Arithmetic, Event, Relation, SamplingType, SkellamEvent
from privacy.dp.plan import DistributedPlan, RecordPlan, Unit
from privacy.secagg.context import thresholds
from server.rounds import RoundRecord
from simulations.accounts import Lifetime
from simulations.job import Job
from simulations.outcome import Outcome, Placement, PrivacyClaim, Spent
from simulations.summary import submodels
from strategies.secure_sum import summed

_CLAIM_IDS: dict[Placement, str] = {
    "local": "privacy.epsilon",
    "central": "privacy.epsilon.site",
    "distributed": "privacy.epsilon.distributed",
}
_NOT_AGAINST: dict[Placement, str] = {
    "central": "The server adds the noise and sees the sums without it: the claim does not hold against the server.",
    "distributed": "A site knows its own share of the noise: against it, one share fewer counts (hypothetical values).",
}
_PATIENTS = "A patient in several hospitals is protected less than one in a single hospital."
_RECORDS = "A patient with several records, or in several hospitals, is protected less than one with a single record."
_SUPPRESSION = (
    "Sites hold different parts of the model: a malicious server could send some of them values with which the update"
    " of a single other site stands out in the sum of a region."
)
_UNEQUAL = (
    "With unequal sub-models, that nothing but sums is seen holds against a server that follows the protocol; against"
    " one that does not, only distributed noise "
)
_NOISY_STEPS = " What protects a record even then is the noise of its site's own steps."
_UNEQUAL_SHARES = (
    "A region with more holders than the fewest gets a smaller share of noise from each: every region has the declared"
    " noise if as many of its holders as are counted on there drew theirs."
)
_PRIVATE = "Private parameters never leave their site: only it sees them."
_IN_NO_SUM = " They are in no sum, so no epsilon of noise in the sum is about them."
_IN_STEPS = " They are trained in the same noisy steps as the rest, and covered by the epsilon of those steps."
_RESTS_ON: dict[Placement, str] = {
    "central": "Every site clipped its update as agreed: under masks the server cannot see whether it did.",
    "distributed": "As many sites as were counted on drew their shares of the noise honestly and told nobody.",
}


def predicate(
    outcome: Outcome, *, model_sha256: str, signer: Mapping[str, str], transcript: bytes | None = None
) -> dict[str, Any]:
    """Returns the predicate that the run's key signs.

    Args:
      outcome: The run.
      model_sha256: Of the model file, hex.
      signer: The key that will sign, as the report names it.
      transcript: What the sites signed, if rounds were masked; every signature is checked before anything is claimed.

    Raises: VerificationError: A signature in the transcript does not hold.
    """
    claims: list[dict[str, Any]] = [
        {
            "id": "model.digest",
            "kind": "attested",
            "file": "model.safetensors",
            "sha256": model_sha256,
            "parameters": int(outcome.trained.model.size),
        }
    ]
    claims += [_epsilon_claim(outcome.job, claim) for claim in outcome.claims]
    if transcript is not None:
        claims += [
            masked_rounds.claim_of(transcript),
            {"id": "secagg.egress", "kind": "asserted", "unmasked_arrays": 0},
        ]
    return {
        "schema": "collegium/report/v1",
        "tool": {"name": "collegium", "version": privacy.__version__},
        "run": _run(outcome),
        "signer": dict(signer),
        "protections": outcome.protections,
        "claims": claims,
        "utility": _utility(outcome),
        "submodels": submodels_of(outcome),
        "rounds": [
            _round(record, loss, divided=outcome.divided is not None) for record, loss in outcome.trained.rounds
        ],
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
        "status": outcome.status,
        "started": outcome.started.isoformat(timespec="seconds"),
        "finished": outcome.finished.isoformat(timespec="seconds"),
    }


def submodels_of(outcome: Outcome) -> dict[str, Any] | None:
    """Returns parts, regions and baselines as the report lists them; nothing where all sites hold the whole model."""
    return None if outcome.divided is None else submodels(outcome.divided, _text)


def _round(record: RoundRecord, loss: float, *, divided: bool) -> dict[str, Any]:
    return {
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "still": list(record.still) if divided else [],
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


def _epsilon_claim(job: Job, claim: PrivacyClaim) -> dict[str, Any]:
    plan = claim.plan
    exact = all(_is_exact(event) for spent in claim.spent.values() for event in spent.events)
    distributed = isinstance(plan, DistributedPlan)
    return {
        "id": _CLAIM_IDS[claim.placement],
        "kind": "proved" if exact else "asserted",
        "placement": claim.placement,
        "unit": str(plan.unit),
        "relation": str(plan.relation),
        "delta": f"{plan.delta:f}",
        "accountant": plan.accountant,
        "target_epsilon": f"{plan.target:f}",
        "executions_per_attempt": plan.steps_per_attempt,
        "budget_executions": plan.max_executions,
        **({"hypothetical": _hypothetical(job, claim)} if distributed else {}),
        "sites": [_holder_epsilon(holder, spent) for holder, spent in claim.spent.items()],
    }


def _holder_epsilon(holder: str, spent: Spent) -> dict[str, Any]:
    plan, executions = spent.plan, spent.executions
    return {
        "site": holder,
        **({"n_train": plan.n_records} if isinstance(plan, RecordPlan) else {}),
        "clip": f"{plan.clip:f}",
        "epsilon": round_up(spent.epsilon()),
        "epsilon_replace_one": round_up(spent.epsilon(Relation.REPLACE_ONE)),
        "epsilon_rdp": round_up(plan.epsilon(executions, accountant="RDP")),
        "planned_epsilon": round_up(plan.epsilon(plan.max_executions)),
        "events": [event.to_json() for event in spent.events],
        **({} if spent.lifetime is None else {"lifetime": _lifetime(spent.lifetime)}),
    }


def _lifetime(lifetime: Lifetime) -> dict[str, Any]:
    budget = lifetime.budget
    return {
        "asset": lifetime.asset,
        "epsilon": round_up(lifetime.epsilon),
        "budget": f"{budget.epsilon:f}",
        "delta": f"{budget.delta:f}",
        "filter": str(budget.kind),
        "order": budget.order,
        "events": [event.to_json() for event in lifetime.events],
    }


def _hypothetical(job: Job, claim: PrivacyClaim) -> list[dict[str, Any]]:
    """Returns epsilon if more or fewer strangers' shares were in every sum than the plan counts on."""
    plan, executions = claim.plan, claim.worst.executions
    if not isinstance(plan, DistributedPlan):
        return []
    return [
        {
            "shares": shares,
            "counted": shares == plan.noise.counted,
            "epsilon": round_up(
                epsilon([plan.noise.hypothetical(shares, executions)], plan.delta, plan.relation, plan.accountant)
            ),
        }
        for shares in range(1, len(job.sites) + 1)
    ]


def _is_exact(event: Event) -> bool:
    return isinstance(event, SkellamEvent) or event.arithmetic is Arithmetic.INTEGER_EXACT


def server_view(outcome: Outcome) -> str:
    """Returns what the server saw of single sites, in words."""
    if not outcome.job.secagg:
        return "The server sees every site's single update: there was no secure aggregation."
    sites = outcome.trained.roster.nodes
    limits, floor = thresholds(len(sites)), thresholds(len(sites)).min_survivors
    if unequal := _is_unequal(outcome):
        held = [region.holders for region in summed(outcome.job.plan, sites, limits.min_cover)]
        floor = division.fewest_holders(held, {"sites": sites, **vars(limits)})
    return words.sums_seen(len(sites), limits.n_c, floor, fixed_set=False, unequal=unequal)


def _is_unequal(outcome: Outcome) -> bool:
    return outcome.divided is not None and len(outcome.divided.regions) > 1


def not_protected(outcome: Outcome) -> list[str]:
    """Returns what this run does not protect, in words; a mandatory part of every report."""
    lines = [server_view(outcome), *_division_limits(outcome)]
    if not outcome.job.privacy:
        lines.append("No differential privacy was applied: updates and model may give away training records.")
    else:
        lines += [_NOT_AGAINST[claim.placement] for claim in outcome.claims if claim.placement in _NOT_AGAINST]
        if all(claim.plan.unit is Unit.SITE for claim in outcome.claims):
            lines.append("The unit is the site: a record is hidden only as a part of what its whole site adds.")
        lines += [
            "Scores, losses and the comparison models are the experimenter's view and not covered by epsilon.",
            _PATIENTS if any(claim.plan.unit is Unit.PATIENT for claim in outcome.claims) else _RECORDS,
            "What was learnt about everybody, also about people who never took part, is not protected by any epsilon.",
        ]
    lines += [
        "All parties ran on one machine, without TLS: this is a simulation and shows nothing about transport.",
        "Nothing shows that a site trained honestly, nor who holds the key that signed this report.",
    ]
    return lines


def _division_limits(outcome: Outcome) -> list[str]:
    """Returns what comes with a divided model, beside what holds for every run."""
    found, job = submodels_of(outcome), outcome.job
    if found is None:
        return []
    lines = division_words.about_slack(found)
    if any(region["still"] for region in found["regions"]):
        lines.append(division_words.about_still(found, len(outcome.trained.rounds)))
    if _is_unequal(outcome):
        lines.append(_SUPPRESSION)
        had = "protects a site's update." if "distributed" in job.privacy else "would protect, and this run had none."
        lines.append(_UNEQUAL + had + (_NOISY_STEPS if job.record_privacy else ""))
    if job.division.private:
        in_sum = _IN_NO_SUM if set(job.privacy) & {"site", "distributed"} else ""
        lines.append(_PRIVATE + in_sum + (_IN_STEPS if job.record_privacy else ""))
    return lines


def assumptions(outcome: Outcome) -> list[str]:
    """Returns what the claims rest on."""
    lines = _privacy_assumptions(outcome) if outcome.claims else []
    if outcome.job.secagg:
        lines += [
            "The roster's keys are those of the sites that it names; in this simulation one program made and held all.",
            "No attempt was made beside those listed, nothing sent beside what was counted: no document can show it.",
            "The delivered model came out of the sums listed: no site signs the model that comes out.",
        ]
    return lines or ["The model file is the one that the run's key signed."]


def _privacy_assumptions(outcome: Outcome) -> list[str]:
    plans = [spent.plan for claim in outcome.claims for spent in claim.spent.values()]
    exact = all(_is_exact(event) for claim in outcome.claims for s in claim.spent.values() for event in s.events)
    lines = [
        "Numbers of records, weights, clip, rates, rounds and scaling constants are public and fixed beforehand.",
        "Neighbouring data sets are training sets after the split into training and test rows.",
        "Noise and sampling come from the operating system's randomness.",
        "Noise is drawn as exact integers on a public grid; its timing is not constant."
        if exact
        else "The Gaussian is a 64-bit floating-point one, rounded to a public grid: epsilon is asserted, not proved.",
        "Each ledger was debited before anything that it pays for left; the events listed are those debits.",
    ]
    if _is_unequal(outcome) and any(claim.placement == "distributed" for claim in outcome.claims):
        lines.append(_UNEQUAL_SHARES)
    lines += [_RESTS_ON[claim.placement] for claim in outcome.claims if claim.placement in _RESTS_ON]
    records = [plan for plan in plans if isinstance(plan, RecordPlan)]
    if any(plan.sampling.type is SamplingType.POISSON for plan in records):
        lines.append("Nobody outside a site learns which of its records entered a batch.")
    if any(plan.delta * plan.n_records >= 1 for plan in records):
        lines.append("Delta is not below 1/N at every site: a smaller --delta is advisable there.")
    return lines


def _text(value: float | None) -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:.4f}"
