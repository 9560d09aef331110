"""The body of the signed report (``privacy-audit-v1.json``): claims, their limits, and what they rest on."""

import math
from collections.abc import Mapping
from typing import Any

import privacy
from privacy.audit import ledger_chain, masked_rounds, report
from server import limits
from server.claims import epsilon_claim
from server.model_file import parameters
from server.releases import not_protected as about_chain
from server.releases import releases
from server.rounds import RoundRecord
from simulations.outcome import Outcome
from simulations.summary import submodels

_OWN_VIEW = "Scores, losses and the comparison models are the experimenter's view and not covered by epsilon."


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
    return {
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


def server_view(outcome: Outcome) -> str:
    """Returns what the server saw of single sites, in words."""
    return limits.server_view(outcome.job, tuple(outcome.trained.roster.nodes), unequal=_is_unequal(outcome))


def _is_unequal(outcome: Outcome) -> bool:
    return outcome.divided is not None and len(outcome.divided.regions) > 1


def not_protected(outcome: Outcome) -> list[str]:
    """Returns what this run does not protect, in words; a mandatory part of every report."""
    return [
        server_view(outcome),
        *limits.of_division(
            outcome.job, submodels_of(outcome), len(outcome.trained.rounds), unequal=_is_unequal(outcome)
        ),
        *limits.of_privacy(outcome.job, outcome.claims, _OWN_VIEW),
        *about_chain(outcome.job),
        "All parties ran on one machine, without TLS: this is a simulation and shows nothing about transport.",
        "Nothing shows that a site trained honestly, nor who holds the key that signed this report.",
    ]


def assumptions(outcome: Outcome) -> list[str]:
    """Returns what the claims rest on."""
    lines = limits.assumptions(outcome.claims, unequal=_is_unequal(outcome))
    if outcome.job.secagg:
        lines += [
            "The roster's keys are those of the sites that it names; in this simulation one program made and held all.",
            "No attempt was made beside those listed, nothing sent beside what was counted: no document can show it.",
            "The delivered model came out of the sums listed: no site signs the model that comes out.",
        ]
    return lines or ["The model file is the one that the run's key signed."]


def _text(value: float | None) -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:.4f}"
