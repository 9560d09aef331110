"""The transcript of masked rounds: what the sites signed, a line an attempt, so that a stranger can check it again.

One canonical JSON object a line (``schemas/transcript-v1.json``): the roster first, then every attempt in order,
written when it ended. All of it is public. Reading checks the form only; ``masked_rounds`` checks the signatures.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from privacy.audit import canonical, schemas
from privacy.audit.envelope import decode_base64
from privacy.errors import ConfigError, LocalProtocolError
from privacy.secagg import effects
from privacy.secagg.context import Roster
from privacy.secagg.wire import Advert

TRANSCRIPT_FILE = "transcript/secagg.jsonl"
"""Where a run folder holds it."""
MAX_TRANSCRIPT_BYTES = 2**28
"""Largest transcript that is read; an attempt of 100 sites has 60 kB."""
PROTOCOL = "FSA1"
_SCHEMA = "collegium/transcript/v1"
_LONGEST_REASON = 400


@dataclass(frozen=True)
class AttemptRecord:
    """What became of one attempt; public.

    Attributes:
      signed: What the sites signed, if the sum was opened.
      reason: Why nothing was opened, if it was not: the coordinator's word.
    """

    round: int
    attempt: int
    signed: effects.Transcript | None
    reason: str = ""

    @classmethod
    def of(cls, number: int, attempt: int, end: effects.Finished | effects.Aborted) -> "AttemptRecord":
        """Returns the record of an attempt that the coordinator ended.

        Raises: LocalProtocolError: It is finished without a transcript.
        """
        if isinstance(end, effects.Aborted):
            return cls(number, attempt, None, end.reason[:_LONGEST_REASON])
        if end.transcript is None:
            raise LocalProtocolError("a coordinator that opened a sum has a transcript of it")
        return cls(number, attempt, end.transcript)


def header(roster: Roster) -> bytes:
    """Returns the first line, its newline included."""
    keys = {site: _text(key) for site, key in roster.keys.items()}
    return _written(
        {"line": "roster", "schema": _SCHEMA, "protocol": PROTOCOL, "version": roster.version, "keys": keys}
    )


def line(record: AttemptRecord) -> bytes:
    """Returns the line of one attempt, its newline included."""
    number, signed = {"round": record.round, "attempt": record.attempt}, record.signed
    if signed is None:
        return _written({"line": "aborted", **number, "reason": record.reason})
    return _written(
        {
            "line": "signed",
            **number,
            "context": _text(signed.context),
            "adverts": {
                site: {"c": _text(advert.c), "s": _text(advert.s), "sig": _text(advert.sig)}
                for site, advert in signed.adverts.items()
            },
            "active": list(signed.active),
            "u2": list(signed.u2),
            "masked": {
                site: {
                    "digests": {str(k): _text(value) for k, value in signed.y_digests[site].items()},
                    "sig": _text(signature),
                }
                for site, signature in signed.msk_signatures.items()
            },
            "survivors": list(signed.survivors),
            "agreed": {site: _text(signature) for site, signature in signed.con_signatures.items()},
        }
    )


def decode(data: bytes) -> tuple[Roster, Iterator[AttemptRecord]]:
    """Reads a transcript from a stranger; no signature is checked.

    Args:
      data: Untrusted bytes.

    Returns: The roster, and the attempts in the order of the lines; reading them raises as below, too.
    Raises: ConfigError: Anything but the one spelling that ``header`` and ``line`` write.
    """
    if len(data) > MAX_TRANSCRIPT_BYTES:
        raise ConfigError(f"the transcript is larger than {MAX_TRANSCRIPT_BYTES // 2**20} MB")
    lines = enumerate(io.BytesIO(data), start=1)
    first = _read(*next(lines, (1, b"")))
    if first["line"] != "roster":
        raise ConfigError("the transcript does not begin with a roster")
    roster = Roster(first["version"], {site: decode_base64(key) for site, key in first["keys"].items()})
    return roster, (_record(_read(number, data)) for number, data in lines)


def _read(number: int, data: bytes) -> Mapping[str, Any]:
    what = f"line {number} of the transcript"
    if not data.endswith(b"\n"):
        raise ConfigError(f"{what} does not end in a newline: it is cut short or was edited")
    value = canonical.loads(data[:-1], what=what)
    try:
        schemas.check("transcript-v1", value)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    return dict(value)


def _record(value: Mapping[str, Any]) -> AttemptRecord:
    if value["line"] == "roster":
        raise ConfigError("the transcript names a second roster")
    number, attempt = value["round"], value["attempt"]
    if value["line"] == "aborted":
        return AttemptRecord(number, attempt, None, value["reason"])
    masked = value["masked"]
    signed = effects.Transcript(
        context=decode_base64(value["context"]),
        adverts={
            site: Advert(*(decode_base64(entry[name]) for name in ("c", "s", "sig")))
            for site, entry in value["adverts"].items()
        },
        u2=tuple(value["u2"]),
        y_digests={
            site: {int(k): decode_base64(digest) for k, digest in entry["digests"].items()}
            for site, entry in masked.items()
        },
        msk_signatures={site: decode_base64(entry["sig"]) for site, entry in masked.items()},
        survivors=tuple(value["survivors"]),
        con_signatures={site: decode_base64(signature) for site, signature in value["agreed"].items()},
        active=tuple(value["active"]),
    )
    return AttemptRecord(number, attempt, signed)


def _written(value: Mapping[str, Any]) -> bytes:
    return canonical.dumps(value) + b"\n"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
