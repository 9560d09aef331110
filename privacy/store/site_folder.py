"""A party's folder, a site's or the coordinator's: keys, certificates, pinned charters, settings, log and ledger.

Everything is read here and nowhere else. The folder has mode 0700 and belongs to the user that reads it; secrets are of
mode 0600; what is public may be read by anybody and written by nobody else. ``joining`` fills the folder.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from privacy.audit.checkpoint import NoteKey
from privacy.charter.document import Charter
from privacy.charter.signatures import MAX_FILE_BYTES, SignedCharter, decode, verify_chain
from privacy.enrolment.bundle import Enrolment, flower_key, read_bundle
from privacy.enrolment.certificates import Holder, Role, Usage, check_leaf, read_certificate
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey
from privacy.store.key_files import check_folder, read_private
from privacy.store.ledger import Ledger
from privacy.store.log import Log
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_keys import FLOWER_FILE, read_ec_key, read_identity
from privacy.store.site_settings import ServerSettings, SiteSettings, read_server_settings, read_site_settings

ROOT_FILE = "ca.crt"
LOG_FILE = "log.db"
LOCK_FILE = "lock"
PAUSED_FILE = "paused"
WITNESS_FILE = "witness"
SETTINGS_FILE = {Role.SITE: "site.toml", Role.SERVER: "server.toml"}

_TLS = re.compile(r"tls(-[1-9][0-9]*)?\.key")
_CHARTER = re.compile(r"charter-([1-9][0-9]*)\.json")
_BUNDLE = re.compile(r"enrol-[a-z0-9-]+\.json")
_JOIN = "collegium site join puts everything there."


class Tls(NamedTuple):
    """Paths for an SSL context: the party's certificate, the private key that goes with it, the federation's root."""

    certificate: Path
    key: Path
    root: Path


class SiteFolder:
    """A folder that ``collegium site enroll`` made; keys are read once, everything else whenever it is asked for.

    Attributes:
      path: Absolute.
      enrolment: The bundle of public keys that the party enrolled with.
    """

    def __init__(self, path: Path) -> None:
        """Opens the folder. Raises: ConfigError: It is none, others can enter it, or it holds no party's keys."""
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links the user chose
        check_folder(self.path)
        self.enrolment = self._enrolment()

    @property
    def holder(self) -> Holder:
        """Who it belongs to."""
        return self.enrolment.holder

    @property
    def origin(self) -> str:
        """Name of the party's log: ``FEDERATION/site/ID`` or ``FEDERATION/server/ID``."""
        return f"{self.holder.federation}/{self.holder.role}/{self.holder.id}"

    @property
    def usage(self) -> Usage:
        """Which end of a connection its certificate is for here: a site dials, the coordinator is dialled."""
        return Usage.CLIENT if self.holder.role is Role.SITE else Usage.SERVER

    @property
    def settings_file(self) -> str:
        """``site.toml`` or ``server.toml``; a party has joined once it is there."""
        return SETTINGS_FILE[self.holder.role]

    @property
    def joined(self) -> bool:
        """Whether ``collegium site join`` came to its end here."""
        return (self.path / self.settings_file).exists()

    @property
    def paused(self) -> bool:
        """Whether the emergency stop is on; so it is while nobody can tell."""
        try:
            (self.path / PAUSED_FILE).lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def pause(self, *, paused: bool) -> None:
        """Switches the emergency stop. Raises: ConfigError: It cannot be switched."""
        path = self.path / PAUSED_FILE
        try:
            if paused:
                path.touch(mode=0o600)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror or error}", hint="Stop the agent's process instead."
            ) from error

    @cached_property
    def identity(self) -> SigningKey:
        """The key that signs FSA1 messages, statements and the log. Raises: ConfigError: It is not the enrolled one."""
        key = read_identity(self.path)
        if key.public_key != self.enrolment.identity:
            raise ConfigError(f"{self.path}: identity.key is not the key that was enrolled")
        return key

    @cached_property
    def flower(self) -> ec.EllipticCurvePrivateKey:
        """Flower's node key, P-384. Raises: ConfigError: It is not the enrolled one."""
        key = read_ec_key(self.path / FLOWER_FILE, ec.SECP384R1())
        if flower_key(key.public_key()) != self.enrolment.flower:
            raise ConfigError(f"{self.path}: {FLOWER_FILE} is not the key that was enrolled")
        return key

    @property
    def charters(self) -> tuple[SignedCharter, ...]:
        """All pinned versions, from the first on, verified as a chain.

        Raises: ConfigError: None, one is missing or unreadable. VerificationError: They are no adopted chain.
        """
        found = {int(match[1]): match[0] for match in map(_CHARTER.fullmatch, self._names()) if match is not None}
        if not found or sorted(found) != list(range(1, len(found) + 1)):
            raise ConfigError(f"{self.path} lacks a version of the charter", hint=_JOIN)
        chain = _adopted(*(self.read(found[number], limit=MAX_FILE_BYTES) for number in sorted(found)))
        if chain[-1].charter.federation != self.holder.federation:
            raise VerificationError(f"the pinned charters are not those of {self.holder.federation}")
        return chain

    @property
    def charter(self) -> Charter:
        """The version in force here: the last one that was pinned. Raises: As ``charters``."""
        return self.charters[-1].charter

    @property
    def settings(self) -> SiteSettings:
        """What ``site.toml`` says. Raises: ConfigError: It is not there, unusable, or this is the coordinator."""
        if self.holder.role is not Role.SITE:
            raise ConfigError(f"{self.path} is the folder of a server, not of a site")
        return read_site_settings(self.text(self.settings_file), self.path)

    @property
    def server_settings(self) -> ServerSettings:
        """What ``server.toml`` says. Raises: ConfigError: It is not there, unusable, or this is a site."""
        if self.holder.role is not Role.SERVER:
            raise ConfigError(f"{self.path} is the folder of a site, not of a server")
        return read_server_settings(self.text(self.settings_file))

    @property
    def common_settings(self) -> SiteSettings | ServerSettings:
        """What ``site.toml`` or ``server.toml`` says. Raises: ConfigError: It is not there or unusable."""
        return self.settings if self.holder.role is Role.SITE else self.server_settings

    @property
    def study(self) -> str:
        """The study's text; ``strategies.study.read_study`` reads it. Raises: ConfigError: It is not there."""
        return self.text(self.common_settings.study)

    @property
    def policy(self) -> str:
        """The policy's text, for ``CedarPolicy``. Raises: ConfigError: It is not there."""
        return self.text(self.common_settings.policy)

    def root(self) -> x509.Certificate:
        """Reads the pinned root; ``check_leaf`` checks it. Raises: ConfigError: It is not there or unreadable."""
        return read_certificate(self.read(ROOT_FILE))

    def tls(self, now: datetime) -> Tls:
        """Finds the newest certificate that is in force, with its key.

        Args:
          now: With a time zone.

        Raises:
          ConfigError: A file is unreadable, or there is no certificate yet.
          VerificationError: None is in force; the reason is that of the last one looked at.
        """
        root, revoked = self.root(), revoked_in(self.charter)
        why: VerificationError | None = None
        valid: list[tuple[datetime, Tls]] = []
        for key in self.tls_keys():
            certificate = key.with_suffix(".crt")
            if not certificate.exists():
                continue  # a renewal that nobody has answered yet
            leaf = read_certificate(self.read(certificate.name))
            if leaf.public_key() != read_ec_key(key).public_key():
                raise ConfigError(f"{certificate} is not for the key {key.name}")
            try:
                check_leaf(leaf, root, now=now, holder=self.holder, usage=self.usage, revoked=revoked)
            except VerificationError as error:
                why = error
            else:
                valid.append((leaf.not_valid_before_utc, Tls(certificate, key, self.path / ROOT_FILE)))
        if valid:
            return max(valid)[1]
        raise why or ConfigError(f"{self.path} holds no certificate", hint=_JOIN)

    def tls_keys(self) -> list[Path]:
        """Returns the TLS keys, the first one and those of renewals."""
        return [self.path / name for name in self._names() if _TLS.fullmatch(name)]

    def log(self) -> Log:
        """Opens the party's transparency log. Raises: ConfigError or VerificationError: As ``Log``."""
        return Log(self.path / LOG_FILE, NoteKey(self.origin, self.identity.public_key))

    def ledger(self) -> Ledger:
        """Opens the budget ledger. Raises: ConfigError or VerificationError: As ``Ledger``, or it is an old copy.

        A copy that is older than the log's last head of it is refused: budget spent since would be there again.
        """
        ledger = Ledger(self.path / LEDGER_FILE)
        self.log().check_ledger(ledger)
        return ledger

    @contextmanager
    def locked(self, name: str = LOCK_FILE) -> Iterator[None]:
        """Keeps every other process that asks for the same lock out, until the block or the process ends.

        Args:
          name: The lock's file. A site's agent has ``lock``; what serves other agents has one of its own, since both
            run side by side: what they share, ledger and log, keeps them apart by itself.

        Raises: ConfigError: Another process is at work.
        """
        descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"another process is at work in {self.path}", hint="One at a time: stop it first."
                ) from None
            yield
        finally:
            os.close(descriptor)

    def text(self, name: str) -> str:
        """Reads a public file of the folder as text. Raises: ConfigError: As ``read``, or it is not UTF-8."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{self.path / name} is not text in UTF-8") from None

    def read(self, name: str, *, limit: int = 2**20) -> bytes:
        """Reads a public file of the folder.

        Raises: ConfigError: It is not there, a link, too large, or somebody else could have written it.
        """
        check_folder(self.path)
        path = self.path / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    raise ConfigError(f"{path} could be written by somebody else", hint="chown it, and chmod go-w.")
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise ConfigError(f"{path} is not there", hint=_JOIN) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) > limit:
            raise ConfigError(f"{path} is larger than {limit} bytes")
        return data

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def _enrolment(self) -> Enrolment:
        """Finds the first bundle: the one that is named after its own holder (``enrol-a-2`` may renew ``a``)."""
        names = [name for name in self._names() if _BUNDLE.fullmatch(name)]
        bundles = {name: read_bundle(read_private(self.path / name)) for name in names}
        first = [one for name, one in bundles.items() if name == f"enrol-{one.holder.id}.json"]
        if not first:
            raise ConfigError(f"{self.path} is no party's folder", hint="Make it: collegium site enroll.")
        if any(one.holder != first[0].holder for one in bundles.values()):
            raise ConfigError(f"{self.path} holds requests of different parties", hint="One folder, one party.")
        return first[0]


@lru_cache(maxsize=8)
def _adopted(*files: bytes) -> tuple[SignedCharter, ...]:
    """Returns the charters of these files, verified once for the same bytes: agents ask at every message."""
    chain = tuple(decode(data) for data in files)
    verify_chain(chain)
    return chain


def revoked_in(charter: Charter) -> set[int]:
    """Returns the serial numbers that a charter took back, as ``check_leaf`` takes them."""
    return {int(serial, 16) for serial in charter.revoked}
