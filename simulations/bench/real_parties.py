"""A federation on one machine, made for a measurement: keys, certificates, a charter, folders that have joined.

Ours and stock Flower's sides use the same: the coordinator's certificate, the sites' node keys, the sites' rows.
"""

import base64
import json
import os
import pwd
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clients.assets import load as load_asset
from privacy.charter.document import SCHEMA, from_body
from privacy.charter.signatures import SignedCharter
from privacy.enrolment.certificates import Holder, Role, default_dns, fingerprint, issue_leaf, new_request, new_root
from privacy.errors import ConfigError
from privacy.keys.signing import SEED_BYTES, SigningKey
from privacy.policy import shipped
from privacy.store import site_keys
from privacy.store.application import application_digest
from privacy.store.joining import Papers, join
from privacy.store.key_files import make_folder
from privacy.store.site_folder import SiteFolder
from simulations.export import export
from simulations.members import data_home
from simulations.scenario import load
from strategies.invitation import TRAINING_PARAMETERS
from strategies.study import Study, read_study

FEDERATION = "bench"
HUB = "hub"
ASSET = "customers"
PURPOSE = "training"
HOST = "localhost"
"""The name in the coordinator's certificate; stock Flower checks it against the address that it dials."""

_ANY = {"low": "0", "high": "1000"}
_POLICY = (
    '@id("on-its-assets")\npermit (principal, action, resource) when { resource.purposes.contains("training") };\n'
)
_SCENARIO = """
based_on = "banks"
name = "banks-wide"
title = "Credit default in ten banks, with a larger model"

[model]
kind = "mlp"
hidden = {hidden}
"""


def hidden_for(parameters: int, n_inputs: int) -> int:
    """Returns the hidden units with which an MLP of one output has about so many parameters."""
    return max(1, round((parameters - 1) / (n_inputs + 2)))


