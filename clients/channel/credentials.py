"""Who is at either end: certificates for TLS, and what TLS does not show to Python.

Certificates are the keeper's to give, so neither end believes one alone: each signs its first frame with the identity
key that the charter lists. gRPC shows a listener the dialler's certificate, and that is under the dialler's signature,
with all that it asks: whoever has another certificate cannot use it. It shows a dialler nothing, not even a revoked
certificate; the listener signs its own, and the dialler's whole first frame, a fresh nonce among it. So neither
signature fits another session, another opening or another end's.

Both ends look at every message whether the peer is still in the charter in force and its certificate not revoked.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from privacy.charter.document import Charter, Site
from privacy.enrolment.certificates import Holder, Role, Usage, check_leaf, read_certificate
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, verify
from privacy.store.key_files import read_private
from privacy.store.site_folder import SiteFolder, revoked_in

_ASKED = b"collegium/channel/v1/asked\x00"
_OPENED = b"collegium/channel/v1/opened\x00"


@dataclass(frozen=True)
class Credentials:
    """What TLS needs, PEM.

    Attributes:
      root: The federation's root; public.
      certificate: This site's leaf; public.
      key: The leaf's key. Secret.
    """

    root: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """Who this end is, and whom it believes.

    Attributes:
      federation: Its name.
      site: Own site id.
      key: The identity key that the charter lists. Secret.
      charter: Returns the one in force here; asked at every opening and every message, so it must be quick.
      credentials: Returns the newest ones that are in force; asked at every connection.
      now: Returns the time, with a zone.
    """

    federation: str
    site: str
    key: SigningKey
    charter: Callable[[], Charter]
    credentials: Callable[[], Credentials]
    now: Callable[[], datetime]

    @classmethod
    def of_folder(cls, folder: SiteFolder, now: Callable[[], datetime]) -> Self:
        """Returns the identity of a site that has joined. Raises: ConfigError: It is not a site's folder."""
        if folder.holder.role is not Role.SITE:
            raise ConfigError(f"{folder.path} is the folder of a server; only sites talk on the channel")

        def credentials() -> Credentials:
            paths = folder.tls(now())
            return Credentials(
                folder.read(paths.root.name), folder.read(paths.certificate.name), read_private(paths.key)
            )

        pinned = _Pinned(folder)
        return cls(folder.holder.federation, folder.holder.id, folder.identity, pinned.charter, credentials, now)

    def entry(self, charter: Charter, peer: str) -> Site:
        """Returns the charter's entry of a peer. Raises: VerificationError: This end or the peer is not in it."""
        for site in (self.site, peer):
            if charter.federation != self.federation or site not in charter.sites:
                raise VerificationError(f"{site} is not in version {charter.version} of the charter")
        return charter.sites[peer]

    def holder(self, charter: Charter, peer: str) -> Holder:
        """Returns whom the peer's certificate must name. Raises: VerificationError: The charter does not say it."""
        name = self.entry(charter, peer).dns
        if name is None:
            raise VerificationError(f"the charter gives no host name for {peer}")
        return Holder(charter.federation, peer, name)


