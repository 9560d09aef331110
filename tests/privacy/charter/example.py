"""A charter of four sites whose officers' keys are at hand, and a job that it allows."""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from privacy.charter.document import Charter, from_body
from privacy.charter.rules import Proposal, Terms
from privacy.charter.signatures import SignedCharter
from privacy.enrolment.bundle import flower_key
from privacy.enrolment.certificates import key_from
from privacy.keys.signing import SigningKey
from privacy.secagg.context import Thresholds

SITES = ("alba", "brno", "cork", "dole")
P384 = ec.SECP384R1()
STUDY = "cd" * 32
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def spelt(name: str) -> str:
    return base64.b64encode(key(name).public_key).decode()


def officer(site: str, name: str = "") -> dict[str, str]:
    name = name or f"officer of {site}"
    return {"name": name, "site": site, "key": spelt(name)}


PENS = {site: key(f"officer of {site}") for site in (*SITES, "evil")}


def flower(name: str, curve: ec.EllipticCurve = P384) -> str:
    return flower_key(key_from(name.encode().ljust(curve.key_size // 8 + 8, b"."), curve).public_key())


def server(**changes: Any) -> dict[str, Any]:
    at_hub = {"id": "hub", "dns": "hub.example", "uri": "spiffe://north/server/hub"}
    return {**at_hub, "identity": spelt("identity of hub"), "flower": None, **changes}


def site(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "identity": spelt(f"identity of {name}"),
        "flower": flower(name),
        "dns": f"{name}.example",
        "uri": f"spiffe://north/site/{name}",
    }


def body(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "collegium/charter/v1",
        "federation": "north",
        "version": 1,
        "previous": None,
        "rule": {"signatures": 3},
        "server": server(),
        "sites": [site(name) for name in SITES],
        "officers": [officer(name) for name in SITES],
        "revoked": ["1f", "a0"],
        "application": "ab" * 32,
        "studies": {"heart": STUDY},
        "strategies": {"fedavg": {}, "fedprox": {"mu": {"low": "0", "high": "0.1"}}},
        "assets": {"hearts": {"purposes": ["training"], "epsilon": "2", "delta": "0.001"}},
        "floors": {"cohort": 4, "survivors": 4, "threshold": 3, "cover": 3},
        "privacy": {name: allowance() for name in ("record", "distributed")},
        "unsafe_without_dp": False,
        "window": {"not_before": "2027-01-01T00:00:00Z", "not_after": "2027-07-01T00:00:00Z"},
        **changes,
    }


def allowance(**changes: str) -> dict[str, str]:
    return {"epsilon": "4", "delta": "0.005", "clip": "1", "noise": "0.8", **changes}


CHARTER = from_body(body())
TERMS = Terms("record", Decimal(1), Decimal("0.001"), Decimal(1), Decimal("1.5"))
ALLOWED = Proposal(
    charter=CHARTER.digest,
    application="ab" * 32,
    study=STUDY,
    strategy="fedprox",
    parameters={"mu": Decimal("0.01")},
    cohort=SITES,
    thresholds=Thresholds(1, 3, 4, 3),
    privacy=(TERMS,),
    purpose="training",
    asset="hearts",
)


def signed(charter: Charter, *who: str) -> SignedCharter:
    made = SignedCharter(charter, {})
    for name in who:
        made = made.signed_by(PENS[name])
    return made


def following(before: Charter, **changes: Any) -> Charter:
    return from_body(body(version=before.version + 1, previous=before.digest, **changes))


def terms(**changes: Any) -> Proposal:
    return replace(ALLOWED, privacy=(replace(TERMS, **changes),))
