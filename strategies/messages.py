"""What server and sites say to each other, as deterministic CBOR bytes; decoding trusts nothing.

The encoding is FSA1's (docs/protocol.md §1.4): no tags, no floats, one spelling for each value; a general CBOR decoder
would build dates, expressions and more from a stranger's bytes.

A message is one byte string in one Flower ``ConfigRecord``: measured, that moves through a SuperLink in a third of the
time that an ``ArrayRecord`` takes. Vectors travel as raw little-endian float32.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from privacy.conformance.statements import MAX_BYTES
from privacy.errors import RemoteProtocolError
from privacy.secagg.encoding import dumps, loads
from strategies.contribution import Contribution, Vector
from strategies.task import SiteId

RECORD = "collegium"
"""Name of the ``ConfigRecord``, and of the byte string inside it."""


def part_name(number: int) -> str:
    """Names the records that a long message is cut into, from 0: a server takes bodies of a few megabytes only."""
    return f"{RECORD}.{number}" if number else RECORD


REFUSED = 1000
"""Code of a site's own refusals; Flower leaves codes from here on to applications."""

SPENT = 1001
"""Code of a refusal that is for good: the site's privacy budget has no room for another attempt."""

HELLO = "query.hello"
TRAIN = "train.round"
MASKED = "train.masked"
STAGE = "train.stage"
SECAGG = "query.secagg"
CLOSE = "query.close"
COSIGN = "query.cosign"
"""Flower message types; everything else is refused.

``train.stage`` is ``train.masked`` where the model is cut: the site opens a session with the holder for the round,
trains through it, and answers as under masks.

What is sent to be cosigned is the bytes of a signed report, and the answer is the 64 bytes of a signature: both are
formats of their own (``privacy.audit``), so neither is wrapped in CBOR.
"""

_MAX_BYTES = 2**30
_MOST_GROWTHS = 8
_SCALAR_BYTES = 8
_MOST = 2**53  # whole numbers up to here are exact as weights


@dataclass(frozen=True)
class Hello:
    """A site's answer to the roll call, which it gives only if the invitation may pass; all fields are public.

    Attributes:
      n_records: Training records; the neighbouring relation (zero-out) keeps this number public and fixed.
      seen: How many entries of the server's log it has seen.
      conformance: What it found when it tested its own release paths (`privacy.conformance.statements`); empty if it
        adds no noise.
    """

    site: SiteId
    n_records: int
    seen: int = 0
    conformance: bytes = b""

    def encode(self) -> bytes:
        """Returns the bytes that ``decode`` reads."""
        body = {"site": self.site, "n_records": self.n_records, "seen": self.seen, "conformance": self.conformance}
        return dumps({"hello": 1, **body})

    @classmethod
    def decode(cls, data: bytes) -> "Hello":
        """Reads untrusted bytes. Raises: RemoteProtocolError: Anything but this message."""
        body = _fields(data, "hello", {"site": str, "n_records": int, "seen": int, "conformance": bytes})
        name = body["site"]
        counts = (body["n_records"], body["seen"])
        if not all(0 <= n <= _MOST for n in counts) or not 0 < len(name) <= 64 or not name.isprintable():
            raise RemoteProtocolError("the roll call answer is out of range", phase="hello")
        if len(body["conformance"]) > MAX_BYTES:
            raise RemoteProtocolError("the roll call answer says too much of release paths", phase="hello")
        return cls(SiteId(body["site"]), *counts, body["conformance"])


@dataclass(frozen=True)
class RoundTask:
    """The server's proposal: train from these arrays.

    Attributes:
      job: Digest of the settings that the server runs; a site that runs others refuses.
      round: From 1.
      attempt: From 1 within a round.
      accepted: ``(round, attempt)`` of this site's last contribution that entered a sum, or ``(0, 0)``.
      arrays: What the algorithm broadcasts, each of shape ``(d,)``.
    """

    job: str
    round: int
    attempt: int
    accepted: tuple[int, int]
    arrays: Mapping[str, Vector]

    def encode(self) -> bytes:
        """Returns the bytes that ``decode`` reads."""
        body = {
            "task": 1,
            "job": self.job,
            "round": self.round,
            "attempt": self.attempt,
            "accepted": list(self.accepted),
            "arrays": _pack(self.arrays),
        }
        return dumps(body)

    @classmethod
    def decode(cls, data: bytes) -> "RoundTask":
        """Reads untrusted bytes. Raises: RemoteProtocolError: Anything but this message."""
        fields = {"job": str, "round": int, "attempt": int, "accepted": list, "arrays": dict}
        body = _fields(data, "task", fields)
        accepted = body["accepted"]
        if len(accepted) != 2 or any(type(value) is not int for value in accepted):
            raise RemoteProtocolError("the accepted round is malformed", phase="train")
        if body["round"] < 1 or body["attempt"] < 1:
            raise RemoteProtocolError("rounds and attempts are numbered from 1", phase="train")
        arrays = _unpack(body["arrays"])
        return cls(body["job"], body["round"], body["attempt"], (accepted[0], accepted[1]), arrays)


