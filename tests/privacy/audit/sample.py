"""A realistic report to test with: four hospitals, 15 rounds planned with 2 retries, epsilon 1 at delta 0.001."""

import copy
import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from privacy import __version__
from privacy.audit import envelope, limits, report, statement
from privacy.dp.accounting import Accountant, epsilon, round_up
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation
from privacy.keys.signing import SigningKey
from tests.privacy.audit import ledgers, measured

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(range(1, 33)))
AUDITOR = SigningKey(bytes([77]) * 32)
AUDITED = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
RUN_ID = "20261122-140305-42"
MODEL_SHA256 = hashlib.sha256(b"a model").hexdigest()
DELTA = Decimal("0.001")
# The least noise, to four decimals, that keeps 17 executions at epsilon 1.
NOISE = Decimal("10.6156")
N_TRAIN = {"cleveland": 199, "hungary": 172, "switzerland": 30, "va": 85}
N_TEST = {"cleveland": 104, "hungary": 89, "switzerland": 16, "va": 45}
SCORES = {
    "cleveland": ("0.7885", "0.5962", "0.8077", "0.8173", "0.8269", ["0.7215", "0.8719"]),
    "hungary": ("0.8202", "0.6180", "0.8090", "0.8315", "0.8090", ["0.7152", "0.8772"]),
    "switzerland": ("0.9375", "0.6250", "0.8750", "0.8750", "0.8125", ["0.6398", "0.9650"]),
    "va": ("0.7111", "0.6074", "0.7556", "0.7778", "0.7333", ["0.6133", "0.8576"]),
}


def price(events: list[GaussianEvent], relation: Relation, accountant: Accountant = "PLD") -> str:
    return round_up(epsilon(events, DELTA, relation, accountant))


@cache
def _site_epsilon(site: str, executions: int) -> dict[str, Any]:
    events = [GaussianEvent(NOISE, FULL_BATCH, executions)]
    return {
        "site": site,
        "n_train": N_TRAIN[site],
        "clip": "1",
        "epsilon": price(events, Relation.REPLACE_SPECIAL),
        "epsilon_replace_one": price(events, Relation.REPLACE_ONE),
        "epsilon_rdp": price(events, Relation.REPLACE_SPECIAL, "RDP"),
        "planned_epsilon": price([GaussianEvent(NOISE, FULL_BATCH, 17)], Relation.REPLACE_SPECIAL),
        "events": [event.to_json() for event in events],
    }


def epsilon_claim() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "id": "privacy.epsilon",
            "kind": "asserted",
            "placement": "local",
            "unit": "record",
            "relation": "replace_special",
            "delta": "0.001",
            "accountant": "PLD",
            "target_epsilon": "1",
            "executions_per_attempt": 1,
            "budget_executions": 17,
            # Round 7 was tried twice, and Switzerland missed round 4.
            "sites": [_site_epsilon(site, 15 if site == "switzerland" else 16) for site in N_TRAIN],
        }
    )


def rounds() -> list[dict[str, Any]]:
    sites = list(N_TRAIN)
    late = {"site": "switzerland", "reason": "no answer within 10 s"}
    return [
        {
            "round": number,
            "attempts": 2 if number == 7 else 1,
            "answered": [site for site in sites if not (number == 4 and site == "switzerland")],
            "missing": [late] if number == 4 else [],
            "skipped": False,
            "still": [],
            "loss": f"{0.69 * 0.93**number + 0.31:.4f}",
        }
        for number in range(1, 16)
    ]


def _mean(values: list[str]) -> str:
    return str((sum(map(Decimal, values), Decimal(0)) / len(values)).quantize(Decimal("0.0001")))


def utility() -> dict[str, Any]:
    names = ("home", "elsewhere", "together", "together_without_privacy", "pooled")
    sites = [
        {
            "id": site,
            "n_train": N_TRAIN[site],
            "n_test": N_TEST[site],
            **dict(zip(names, SCORES[site][:5], strict=True)),
            "interval": list(SCORES[site][5]),
        }
        for site in N_TRAIN
    ]
    mean = {name: _mean([str(site[name]) for site in sites]) for name in names}
    return {
        "metric": "accuracy",
        "view": "experimenter, not covered by the privacy claims",
        "sites": sites,
        "mean": mean,
        "left_out": [
            {"id": "va", "n_test": 45, "score": "0.7333", "trained_by": ["cleveland", "hungary", "switzerland"]}
        ],
        "baselines": {"constant": "0.6370", "majority": "0.7210"},
    }


def predicate() -> dict[str, Any]:
    return copy.deepcopy(_predicate())


@cache
def _predicate() -> dict[str, Any]:
    body = _without_evidence()
    body["claims"] += ledgers.evidence(body)
    return told(body)


def _without_evidence() -> dict[str, Any]:
    return {
        "schema": "collegium/privacy-audit/v1",
        "tool": {"name": "collegium", "version": __version__},
        "run": {
            "id": RUN_ID,
            "scenario": "hospitals",
            "title": "Heart disease at four hospitals",
            "data": "UCI Heart Disease, Janosi, Steinbrunn, Pfisterer and Detrano 1988, CC BY 4.0",
            "strategy": "fedavg",
            "engine": "local",
            "seed": 42,
            "rounds": 15,
            "completed": 15,
            "skipped": 0,
            "status": "finished",
            "started": "2026-11-22T14:03:05Z",
            "finished": "2026-11-22T14:03:19Z",
        },
        "signer": report.signer_entry(KEY),
        "cosigners": [],
        "audited": None,
        "protections": {"secagg": False, "record_dp": True, "site_dp": False, "distributed_dp": False, "tls": False},
        "claims": [
            {
                "id": "model.digest",
                "kind": "attested",
                "file": "model.safetensors",
                "sha256": MODEL_SHA256,
                "parameters": 14,
            },
            epsilon_claim(),
        ],
        "utility": utility(),
        "submodels": None,
        "rounds": rounds(),
        "egress": [{"site": site, "messages": 16, "bytes": 4976, "unmasked_arrays": 16} for site in N_TRAIN],
    }


def plain_predicate() -> dict[str, Any]:
    """The same run without privacy."""
    body = predicate()
    body["protections"]["record_dp"] = False
    body["claims"] = body["claims"][:1]
    for scores in (*body["utility"]["sites"], body["utility"]["mean"]):
        scores["together_without_privacy"] = None
    return told(body)


@cache
def audited() -> bytes:
    """The same run's report, taken up by an auditor who tried every attack."""
    claims, _scores = measured.attacked([predicate()["claims"][1]])
    return report.audited(signed(), claims, AUDITOR, AUDITED)


def audited_predicate() -> dict[str, Any]:
    """What the auditor of ``audited`` signed."""
    return statement.decode(envelope.decode(audited()).payload).predicate


def ledgers_file() -> bytes:
    """The ledgers behind the report."""
    return ledgers.behind(_predicate())


def told(body: dict[str, Any]) -> dict[str, Any]:
    """The same, with the limits that follow from it, and nothing else about them."""
    return limits.told(body)


def signed(body: dict[str, Any] | None = None) -> bytes:
    """An honest report."""
    return report.sign(predicate() if body is None else body, MODEL_SHA256, KEY)


def forged(body: dict[str, Any], key: SigningKey = KEY, model_sha256: str = MODEL_SHA256) -> bytes:
    """A report that skips the checks a truthful signer makes; it names ``key`` as its signer."""
    body["signer"] = report.signer_entry(key)
    return envelope.sign(statement.encode(body, model_sha256), key)
