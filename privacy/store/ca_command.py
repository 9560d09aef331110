"""``collegium ca``: the offline root of a federation, for whoever keeps it. Needs no network.

The folder has ``root.key``, ``root.pem`` and ``issued/``: every leaf beside the request that it answers. Who gets a
leaf is what the person types, compared with the request; nothing is taken from the request but its keys.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privacy.enrolment import certificates
from privacy.enrolment.bundle import MAX_BUNDLE_BYTES, Enrolment, read_bundle
from privacy.enrolment.certificates import Holder, Role, default_dns, fingerprint
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import keyid
from privacy.store.key_files import check_folder, make_folder, new_folder, read_private, write_new
from privacy.store.run_folder import read_file
from privacy.store.site_keys import fresh_key, read_ec_key, to_pem

ROOT_FILE = "root.pem"
ROOT_KEY_FILE = "root.key"
ISSUED_FOLDER = "issued"
_SKEW = timedelta(minutes=10)  # how far behind a site's clock may be when it gets a certificate
_KEYID = re.compile(r"[0-9a-f]{64}")

_Folder = Annotated[Path, typer.Argument(show_default=False)]
_Days = Annotated[int, typer.Option(min=1, max=398, help="How long the certificate lasts.")]

ca = typer.Typer(name="ca", no_args_is_help=True, add_completion=False)


@ca.callback()
def overview() -> None:
    """Keep a federation's root: issue and renew certificates."""


@ca.command("init")
def init(
    folder: _Folder, federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)]
) -> None:
    """Make a root in the new folder FOLDER; keep it away from any network."""
    now = _now()
    key = fresh_key(secrets.token_bytes)
    end = now + timedelta(days=certificates.ROOT_DAYS)
    root = certificates.new_root(key, federation, serial=_serial(), start=now - timedelta(days=1), end=end)
    with new_folder(folder) as draft:
        write_new(draft / ROOT_KEY_FILE, to_pem(key))
        write_new(draft / ROOT_FILE, root.public_bytes(Encoding.PEM))
        make_folder(draft / ISSUED_FOLDER)
    typer.echo(f"root of {federation} until {end:%Y-%m-%d}: {folder / ROOT_FILE}")
    typer.echo(f"  SHA-256 {fingerprint(root)}")
    typer.echo("Give every site the file, and the fingerprint over another channel.")


@ca.command("issue")
def issue(
    folder: _Folder,
    bundle: Annotated[Path, typer.Argument(show_default=False)],
    site: Annotated[str, typer.Option(help="Whom the certificate is for.", show_default=False)],
    identity: Annotated[str, typer.Option(help="The identity that the site read to you.", show_default=False)],
    dns: Annotated[str | None, typer.Option(help="Host name that was agreed, if the site asked for one.")] = None,
    role: Annotated[Role, typer.Option(help="The coordinator's machine is a server.")] = Role.SITE,
    days: _Days = certificates.LEAF_DAYS,
    replace: Annotated[
        bool, typer.Option("--replace", help="Its keys were lost or stolen: issue beside a certificate in force.")
    ] = False,
) -> None:
    """Issue a certificate to a site that enrols with the request BUNDLE."""
    kept = _Kept.read(folder)
    holder = Holder(kept.federation, site, default_dns(kept.federation, site) if dns is None else dns, role)
    if not _KEYID.fullmatch(identity):
        raise ConfigError(
            "--identity is not a key id", hint="It is 64 digits, as `collegium site enroll` printed them."
        )
    data = read_file(bundle, limit=MAX_BUNDLE_BYTES)
    enrolment = read_bundle(data)
    if enrolment.holder != holder:
        raise VerificationError(
            f"the request is for {enrolment.holder.uri} at {enrolment.holder.dns}, not for {holder.uri} at {holder.dns}"
        )
    if keyid(enrolment.identity) != identity:
        raise VerificationError("the request is signed by another identity than the one given")
    in_force = kept.in_force(holder)
    if in_force and not replace:
        raise VerificationError(
            f"{site} has a certificate until {in_force[-1].end:%Y-%m-%d}",
            hint="Use `collegium ca renew`, or --replace.",
        )
    _issue(kept, enrolment, data, days)
    _tell_old(in_force, "To be revoked:")


@ca.command("renew")
def renew(
    folder: _Folder,
    bundle: Annotated[Path, typer.Argument(show_default=False)],
    days: _Days = certificates.LEAF_DAYS,
) -> None:
    """Issue a site's next certificate, for the new TLS key in BUNDLE, while the old one is in force."""
    kept = _Kept.read(folder)
    data = read_file(bundle, limit=MAX_BUNDLE_BYTES)
    enrolment = read_bundle(data)
    in_force = kept.in_force(enrolment.holder)
    if not in_force:
        raise VerificationError(f"{enrolment.holder.uri} has no certificate in force", hint="Use `collegium ca issue`.")
    last = in_force[-1].enrolment
    if (enrolment.holder, enrolment.identity, enrolment.flower) != (last.holder, last.identity, last.flower):
        raise VerificationError("the request comes with other names or keys than those that were enrolled")
    _issue(kept, enrolment, data, days)
    _tell_old(in_force, "The old one stays good:")


