"""A whole small federation in a folder, as its people would have made it: keys, certificates, charter, all joined.

``federate(folder)`` takes half a second, ``copied`` a tenth of that; nothing listens yet. Under ``folder`` lie a
folder for each site, one for the coordinator, ``hub``, and ``data/SITE.csv``. The clock is the real one, because TLS
looks at it.
"""

import base64
import pwd
import random
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from os import getuid
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from privacy.charter.document import Charter, from_body
from privacy.charter.signatures import SignedCharter
from privacy.enrolment.certificates import Holder, Role, fingerprint, issue_leaf, new_request, new_root
from privacy.keys.signing import SigningKey
from privacy.policy import shipped
from privacy.store import joining, site_keys
from privacy.store.application import application_digest
from privacy.store.joining import Papers
from privacy.store.site_folder import SiteFolder
from strategies.invitation import TRAINING_PARAMETERS
from strategies.registry import ALGORITHMS
from strategies.study import Study, read_study

NAME = "north"
HUB = "hub"
SITES = ("alba", "brno", "cork", "dole")
ASSET = "hearts"
PURPOSE = "training"
DAY = timedelta(days=1)
STUDY = """
name = "clinics"
title = "Illness in small clinics"
sites = {sites}
features = [
  {{ name = "age", kind = "continuous", range = [18, 100] }},
  {{ name = "smoker", kind = "categorical", categories = ["no", "yes"] }},
]

[target]
name = "ill"

[model]
kind = "logistic"

[training]
rounds = 3
learning_rate = 0.5
clip = 1.0
"""
OPEN = '@id("on-its-assets")\npermit (principal, action, resource) when {{ {condition} }};\n'
SITE_POLICY = OPEN.format(condition="resource.purposes.contains(context.purpose)")
"""Of a site: whatever the charter allows on its assets."""
CHANNEL_POLICY = SITE_POLICY.replace(
    "action,", 'action in [Action::"train", Action::"hold", Action::"release", Action::"ask"],'
)
"""Likewise, and whatever it allows agents to want of each other."""

_ANY = {"low": "0", "high": "1000"}


@cache
def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The keeper of the root; one for all federations of a test session."""
    key, start = site_keys.fresh_key(secrets.token_bytes), datetime.now(UTC) - 9 * DAY
    return key, new_root(key, NAME, serial=secrets.token_bytes(16), start=start, end=start + 3650 * DAY)


def study_of(sites: tuple[str, ...] = SITES, text: str = STUDY) -> str:
    """The study as its file says it."""
    return text.format(sites=list(sites))


def table(site: str, rows: int = 60) -> str:
    """Invented patients, the same every time; older smokers are ill more often."""
    drawn, lines = random.Random(site), ["id,age,smoker,ill"]  # noqa: S311 - not a secret
    for number in range(rows):
        age, smoker = drawn.randint(20, 90), drawn.choice(["no", "yes"])
        ill = int(age + 20 * (smoker == "yes") + drawn.gauss(0, 12) > 65)
        lines.append(f"{site}-{number},{age},{smoker},{ill}")
    return "\n".join(lines) + "\n"


def charter_body(folders: Mapping[str, SiteFolder], study: Study, **changes: Any) -> dict[str, Any]:
    """What a charter says unless ``changes`` says otherwise: every strategy, full batches, wide ranges, floors of 3."""
    sites = [name for name in folders if name != HUB]
    now = datetime.now(UTC)
    ranges = dict.fromkeys(TRAINING_PARAMETERS, _ANY) | {"batch": {"low": "0", "high": "0"}}
    terms = {"epsilon": "2", "delta": "0.001"}
    return {
        "schema": "collegium/charter/v1",
        "federation": NAME,
        "version": 1,
        "previous": None,
        "rule": {"signatures": len(sites) // 2 + 1},
        "server": _entry(folders[HUB]),
        "sites": [_entry(folders[name]) for name in sorted(sites)],
        "officers": [_officer(name) for name in sorted(sites)],
        "revoked": [],
        "application": application_digest(),
        "studies": {study.name: study.digest},
        "strategies": {name: {**ranges, **dict.fromkeys(vars(kind()), _ANY)} for name, kind in ALGORITHMS.items()},
        "assets": {ASSET: {"purposes": [PURPOSE], "epsilon": "4", "delta": "0.001"}},
        "floors": {"cohort": 3, "survivors": 3, "threshold": 2, "cover": 3},
        "privacy": {name: {**terms, "clip": "10", "noise": "0.5"} for name in ("record", "site", "distributed")},
        "unsafe_without_dp": True,
        "window": {"not_before": moment(now - DAY), "not_after": moment(now + 60 * DAY)},
        **changes,
    }


def moment(when: datetime) -> str:
    """A moment as charters spell it."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Federation:
    """Everybody in it.

    Attributes:
      path: Where all folders are.
      study: What is learnt.
      folders: By name of the site, and ``hub``.
      versions: Of the charter, all signed; the last one is in force.
      changes: What the charter says other than ``charter_body``.
    """

    path: Path
    study: Study
    folders: Mapping[str, SiteFolder]
    versions: list[SignedCharter] = field(default_factory=list)
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(name for name in self.folders if name != HUB)

    @property
    def hub(self) -> SiteFolder:
        """The coordinator's folder."""
        return self.folders[HUB]

    @property
    def charter(self) -> Charter:
        """In force."""
        return self.versions[-1].charter

    def data(self, site: str) -> Path:
        """The table of a site."""
        return self.path / "data" / f"{site}.csv"

    def rewrite(self, name: str, file: str, *, old: str, new: str) -> None:
        """Edits a file in a party's folder, as its people would."""
        path = self.folders[name].path / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def amend(self, *names: str, **changes: Any) -> Charter:
        """Adopts a next version of the charter and pins it: at everybody, or at those who are named."""
        before = self.charter
        self.changes = {**self.changes, **changes}
        following = {"version": before.version + 1, "previous": before.digest}
        body = charter_body(self.folders, self.study, **{**self.changes, **following})
        self.versions.append(_adopted(from_body(body)))
        for name in names or self.folders:
            joining.add_charter(self.folders[name], self.versions[-1].encode())
        return self.charter

    def copied(self, path: Path) -> "Federation":
        """Returns a second federation of the same people, as this one is now; half as dear as a new one."""
        shutil.copytree(self.path, path)
        folders = {name: SiteFolder(path / name) for name in self.folders}
        return replace(self, path=path, folders=folders, versions=[*self.versions])

    def certificate(self, name: str, *, start: datetime | None = None, end: datetime | None = None) -> x509.Certificate:
        """Issues a certificate for the TLS key of a party."""
        root_key, root = _authority()
        key = site_keys.read_ec_key(self.folders[name].path / site_keys.TLS_FILE)
        holder, now = self.folders[name].holder, datetime.now(UTC).replace(microsecond=0)
        request, serial = new_request(key, holder), secrets.token_bytes(16)
        dates = {"start": start or now - DAY, "end": end or now + 90 * DAY}
        return issue_leaf(request, holder, root=root, root_key=root_key, serial=serial, **dates)


