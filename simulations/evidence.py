"""The body of the signed report (``privacy-audit-v1.json``): claims, their limits, and what they rest on."""

import math
from collections.abc import Mapping
from typing import Any

import privacy
from privacy.audit import ledger_chain, limits, masked_rounds, report
from server.claims import epsilon_claim
from server.limits import of_private
from server.limits import server_view as view_of_server
from server.model_file import parameters
from server.releases import not_protected as about_chain
from server.releases import releases
from server.rounds import RoundRecord
from simulations.outcome import Outcome
from simulations.summary import submodels


def predicate(
    outcome: Outcome,
    *,
    model_sha256: str,
    signer: Mapping[str, str],
    cosigners: Mapping[str, bytes],
    transcript: bytes | None = None,
    ledgers: bytes = b"",
) -> dict[str, Any]:
    """Returns the predicate that the run's key signs.

    Args:
      outcome: The run.
      model_sha256: Of the model file, hex.
      signer: The key that will sign, as the report names it.
      cosigners: The sites' identity keys, raw, by site id.
      transcript: What the sites signed, if rounds were masked; every signature is checked before anything is claimed.
      ledgers: Every entry of every ledger that was debited; empty if none was.

    Raises: VerificationError: A signature in the transcript does not hold.
    """
    claims: list[dict[str, Any]] = [
        {
            "id": "model.digest",
            "kind": "attested",
            "file": "model.safetensors",
            "sha256": model_sha256,
            "parameters": parameters(outcome.job),
        }
    ]
    claims += [epsilon_claim(claim, len(outcome.job.sites)) for claim in outcome.claims]
    if ledgers:
        claims.append(ledger_chain.claim_of(ledgers, outcome.run_id))
    if outcome.trained.conformance is not None:
        claims.append(outcome.trained.conformance)
    if transcript is not None:
        claims += [
            masked_rounds.claim_of(transcript),
            {"id": "secagg.egress", "kind": "asserted", "unmasked_arrays": 0},
        ]
    body = {
        "schema": "collegium/privacy-audit/v1",
        "tool": {"name": "collegium", "version": privacy.__version__},
        "run": _run(outcome),
        "signer": dict(signer),
        "cosigners": report.cosigner_entries(cosigners),
        "audited": None,
        "protections": outcome.protections,
        "claims": claims,
        "utility": _utility(outcome),
        "submodels": submodels_of(outcome),
        **releases(outcome.job, sum(record.attempts for record, _ in outcome.trained.rounds)),
        "rounds": [
            _round(record, loss, divided=outcome.divided is not None) for record, loss in outcome.trained.rounds
        ],
        "egress": [{"site": site, **vars(outcome.egress(site))} for site in outcome.job.sites],
    }
    return limits.told(body, *of_private(outcome.job), *about_chain(outcome.job))


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
                "interval": _interval(outcome.interval(site)),
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


def server_view(outcome: Outcome) -> str:
    """Returns what the server saw of single sites, in words."""
    unequal = outcome.divided is not None and len(outcome.divided.regions) > 1
    return view_of_server(outcome.job, tuple(outcome.trained.roster.nodes), unequal=unequal)


def _interval(ends: tuple[float, float] | None) -> list[str | None] | None:
    return None if ends is None else [_text(end) for end in ends]


def _text(value: float | None) -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:.4f}"
