"""The ten messages of FSA1 as values, and their only encoding (§1.4, §3).

A message is its class: every field is annotated with how it is written and read. Decoding checks types, sizes and
order, nothing else: whether a message may be believed is for the machine that asked for it. Region numbers are keys
of maps and therefore decimal text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated, Any, ClassVar, get_type_hints

from privacy.errors import RemoteProtocolError
from privacy.secagg.context import DIGEST_BYTES
from privacy.secagg.encoding import (
    MAX_CONTROL_BYTES,
    by_region,
    by_site,
    dumps,
    exactly,
    listing,
    loads,
    octets,
    site,
    sites,
)
from privacy.secagg.shares import SHARE_BYTES
from privacy.secagg.suite import TAG_BYTES

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES


@dataclass(frozen=True)
class Codec:
    """How a field is read from a decoded value (raising RemoteProtocolError) and written to one."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Advert:
    """A site's two public keys and its signature: an entry of KEYS; public."""

    c: bytes
    s: bytes
    sig: bytes


@dataclass(frozen=True)
class Sealed:
    """What one recipient gets from a dealer: ciphertext (empty to oneself) and commitments to both shares; public."""

    ct: bytes
    bshare: bytes
    sshare: bytes


@dataclass(frozen=True)
class Forwarded:
    """One dealer's part of a FWD: its commitment to ``b``, the sealed shares, all leaves of its signature; public."""

    bcom: bytes
    sealed: Sealed
    leaves: tuple[bytes, ...]
    sig: bytes


def _advert(value: Any) -> Advert:
    c, s, sig = listing(value, 3)
    return Advert(octets(c, KEY_BYTES), octets(s, KEY_BYTES), octets(sig, SIGNATURE_BYTES))


def _sealed(value: Any) -> Sealed:
    ct, bshare, sshare = listing(value, 3)
    if octets(ct) and len(ct) != SEALED_BYTES:
        raise RemoteProtocolError("a sealed share has the wrong length")
    return Sealed(ct, octets(bshare, DIGEST_BYTES), octets(sshare, DIGEST_BYTES))


def _forwarded(value: Any) -> Forwarded:
    bcom, ct, bshare, sshare, leaves, sig = listing(value, 6)
    signed = tuple(octets(leaf, DIGEST_BYTES) for leaf in listing(leaves))
    return Forwarded(octets(bcom, DIGEST_BYTES), _sealed([ct, bshare, sshare]), signed, octets(sig, SIGNATURE_BYTES))


def _forwarded_list(value: Forwarded) -> list[Any]:
    sealed = value.sealed
    return [value.bcom, sealed.ct, sealed.bshare, sealed.sshare, list(value.leaves), value.sig]


def _map(entry: Codec) -> Codec:
    return Codec(
        lambda value: {name: entry.read(item) for name, item in by_site(value).items()},
        lambda value: {name: entry.write(item) for name, item in value.items()},
    )


def _regions(size: int | None) -> Codec:
    return Codec(partial(by_region, size=size), lambda value: {str(k): item for k, item in value.items()})


Digest = Annotated[bytes, Codec(partial(octets, size=DIGEST_BYTES))]
Key = Annotated[bytes, Codec(partial(octets, size=KEY_BYTES))]
Signature = Annotated[bytes, Codec(partial(octets, size=SIGNATURE_BYTES))]
Adverts = Annotated[Mapping[str, Advert], _map(Codec(_advert, lambda entry: [entry.c, entry.s, entry.sig]))]
SealedTo = Annotated[Mapping[str, Sealed], _map(Codec(_sealed, lambda entry: [entry.ct, entry.bshare, entry.sshare]))]
Dealt = Annotated[Mapping[str, Forwarded], _map(Codec(_forwarded, _forwarded_list))]