def federate(
    path: Path,
    sites: tuple[str, ...] = SITES,
    study: str = "",
    policy: str = SITE_POLICY,
    asset: str = "",
    port: int = 9443,
    **changes: Any,
) -> Federation:
    """Makes the federation; all have joined.

    Args:
      path: A new folder, or one that is empty.
      sites: Their names.
      study: TOML; by default three rounds of a logistic model on two features.
      policy: Of every site, in Cedar.
      asset: Further lines of ``[asset.hearts]`` in every site.toml, such as ``claims = ["record-distributed"]``.
      port: Where the coordinator will listen on loopback; ``server.toml`` and every ``site.toml`` say it.
      changes: What the charter says other than ``charter_body``.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    (path / "data").mkdir(mode=0o700)
    folders = {}
    for name in (*sites, HUB):
        role = Role.SERVER if name == HUB else Role.SITE
        holder = Holder(NAME, name, "localhost" if name == HUB else f"{name}.north.internal", role)
        site_keys.create(path / name, holder, secrets.token_bytes)
        folders[name] = SiteFolder(path / name)
    text = study or study_of(sites)
    made = Federation(path, read_study(text, where="study.toml"), folders, changes=changes)
    made.versions.append(_adopted(from_body(charter_body(folders, made.study, **changes))))
    for name in sites:
        made.data(name).write_text(table(name))
        _join(made, name, text, policy, _SITE_TOML.format(port=port, site=name, asset=asset))
    _join(made, HUB, text, shipped.read("server.cedar"), _SERVER_TOML.format(port=port, user=_user()))
    return made


_SITE_TOML = """
server = "https://127.0.0.1:{port}"

[asset.hearts]
path = "../data/{site}.csv"
purposes = ["training"]
sensitivity = "special-category"
{asset}
"""
_SERVER_TOML = """
listen = "127.0.0.1:{port}"

[roles]
operator = ["{user}"]
reader = ["{user}"]
"""


def _join(made: Federation, name: str, study: str, policy: str, settings: str) -> None:
    _, root = _authority()
    papers = Papers(
        certificate=made.certificate(name).public_bytes(Encoding.PEM),
        root=root.public_bytes(Encoding.PEM),
        charters=[made.versions[0].encode()],
        study=study.encode(),
        study_digest=made.study.digest,
        patients=bool(made.study.task.patient),
        policy=policy.encode(),
        settings=settings.encode(),
    )
    now = datetime.now(UTC)
    joining.join(made.folders[name], papers, root=fingerprint(root), digest=made.charter.digest, now=now)


def _pen(site: str) -> SigningKey:
    """The key of a site's officer."""
    return SigningKey(f"officer of {site}".encode().ljust(32)[:32])


def _adopted(charter: Charter) -> SignedCharter:
    signed = SignedCharter(charter, {})
    for site in charter.sites:
        signed = signed.signed_by(_pen(site))
    return signed


def _entry(folder: SiteFolder) -> dict[str, Any]:
    enrolled = folder.enrolment
    return {
        "id": enrolled.holder.id,
        "identity": base64.b64encode(enrolled.identity).decode(),
        "flower": enrolled.flower,
        "dns": enrolled.holder.dns,
        "uri": enrolled.holder.uri,
    }


def _officer(site: str) -> dict[str, str]:
    return {"name": f"Officer of {site}", "site": site, "key": base64.b64encode(_pen(site).public_key).decode()}


def _user() -> str:
    try:
        return pwd.getpwuid(getuid()).pw_name
    except KeyError:
        return f"uid-{getuid()}"
