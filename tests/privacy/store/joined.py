"""A federation of four enrolled sites and a coordinator, with everything that they are given to join with."""

import base64
import random
import secrets
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from privacy.charter.document import from_body
from privacy.charter.signatures import SignedCharter
from privacy.enrolment.certificates import Holder, Role, fingerprint
from privacy.store import joining, site_keys
from privacy.store.application import application_digest
from privacy.store.joining import Papers
from privacy.store.site_folder import SiteFolder
from strategies.study import Study, read_study
from tests.privacy.charter import example
from tests.privacy.enrolment.issuing import DAY, NOW, Authority

SITES = example.SITES
SERVER = "hub"
STUDY = """
name = "clinics"
title = "Illness in four clinics"
sites = ["alba", "brno", "cork", "dole"]
features = [
  { name = "age", kind = "continuous", range = [18, 100] },
  { name = "smoker", kind = "categorical", categories = ["no", "yes"] },
]

[target]
name = "ill"

[model]
kind = "logistic"

[training]
rounds = 3
learning_rate = 0.5
"""
SITE_TOML = """
server = "https://127.0.0.1:9443"
timezone = "Europe/Prague"

[asset.hearts]
path = "table.csv"
purposes = ["training"]
sensitivity = "special-category"
"""
SERVER_TOML = 'listen = "127.0.0.1:0"\n'
POLICY = '@id("anything")\npermit (principal, action, resource);\n'
FULL_BATCHES = {"fedavg": {"batch": {"low": "0", "high": "0"}}}


def table(rows: int = 60, *, header: str = "id,age,smoker,ill") -> str:
    drawn = random.Random(7)  # noqa: S311 - invented patients, the same every time
    lines = [
        f"p{number},{drawn.randint(20, 90)},{drawn.choice(['no', 'yes'])},{drawn.randint(0, 1)}"
        for number in range(rows)
    ]
    return "\n".join([header, *lines]) + "\n"


@dataclass
class Federation:
    """Everybody's keys, made in the folder; ``charter`` is what its officers would sign."""

    path: Path
    authority: Authority = field(default_factory=lambda: Authority.of(1, "north"))
    study: Study = field(default_factory=lambda: read_study(STUDY, where="study.toml"))
    folders: dict[str, SiteFolder] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*SITES, SERVER):
            role = Role.SERVER if name == SERVER else Role.SITE
            holder = Holder("north", name, f"{name}.example", role)
            site_keys.create(self.path / name, holder, secrets.token_bytes)
            self.folders[name] = SiteFolder(self.path / name)

    def charter(self, *signers: str, **changes: Any) -> SignedCharter:
        start, end = NOW - DAY, NOW + 60 * DAY
        listed = {
            "server": self._entry(SERVER),
            "sites": [self._entry(name) for name in SITES],
            "revoked": [],
            "application": application_digest(),
            "studies": {"clinics": self.study.digest},
            "strategies": FULL_BATCHES,
            "window": {"not_before": f"{start:%Y-%m-%dT%H:%M:%SZ}", "not_after": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
        }
        return example.signed(from_body(example.body(**{**listed, **changes})), *(signers or SITES))

    def _entry(self, name: str) -> dict[str, Any]:
        enrolled = self.folders[name].enrolment
        return {
            "id": name,
            "identity": base64.b64encode(enrolled.identity).decode(),
            "flower": enrolled.flower,
            "dns": enrolled.holder.dns,
            "uri": enrolled.holder.uri,
        }

    def leaf(self, name: str = "alba", *, key: str = "tls.key", days: float = 90, serial: int = 77) -> bytes:
        folder = self.folders[name]
        made = self.authority.leaf(
            folder.holder,
            site_keys.read_ec_key(folder.path / key),
            start=NOW - (DAY if key == "tls.key" else timedelta(hours=1)),
            end=NOW + days * DAY,
            serial=serial,
        )
        return made.public_bytes(Encoding.PEM)

    def papers(self, name: str = "alba", *charters: SignedCharter, **changes: Any) -> Papers:
        given = Papers(
            certificate=self.leaf(name),
            root=self.authority.root.public_bytes(Encoding.PEM),
            charters=[one.encode() for one in charters or (self.charter(),)],
            study=STUDY.encode(),
            study_digest=self.study.digest,
            patients=bool(self.study.task.patient),
            policy=POLICY.encode(),
            settings=(SERVER_TOML if name == SERVER else SITE_TOML).encode(),
        )
        return replace(given, **changes)

    def join(self, name: str = "alba", papers: Papers | None = None, *charters: SignedCharter) -> SiteFolder:
        folder = self.folders[name]
        last = (charters or (self.charter(),))[-1].charter
        given = papers or self.papers(name, *charters)
        joining.join(folder, given, root=fingerprint(self.authority.root), digest=last.digest, now=NOW)
        (folder.path / "table.csv").write_text(table())
        return folder


def files(folder: SiteFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