@dataclass(frozen=True)
class Message:
    """Root of all messages."""

    kind: ClassVar[str]
    ctx: Digest

    def encode(self) -> bytes:
        """Returns the deterministic CBOR."""
        body = {name: codec.write(getattr(self, own)) for name, (own, codec) in _fields(self.kind).items()}
        return dumps({"kind": self.kind, **body})


@dataclass(frozen=True)
class SiteMessage(Message):
    """Root of what sites send; ``sender`` travels as ``from``."""

    sender: Annotated[str, Codec(site)]


@dataclass(frozen=True)
class Start(Message):
    """§3.0: the encoded context, and the region digests of the regions that the site does not hold."""

    kind = "START"
    context: Annotated[bytes, Codec(octets)]
    others: Annotated[Mapping[int, bytes], _regions(DIGEST_BYTES)]


@dataclass(frozen=True)
class Adv(SiteMessage):
    """§3.1: fresh public keys."""

    kind = "ADV"
    c: Key
    s: Key
    sig: Signature


@dataclass(frozen=True)
class Keys(Message):
    """§3.2: the adverts of U1."""

    kind = "KEYS"
    keys: Adverts


@dataclass(frozen=True)
class Shr(SiteMessage):
    """§3.3: commitment to ``b`` and a sealed pair of shares for everybody in U1."""

    kind = "SHR"
    bcom: Digest
    to: SealedTo
    sig: Signature


@dataclass(frozen=True)
class Fwd(Message):
    """§3.4: what every dealer in U2 sent to this site."""

    kind = "FWD"
    senders: Dealt


@dataclass(frozen=True)
class Msk(SiteMessage):
    """§3.5: the masked vectors, little-endian, by region."""

    kind = "MSK"
    y: Annotated[Mapping[int, bytes], _regions(None)] = field(repr=False)
    sig: Signature


@dataclass(frozen=True)
class Surv(Message):
    """§3.6: U3."""

    kind = "SURV"
    survivors: Annotated[tuple[str, ...], Codec(sites, list)]


@dataclass(frozen=True)
class Con(SiteMessage):
    """§3.7: the site's one signature over U3."""

    kind = "CON"
    sig: Signature


@dataclass(frozen=True)
class Sigs(Message):
    """§3.8: signatures of others over U3."""

    kind = "SIGS"
    sigs: Annotated[Mapping[str, bytes], _map(Codec(partial(octets, size=SIGNATURE_BYTES)))]


@dataclass(frozen=True)
class Unm(SiteMessage):
    """§3.9: one share for every site of U2."""

    kind = "UNM"
    shares: Annotated[Mapping[str, bytes], _map(Codec(partial(octets, size=SHARE_BYTES)))] = field(repr=False)


_KINDS: Mapping[str, type[Message]] = {cls.kind: cls for cls in (Start, Adv, Keys, Shr, Fwd, Msk, Surv, Con, Sigs, Unm)}


@cache
def _fields(kind: str) -> Mapping[str, tuple[str, Codec]]:
    """Returns attribute and codec by name on the wire."""
    hints = get_type_hints(_KINDS[kind], include_extras=True).items()
    found = {name: hint.__metadata__[0] for name, hint in hints if hasattr(hint, "__metadata__")}
    return {"from" if name == "sender" else name: (name, codec) for name, codec in found.items()}


def decode(data: bytes, *, limit: int = MAX_CONTROL_BYTES) -> Message:
    """Reads one message from a stranger.

    Args:
      data: Untrusted bytes.
      limit: Most bytes that are looked at; larger than the default only for MSK.

    Raises: RemoteProtocolError: Anything but the one encoding of one of the ten messages.
    """
    value = loads(data, limit=limit)
    name = value.get("kind") if isinstance(value, dict) else None
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RemoteProtocolError("a message is of no known kind")
    fields = _fields(kind.kind)
    body = exactly(value, ("kind", *fields))
    return kind(**{own: codec.read(body[name]) for name, (own, codec) in fields.items()})
