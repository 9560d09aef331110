"""The first frame of a stream, either way round: written, and read from a stranger."""

from clients.channel import frames
from clients.channel.limits import Limits
from clients.channel.message import is_kind
from clients.channel.session import SESSION_BYTES, Opening, RemoteRefusalError
from clients.proto import channel_pb2 as wire
from privacy.errors import RemoteProtocolError
from privacy.secagg.encoding import is_site_id

VERSION = 1
NONCE_BYTES = 32
DIGEST_BYTES = 32
PURPOSE_CHARS = 100


def ask(
    opening: Opening, *, dialler: str, listener: str, charter: str, nonce: bytes, limits: Limits, received: int | None
) -> bytes:
    """Returns what the dialler asks, an ``Asked``: it signs these very bytes.

    Args:
      opening: What it asks for.
      dialler: Its site id.
      listener: Whom it means to talk to.
      charter: Digest of the charter in force at the dialler, hex.
      nonce: 32 fresh bytes.
      limits: The most that the dialler takes.
      received: To take up a session that was cut: the last frame that came in. ``None``: a new session.
    """
    return wire.Asked(
        version=VERSION,
        dialler=dialler,
        listener=listener,
        charter=bytes.fromhex(charter),
        kind=opening.kind,
        session=opening.session,
        nonce=nonce,
        purpose=opening.purpose,
        body=opening.body,
        limits=limits.written(),
        resume=received is not None,
        received=received or 0,
    ).SerializeToString()


def write(asked: bytes, signature: bytes) -> bytes:
    """Returns the dialler's first frame."""
    return wire.Frame(open=wire.Open(asked=asked, signature=signature)).SerializeToString()


def read(frame: bytes, limits: Limits) -> tuple[wire.Open, wire.Asked]:
    """Reads the dialler's first frame; nothing in it is believed yet.

    Returns: The opening, and what it asks.
    Raises: RemoteProtocolError: It is none.
    """
    read = frames.parse(frame, limits.frame_bytes)
    said = frames.parsed(wire.Asked(), read.open.asked)
    if read.WhichOneof("content") != "open" or said.version != VERSION:
        raise RemoteProtocolError(f"a stream begins with an opening of version {VERSION}")
    sizes = (len(said.session), len(said.nonce), len(said.charter))
    if sizes != (SESSION_BYTES, NONCE_BYTES, DIGEST_BYTES) or len(said.body) > limits.frame_bytes:
        raise RemoteProtocolError("an opening has a part of the wrong size")
    if not (is_site_id(said.dialler) and is_site_id(said.listener) and is_kind(said.kind)):
        raise RemoteProtocolError("an opening has a name that is none")
    if frames.plain(said.purpose) != said.purpose or len(said.purpose) > PURPOSE_CHARS:
        raise RemoteProtocolError("an opening has a purpose that is not one short line")
    if read.sequence or read.acknowledged or read.tensors or (said.received and not said.resume):
        raise RemoteProtocolError("an opening has more than its parts")
    return read.open, said


def asked(said: wire.Asked) -> Opening:
    """Returns what an opening asks for."""
    return Opening(said.kind, said.session, said.body, said.purpose)


def write_answer(terms: bytes, signature: bytes) -> bytes:
    """Returns the listener's first frame."""
    return wire.Frame(opened=wire.Opened(terms=terms, signature=signature)).SerializeToString()


def read_answer(frame: bytes, peer: str, limits: Limits) -> wire.Opened:
    """Reads the listener's first frame; nothing in it is believed yet.

    Raises:
      RemoteRefusalError: It refuses.
      RemoteProtocolError: It is none.
    """
    read = frames.parse(frame, limits.frame_bytes)
    which = read.WhichOneof("content")
    if which == "closed":
        raise RemoteRefusalError(peer, frames.plain(read.closed.reason) or "no reason given")
    if which != "opened":
        raise RemoteProtocolError(f"{peer} answers with something else")
    return read.opened


def read_terms(opened: wire.Opened, limits: Limits) -> wire.Terms:
    """Reads what the listener grants, after its signature was checked.

    Raises: RemoteProtocolError: It is none, or more than ``limits``.
    """
    terms = frames.parsed(wire.Terms(), opened.terms)
    if terms.limits != limits.lesser(terms.limits).written():
        raise RemoteProtocolError("the peer grants itself more than this end takes")
    return terms