@ca.command("show")
def show(folder: _Folder) -> None:
    """List the root and what it issued, a line a certificate."""
    kept = _Kept.read(folder)
    typer.echo(
        f"root of {kept.federation} until {kept.root.not_valid_after_utc:%Y-%m-%d}, SHA-256 {fingerprint(kept.root)}"
    )
    for one in kept.issued:
        left = one.end - kept.now
        due = timedelta(days=certificates.OVERLAP_DAYS)
        state = "expired" if left < timedelta(0) else "renew now" if left < due else "in force"
        typer.echo(f"{one.enrolment.holder.uri} at {one.enrolment.holder.dns}: {state}, {one.words()}")


@dataclass(frozen=True)
class _Issued:
    """A leaf and the request that it answers."""

    enrolment: Enrolment
    leaf: x509.Certificate

    @property
    def end(self) -> datetime:
        return self.leaf.not_valid_after_utc

    def order(self) -> tuple[str, datetime]:
        """By holder, the last issued last: after a replacement it alone says which identity may renew."""
        return self.enrolment.holder.uri, self.leaf.not_valid_before_utc

    def words(self) -> str:
        return f"until {self.end:%Y-%m-%d}, serial {self.leaf.serial_number:x}, SHA-256 {fingerprint(self.leaf)}"


@dataclass(frozen=True)
class _Kept:
    """What the root's folder holds, checked."""

    folder: Path
    now: datetime
    root: x509.Certificate
    issued: tuple[_Issued, ...]

    @classmethod
    def read(cls, folder: Path) -> "_Kept":
        now = _now()
        root = certificates.read_certificate(read_private(folder / ROOT_FILE))
        certificates.check_root(root, now=now)
        check_folder(folder / ISSUED_FOLDER)
        found = []
        for path in (folder / ISSUED_FOLDER).glob("*.pem"):
            leaf = certificates.read_certificate(read_private(path))
            found.append(_Issued(read_bundle(read_private(path.with_suffix(".json"))), leaf))
        return cls(folder, now, root, tuple(sorted(found, key=_Issued.order)))

    @property
    def federation(self) -> str:
        return certificates.federation_of(self.root)

    def in_force(self, holder: Holder) -> list[_Issued]:
        return [one for one in self.issued if one.enrolment.holder.uri == holder.uri and one.end >= self.now]

    def refuse_shared(self, new: Enrolment) -> None:
        """Refuses a key or a host name that stands for two holders, and a TLS key that has a certificate already."""
        for old in (one.enrolment for one in self.issued):
            if old.request.public_key() == new.request.public_key():
                raise VerificationError(f"the TLS key was certified before, for {old.holder.uri}")
            for what, ours, theirs in (
                ("identity key", new.identity, old.identity),
                ("Flower key", new.flower, old.flower),
                ("host name", new.holder.dns, old.holder.dns),
            ):
                if ours == theirs and new.holder.uri != old.holder.uri:
                    raise VerificationError(f"the {what} is that of {old.holder.uri}")


def _issue(kept: _Kept, enrolment: Enrolment, bundle: bytes, days: int) -> None:
    kept.refuse_shared(enrolment)
    holder = enrolment.holder
    leaf = certificates.issue_leaf(
        enrolment.request,
        holder,
        root=kept.root,
        root_key=read_ec_key(kept.folder / ROOT_KEY_FILE),
        serial=_serial(),
        start=kept.now - _SKEW,
        end=kept.now + timedelta(days=days),
    )
    path = kept.folder / ISSUED_FOLDER / f"{holder.role}-{holder.id}-{leaf.serial_number:x}.pem"
    try:
        write_new(path.with_suffix(".json"), bundle)
        write_new(path, leaf.public_bytes(Encoding.PEM))
    except BaseException:
        if not path.exists():
            path.with_suffix(".json").unlink(missing_ok=True)
        raise
    typer.echo(f"certificate for {holder.uri} at {holder.dns}: {path}")
    typer.echo(f"  {_Issued(enrolment, leaf).words()}")
    typer.echo(f"  identity {keyid(enrolment.identity)}")


def _tell_old(in_force: Sequence[_Issued], words: str) -> None:
    for one in in_force:
        typer.echo(f"{words} {one.words()}")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _serial() -> bytes:
    return secrets.token_bytes(certificates.SERIAL_BYTES)
