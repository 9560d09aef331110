"""The ten messages of FSA1 as values, and their only encoding (§1.4, §3).

A message is its class, and every field is annotated with what reads it. Decoding checks types, sizes and order,
nothing else: whether a message may be believed is for the machine that asked for it. Region numbers are keys of maps
and therefore decimal text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated, Any, ClassVar, get_type_hints

from privacy.errors import RemoteProtocolError
from privacy.secagg import checked
from privacy.secagg.context import DIGEST_BYTES
from privacy.secagg.encoding import MAX_CONTROL_BYTES, dumps, loads
from privacy.secagg.shares import SHARE_BYTES
from privacy.secagg.suite import TAG_BYTES

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES


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
    c, s, sig = checked.listing(value, 3)
    return Advert(_key(c), _key(s), _signature(sig))


def _sealed(value: Any) -> Sealed:
    ct, bshare, sshare = checked.listing(value, 3)
    checked.refuse_unless(len(checked.octets(ct)) in {0, SEALED_BYTES}, "a sealed share has the wrong length")
    return Sealed(ct, _digest(bshare), _digest(sshare))


def _forwarded(value: Any) -> Forwarded:
    bcom, *sealed, leaves, sig = checked.listing(value, 6)
    signed = tuple(_digest(leaf) for leaf in checked.listing(leaves))
    return Forwarded(_digest(bcom), _sealed(sealed), signed, _signature(sig))


def _written(value: Any) -> Any:
    """Returns what stands for a field or an entry in CBOR, where a tuple is a list."""
    match value:
        case Advert(c, s, sig):
            return [c, s, sig]
        case Sealed(ct, bshare, sshare):
            return [ct, bshare, sshare]
        case Forwarded(bcom, sealed, leaves, sig):
            return [bcom, *_written(sealed), leaves, sig]
        case Mapping():
            return {str(name): _written(entry) for name, entry in value.items()}
        case _:
            return value


_digest = partial(checked.octets, size=DIGEST_BYTES)
_key = partial(checked.octets, size=KEY_BYTES)
_signature = partial(checked.octets, size=SIGNATURE_BYTES)
_share = partial(checked.octets, size=SHARE_BYTES)
Digest = Annotated[bytes, _digest]
Key = Annotated[bytes, _key]
Signature = Annotated[bytes, _signature]


@dataclass(frozen=True)
class Message:
    """Root of all messages; the kind of each is the name of its class in capitals."""

    kind: ClassVar[str]
    ctx: Digest

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__.upper()

    def encode(self) -> bytes:
        """Returns the deterministic CBOR."""
        body = {name: _written(getattr(self, own)) for name, (own, _) in _fields(self.kind).items()}
        return dumps({"kind": self.kind, **body})


@dataclass(frozen=True)
class SiteMessage(Message):
    """Root of what sites send; ``sender`` travels as ``from``."""

    sender: Annotated[str, checked.site]


@dataclass(frozen=True)
class Start(Message):
    """§3.0: the encoded context, and the region digests of the regions that the site does not hold."""

    context: Annotated[bytes, checked.octets]
    others: Annotated[Mapping[int, bytes], partial(checked.by_region, size=DIGEST_BYTES)]


@dataclass(frozen=True)
class Adv(SiteMessage):
    """§3.1: fresh public keys."""

    c: Key
    s: Key
    sig: Signature


@dataclass(frozen=True)
class Keys(Message):
    """§3.2: the adverts of U1."""

    keys: Annotated[Mapping[str, Advert], partial(checked.by_site, entry=_advert)]


@dataclass(frozen=True)
class Shr(SiteMessage):
    """§3.3: commitment to ``b`` and a sealed pair of shares for everybody in U1."""

    bcom: Digest
    to: Annotated[Mapping[str, Sealed], partial(checked.by_site, entry=_sealed)]
    sig: Signature


@dataclass(frozen=True)
class Fwd(Message):
    """§3.4: what every dealer in U2 sent to this site."""

    senders: Annotated[Mapping[str, Forwarded], partial(checked.by_site, entry=_forwarded)]


@dataclass(frozen=True)
class Msk(SiteMessage):
    """§3.5: the masked vectors, little-endian, by region."""

    y: Annotated[Mapping[int, bytes], checked.by_region] = field(repr=False)
    sig: Signature


@dataclass(frozen=True)
class Surv(Message):
    """§3.6: U3."""

    survivors: Annotated[tuple[str, ...], checked.sites]


@dataclass(frozen=True)
class Con(SiteMessage):
    """§3.7: the site's one signature over U3."""

    sig: Signature


@dataclass(frozen=True)
class Sigs(Message):
    """§3.8: signatures of others over U3."""

    sigs: Annotated[Mapping[str, bytes], partial(checked.by_site, entry=_signature)]


@dataclass(frozen=True)
class Unm(SiteMessage):
    """§3.9: one share for every site of U2."""

    shares: Annotated[Mapping[str, bytes], partial(checked.by_site, entry=_share)] = field(repr=False)


_KINDS: Mapping[str, type[Message]] = {cls.kind: cls for cls in (Start, Adv, Keys, Shr, Fwd, Msk, Surv, Con, Sigs, Unm)}


@cache
def _fields(kind: str) -> Mapping[str, tuple[str, Callable[[Any], Any]]]:
    """Returns attribute and reader by name on the wire."""
    hints = get_type_hints(_KINDS[kind], include_extras=True).items()
    found = {name: hint.__metadata__[0] for name, hint in hints if hasattr(hint, "__metadata__")}
    return {"from" if name == "sender" else name: (name, read) for name, read in found.items()}


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
    body = checked.exactly(value, ("kind", *fields))
    return kind(**{own: read(body[name]) for name, (own, read) in fields.items()})