@dataclass(frozen=True)
class Parties:
    """Everybody, each in a folder under ``path``; the coordinator in ``hub``.

    Attributes:
      sites: Their names, in the study's order.
      root: Where the federation's root certificate is.
      port: On which the coordinator will listen, on loopback.
      terms: What the charter says beside what every benchmark's does.
      policy: Of every site.
      channel: Where each site answers other agents, on loopback, by site; empty: nowhere.
    """

    path: Path
    study: Study
    sites: tuple[str, ...]
    root: Path
    port: int
    terms: Mapping[str, Any] = field(default_factory=dict)
    policy: str = _POLICY
    channel: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def made(cls, path: Path, *, parameters: int, port: int) -> "Parties":
        """Makes them, with the ten banks' rows and a study of about so many parameters. Takes seconds.

        Raises: ConfigError: The banks' data is not at hand.
        """
        scenario = path / "banks-wide.toml"
        n_inputs = load("banks").task.n_inputs
        scenario.write_text(_SCENARIO.format(hidden=hidden_for(parameters, n_inputs)), encoding="utf-8")
        exported = export(str(scenario), path / "data", data_home())
        text = exported.study.read_text(encoding="utf-8")
        return cls.joined(path, text, exported.settings, port=port)

    @classmethod
    def joined(cls, path: Path, text: str, settings: Mapping[str, Any], **more: Any) -> "Parties":
        """Makes them around rows that are there: ``data/SITE.csv``.

        Args:
          path: Of everything.
          text: The study.
          settings: Of every site's asset.
          more: Further fields.
        """
        study = read_study(text, where="study.toml")
        made = cls(path, study, study.sites, path / "root.pem", **more)
        made._join(text, {**settings, "sensitivity": "financial", "purposes": [PURPOSE]})
        return made

    def folder(self, name: str) -> SiteFolder:
        """Returns the folder of a party."""
        return SiteFolder(self.path / name)

    @cached_property
    def n_parameters(self) -> int:
        """Of the study's model."""
        hidden = self.study.task.model.hidden[0]
        return hidden * (self.study.task.n_inputs + 2) + 1

    def public_key(self, site: str) -> Path:
        """Writes the site's node key as `flwr supernode register` reads it."""
        path = self.path / f"{site}.pub"
        path.write_bytes(self.folder(site).flower.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
        return path

    def rows(self, site: str) -> Path:
        """Writes the rows that train at a site as a plain Flower app would keep them: arrays, encoded already."""
        path = self.path / f"{site}.npz"
        train = load_asset(self.folder(site).settings.assets[ASSET], self.study.task).train
        np.savez(path, x=train.x, y=train.y)
        return path

    def _join(self, study: str, settings: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        root = Root.made(now)
        self.root.write_bytes(root.certificate.public_bytes(Encoding.PEM))
        for name in (*self.sites, HUB):
            site_keys.create(self.path / name, _holder(name), secrets.token_bytes)
        charter = self._charter(now)
        for name in (*self.sites, HUB):
            papers = Papers(
                certificate=root.leaf(self.folder(name), now),
                root=self.root.read_bytes(),
                charters=[charter.encode()],
                study=study.encode(),
                study_digest=self.study.digest,
                patients=False,
                policy=(shipped.read("server.cedar") if name == HUB else self.policy).encode(),
                settings=(self._server_toml() if name == HUB else self._site_toml(name, settings)).encode(),
            )
            join(self.folder(name), papers, root=fingerprint(root.certificate), digest=charter.charter.digest, now=now)
        make_folder(self.path / HUB / "control")

    def _charter(self, now: datetime) -> SignedCharter:
        pens = {site: SigningKey(secrets.token_bytes(SEED_BYTES)) for site in sorted(self.sites)}
        charter = from_body(
            {
                "schema": SCHEMA,
                "federation": FEDERATION,
                "version": 1,
                "previous": None,
                "rule": {"signatures": len(pens) // 2 + 1},
                "server": self._entry(HUB),
                "sites": [self._entry(site) for site in pens],
                "officers": [
                    {"name": f"Officer of {site}", "site": site, "key": _base64(pen.public_key)}
                    for site, pen in pens.items()
                ],
                "revoked": [],
                "application": application_digest(),
                "studies": {self.study.name: self.study.digest},
                "strategies": {"fedavg": dict.fromkeys(TRAINING_PARAMETERS, _ANY)},
                "assets": {ASSET: {"purposes": [PURPOSE], "epsilon": "4", "delta": "0.001"}},
                "floors": {"cohort": 3, "survivors": 3, "threshold": 2, "cover": 3},
                "privacy": {"record": {"epsilon": "1", "delta": "0.001", "clip": "1", "noise": "1"}},
                "unsafe_without_dp": True,
                "window": {"not_before": _moment(now - timedelta(days=1)), "not_after": _moment(now + timedelta(7))},
                **self.terms,
            }
        )
        signed = SignedCharter(charter, {})
        for pen in pens.values():
            signed = signed.signed_by(pen)
        return signed

    def _entry(self, name: str) -> dict[str, Any]:
        enrolled = self.folder(name).enrolment
        holder = enrolled.holder
        return {
            "id": holder.id,
            "identity": _base64(enrolled.identity),
            "flower": enrolled.flower,
            "dns": holder.dns,
            "uri": holder.uri,
        }

    def _server_toml(self) -> str:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid-{os.getuid()}"
        return f'listen = "127.0.0.1:{self.port}"\n[roles]\noperator = ["{user}"]\nreader = ["{user}"]\n'

    def _site_toml(self, site: str, settings: Mapping[str, Any]) -> str:
        lines = [f'server = "https://127.0.0.1:{self.port}"', f"[asset.{ASSET}]"]
        told = {"path": str(self.path / "data" / f"{site}.csv"), **settings}
        lines += [f"{key} = {json.dumps(value)}" for key, value in told.items()]
        if self.channel:
            lines += ["[channel]", f'listen = "127.0.0.1:{self.channel[site]}"', "[channel.peers]"]
            lines += [f'{peer} = "127.0.0.1:{port}"' for peer, port in self.channel.items()]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Root:
    """The keeper of the root; the key lives as long as the folders are made."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made(cls, now: datetime) -> "Root":
        """Draws a root that holds for a month."""
        key = site_keys.fresh_key(secrets.token_bytes)
        start, end = now - timedelta(days=2), now + timedelta(days=30)
        return cls(key, new_root(key, FEDERATION, serial=secrets.token_bytes(16), start=start, end=end))

    def leaf(self, folder: SiteFolder, now: datetime) -> bytes:
        """Returns the certificate of a party's TLS key, PEM."""
        key = site_keys.read_ec_key(folder.path / site_keys.TLS_FILE)
        leaf = issue_leaf(
            new_request(key, folder.holder),
            folder.holder,
            root=self.certificate,
            root_key=self.key,
            serial=secrets.token_bytes(16),
            start=now - timedelta(days=1),
            end=now + timedelta(days=20),
        )
        return leaf.public_bytes(Encoding.PEM)


def banks_of(sites: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns the first ``count`` sites. Raises: ConfigError: There are not so many."""
    if count > len(sites):
        raise ConfigError(f"there are {len(sites)} banks, not {count}")
    return tuple(sites[:count])


def _holder(name: str) -> Holder:
    if name == HUB:
        return Holder(FEDERATION, name, HOST, Role.SERVER)
    return Holder(FEDERATION, name, default_dns(FEDERATION, name))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