class _Pinned:
    """The charter in force in a folder, read again only once its successor is there: versions are never rewritten."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._read()

    def charter(self) -> Charter:
        try:
            os.lstat(self._successor)
        except FileNotFoundError:
            return self._charter
        except OSError as error:
            raise ConfigError(f"{self._folder.path} cannot be read: {error.strerror or error}") from error
        return self._read()

    def _read(self) -> Charter:
        self._charter = self._folder.charter
        self._successor = str(self._folder.path / f"charter-{self._charter.version + 1}.json")
        return self._charter


class Watch:
    """Whether a peer is still one to talk to: called at every message, it looks closely when something has changed.

    Args:
      own: This end.
      charter: In force here; by its keys the peer was believed.
      peer: Site id.
      leaf: The peer's certificate, untrusted: TLS showed it, or the peer says it under its signature.
      usage: Which end the peer is.

    Raises: VerificationError: It is not one to talk to now.
    """

    def __init__(self, own: Identity, charter: Charter, peer: str, leaf: x509.Certificate, usage: Usage) -> None:
        self._own, self._peer, self._leaf, self._usage = own, peer, leaf, usage
        self._identity = own.entry(charter, peer).identity
        self._checked = self._check(charter)

    def __call__(self) -> None:
        """Returns nothing. Raises: VerificationError: Not any more. ConfigError: The charter cannot be read."""
        charter = self._own.charter()
        if charter is not self._checked or self._own.now() >= self._until:
            self._checked = self._check(charter)

    def _check(self, charter: Charter) -> Charter:
        entry, now = self._own.entry(charter, self._peer), self._own.now()
        if not charter.not_before <= now < charter.not_after:
            raise VerificationError(f"version {charter.version} of the charter is not in force now")
        if entry.identity != self._identity:
            raise VerificationError(f"the charter lists another key for {self._peer} since the session was opened")
        holder = self._own.holder(charter, self._peer)
        root = read_certificate(self._own.credentials().root)
        check_leaf(self._leaf, root, now=now, holder=holder, usage=self._usage, revoked=revoked_in(charter))
        self._until = min(charter.not_after, self._leaf.not_valid_after_utc)
        return charter


def sign_asked(own: Identity, leaf: x509.Certificate, asked: bytes) -> bytes:
    """Signs what a dialler asks; 64 bytes, public.

    Args:
      own: The dialler.
      leaf: The certificate that it shows on this very line.
      asked: An ``Asked``, byte for byte as it will go: charter, both site ids, nonce, session, kind and body are in it.
    """
    return own.key.sign(_transcript(_ASKED, own.federation, leaf.fingerprint(SHA256()), asked))


def verify_asked(charter: Charter, dialler: Site, leaf: x509.Certificate, signature: bytes, asked: bytes) -> None:
    """Checks a dialler's signature with the key that the charter lists.

    Args:
      charter: In force at the listener.
      dialler: Its entry of whom ``asked`` says that it is from.
      leaf: The certificate that TLS showed.
      signature: Untrusted, like what follows.
      asked: What came, byte for byte.

    Raises: VerificationError: It does not fit: another key, another certificate, or something was changed.
    """
    try:
        verify(dialler.identity, signature, _transcript(_ASKED, charter.federation, leaf.fingerprint(SHA256()), asked))
    except VerificationError:
        raise VerificationError(
            f"whoever dials does not hold the key that version {charter.version} of the charter lists for {dialler.id}"
        ) from None


def sign_opened(own: Identity, charter: Charter, dialler: str, opened: bytes, terms: bytes) -> bytes:
    """Signs a listener's answer; 64 bytes, public.

    Args:
      own: The listener.
      charter: In force at both ends.
      dialler: Site id.
      opened: The dialler's frame, byte for byte as it came: nonce, session, kind and body are in it.
      terms: The answer, byte for byte as it will go.
    """
    return own.key.sign(_opened(charter, own.site, dialler, opened, terms))


def verify_opened(
    own: Identity, charter: Charter, listener: Site, signature: bytes, opened: bytes, terms: bytes
) -> None:
    """Checks a listener's answer with the key that the charter lists. Raises: VerificationError: It does not fit."""
    try:
        verify(listener.identity, signature, _opened(charter, listener.id, own.site, opened, terms))
    except VerificationError:
        raise VerificationError(
            f"whoever answers does not hold the identity key of {listener.id}", hint="Nothing was sent to it."
        ) from None


def _opened(charter: Charter, listener: str, dialler: str, opened: bytes, terms: bytes) -> bytes:
    ends = bytes.fromhex(charter.digest), listener.encode(), dialler.encode()
    return _transcript(_OPENED, charter.federation, *ends, opened, terms)


def _transcript(label: bytes, federation: str, *parts: bytes) -> bytes:
    """Returns what is signed: a label, and a hash over every part preceded by its length, so no two lists collide."""
    state = hashlib.sha256()
    for part in (federation.encode(), *parts):
        state.update(len(part).to_bytes(8, "big") + part)
    return label + state.digest()