@dataclass(frozen=True)
class SecureTask:
    """A task whose answer is masked: train, then answer FSA1's START (docs/protocol.md §3.0).

    Attributes:
      growth: What the server's log says about its growth, once for each size that the site may have seen last.
    """

    task: RoundTask
    start: bytes
    growth: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """Returns the bytes that ``decode`` reads."""
        return dumps({"secure": 1, "task": self.task.encode(), "start": self.start, "growth": list(self.growth)})

    @classmethod
    def decode(cls, data: bytes) -> "SecureTask":
        """Reads untrusted bytes. Raises: RemoteProtocolError: Anything but this message."""
        body = _fields(data, "secure", {"task": bytes, "start": bytes, "growth": list})
        if len(body["growth"]) > _MOST_GROWTHS or any(type(each) is not bytes for each in body["growth"]):
            raise RemoteProtocolError("the log's growth is malformed", phase="train")
        return cls(RoundTask.decode(body["task"]), body["start"], tuple(body["growth"]))


@dataclass(frozen=True)
class Closing:
    """The last message of a run: the model that was made, for a site to keep and to score at home.

    Attributes:
      job: Digest of the settings.
      rounds: How many were completed.
      model: The coordinates that the site holds, shape ``(h,)``.
    """

    job: str
    rounds: int
    model: Vector

    def encode(self) -> bytes:
        """Returns the bytes that ``decode`` reads."""
        return dumps({"closing": 1, "job": self.job, "rounds": self.rounds, "arrays": _pack({"model": self.model})})

    @classmethod
    def decode(cls, data: bytes) -> "Closing":
        """Reads untrusted bytes. Raises: RemoteProtocolError: Anything but this message."""
        body = _fields(data, "closing", {"job": str, "rounds": int, "arrays": dict})
        arrays = _unpack(body["arrays"])
        if set(arrays) != {"model"} or body["rounds"] < 0:
            raise RemoteProtocolError("the run is not closed with one model", phase="close")
        return cls(body["job"], body["rounds"], arrays["model"])


@dataclass(frozen=True)
class RoundReply:
    """A site's answer: what leaves it, and for which attempt."""

    site: SiteId
    round: int
    attempt: int
    contribution: Contribution

    def encode(self) -> bytes:
        """Returns the bytes that ``decode`` reads."""
        body = {
            "reply": 1,
            "site": self.site,
            "round": self.round,
            "attempt": self.attempt,
            "arrays": _pack(self.contribution.arrays),
            "scalars": {name: struct.pack(">d", value) for name, value in self.contribution.scalars.items()},
        }
        return dumps(body)

    @classmethod
    def decode(cls, data: bytes) -> "RoundReply":
        """Reads untrusted bytes. Raises: RemoteProtocolError: Anything but this message."""
        fields = {"site": str, "round": int, "attempt": int, "arrays": dict, "scalars": dict}
        body = _fields(data, "reply", fields)
        packed = body["scalars"].items()
        if any(type(value) is not bytes or len(value) != _SCALAR_BYTES for _, value in packed):
            raise RemoteProtocolError("scalars are named floats", phase="train")
        scalars = {name: struct.unpack(">d", value)[0] for name, value in packed}
        contribution = Contribution(_unpack(body["arrays"]), MappingProxyType(scalars))
        return cls(SiteId(body["site"]), body["round"], body["attempt"], contribution)


def _pack(arrays: Mapping[str, Vector]) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(vector, dtype="<f4").tobytes() for name, vector in arrays.items()}


def _unpack(packed: Mapping[Any, Any]) -> Mapping[str, Vector]:
    arrays: dict[str, Vector] = {}
    for name, data in packed.items():
        if type(name) is not str or type(data) is not bytes or len(data) % 4:
            raise RemoteProtocolError("arrays are named byte strings of float32", phase="train")
        arrays[name] = np.frombuffer(data, dtype="<f4")  # read-only: it views the message
    return MappingProxyType(arrays)


def _fields(data: bytes, kind: str, fields: Mapping[str, type]) -> dict[str, Any]:
    if len(data) > _MAX_BYTES:
        raise RemoteProtocolError("the message is larger than 1 GiB", phase=kind)
    try:
        body = loads(data, limit=_MAX_BYTES)
    except RemoteProtocolError as error:
        form = "in its one canonical form" if "deterministic" in str(error) else "CBOR"
        raise RemoteProtocolError(f"the message is not {form}", phase=kind) from error
    if type(body) is not dict or set(body) != {kind, *fields} or type(body[kind]) is not int or body[kind] != 1:
        raise RemoteProtocolError(f"the message is not a version 1 {kind!r}", phase=kind)
    for name, expected in fields.items():
        if type(body[name]) is not expected:
            raise RemoteProtocolError(f"the field {name!r} has the wrong type", phase=kind)
    return body
