"""The charter of a simulated federation: made for one run, signed by officers who exist for that moment only.

It is as wide as a charter may be, so that people can try things, unless the scenario lists its strategies. It shows
that the gate is asked, in every engine; what it allows is nobody's considered agreement, and the report says so.
"""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from privacy.audit import canonical
from privacy.audit.approval import CHARTER_FILE, adopted
from privacy.charter.document import MAX_CLIP, MAX_DELTA, MAX_EPSILON, MIN_NOISE, SCHEMA, SETTINGS, Charter, parse
from privacy.charter.signatures import SignedCharter
from privacy.keys.signing import SEED_BYTES, SigningKey
from privacy.secagg.context import MIN_SITES
from privacy.store.application import SUFFIXES, application_digest
from privacy.store.run_folder import RunFolder, read_file
from simulations.identities import COORDINATOR, Identities
from simulations.job import Job
from strategies.invitation import TRAINING_PARAMETERS
from strategies.registry import ALGORITHMS

ASSET = "training-records"
PURPOSE = "training"
_ANY = {"low": "0", "high": "1000000000"}


def simulated_application() -> str:
    """Returns the digest of the application without its policies, which no simulation asks.

    Under ``flwr run``, some processes run from Flower's bundle, which cannot hold them, and others beside it.
    """
    return application_digest(suffixes=SUFFIXES - {".cedar", ".cedarschema"})


def federation_of(job: Job) -> str:
    """Returns the name of the simulated federation."""
    return job.scenario.name


def establish(job: Job, folder: RunFolder, now: datetime) -> None:
    """Draws everybody's identity keys and writes the charter that lists them. Raises: ConfigError: It cannot."""
    identities = Identities.create(folder.path, job.sites)
    folder.append(CHARTER_FILE, demo_charter(job, identities, now).encode())


def demo_charter(job: Job, identities: Identities, now: datetime) -> SignedCharter:
    """Returns the charter of a simulated run, adopted.

    Args:
      job: Its sites take part, and its study may be run.
      identities: Whose keys are in it.
      now: It is in force from the day before until a week later.
    """
    pens = {site: SigningKey(secrets.token_bytes(SEED_BYTES)) for site in job.sites}
    charter = parse(
        canonical.dumps(_body(job, identities, {site: pens[site].public_key for site in sorted(pens)}, now))
    )
    signed = SignedCharter(charter, {})
    for pen in pens.values():
        signed = signed.signed_by(pen)
    return signed


def pinned(folder: Path) -> Charter:
    """Returns the charter of the run in ``folder``, checked. Raises: FederationError: It does not hold."""
    return adopted(read_file(folder / CHARTER_FILE))


def _body(job: Job, identities: Identities, officers: Mapping[str, bytes], now: datetime) -> dict[str, Any]:
    federation = federation_of(job)
    unlisted = {"flower": None, "dns": None, "uri": None}
    sites = [{"id": site, "identity": _base64(identities.roster.keys[site]), **unlisted} for site in sorted(job.sites)]
    chosen = job.scenario.allowed or tuple(ALGORITHMS)
    weakest = {"epsilon": str(MAX_EPSILON), "delta": str(MAX_DELTA)}
    return {
        "schema": SCHEMA,
        "federation": federation,
        "version": 1,
        "previous": None,
        "rule": {"signatures": len(sites) // 2 + 1},
        "server": {
            "id": COORDINATOR,
            "identity": _base64(identities.coordinator.public_key),
            "flower": None,
            "dns": f"{COORDINATOR}.{federation}.internal".replace("_", "-"),
            "uri": f"spiffe://{federation}/server/{COORDINATOR}",
        },
        "sites": sites,
        "officers": [{"name": f"demo {site}", "site": site, "key": _base64(key)} for site, key in officers.items()],
        "revoked": [],
        "application": simulated_application(),
        "studies": {job.scenario.name: job.scenario.study.digest},
        "strategies": {name: dict.fromkeys((*TRAINING_PARAMETERS, *vars(ALGORITHMS[name]())), _ANY) for name in chosen},
        "assets": {ASSET: {"purposes": [PURPOSE], **weakest}},
        "floors": {"cohort": MIN_SITES, "survivors": MIN_SITES, "threshold": 2, "cover": MIN_SITES},
        "privacy": {name: {**weakest, "clip": str(MAX_CLIP), "noise": str(MIN_NOISE)} for name in SETTINGS},
        "unsafe_without_dp": True,
        "window": {"not_before": _moment(now - timedelta(days=1)), "not_after": _moment(now + timedelta(days=7))},
    }


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
