"""What left a site, payload by payload, as the server counted it and as the site signed it; the two must agree.

A payload is known by its kind, the round it was asked for in, its size and its SHA-256: enough to compare, nothing to
read an update from. Refusals carry no payload and are counted elsewhere. Everything here is public.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from privacy.audit import canonical
from privacy.errors import ConfigError

EGRESS_FILE = "transcript/egress.jsonl"
"""Where a server's run folder holds what it received, a line a payload, so that a resumed run still knows it."""


@dataclass(frozen=True, order=True)
class Sent:
    """One payload that left a site.

    Attributes:
      kind: Message type of the question that it answers.
      group: Of that question: the round, "0" before the first.
      size: Bytes.
      sha256: Of the payload, hex.
    """

    kind: str
    group: str
    size: int
    sha256: str

    @classmethod
    def of(cls, kind: str, group: str, payload: bytes) -> "Sent":
        """Returns what is written down about a payload."""
        return cls(kind, group, len(payload), hashlib.sha256(payload).hexdigest())

    def to_json(self) -> dict[str, Any]:
        """Returns it as statements and reports list it."""
        return {"kind": self.kind, "group": self.group, "bytes": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Sent":
        """Returns what ``to_json`` wrote; the caller's schema has checked it."""
        return cls(value["kind"], value["group"], value["bytes"], value["sha256"])


def digest(payloads: Iterable[Sent]) -> str:
    """Returns the SHA-256, hex, of a list of payloads whatever its order; one that is there twice counts twice."""
    return hashlib.sha256(canonical.dumps([one.to_json() for one in sorted(payloads)])).hexdigest()


def totals(payloads: Iterable[Sent]) -> list[dict[str, Any]]:
    """Returns number and bytes of payloads by kind, in the order of kinds."""
    listed = list(payloads)
    return [
        {
            "kind": kind,
            "messages": sum(one.kind == kind for one in listed),
            "bytes": sum(one.size for one in listed if one.kind == kind),
        }
        for kind in sorted({one.kind for one in listed})
    ]


def without(payloads: Iterable[Sent], others: Iterable[Sent]) -> tuple[list[Sent], list[Sent]]:
    """Takes ``others`` out of ``payloads``, one for one.

    Returns: What is left of ``payloads``, and those of ``others`` that were not among them; both sorted.
    """
    own, taken = Counter(payloads), Counter(others)
    return sorted((own - taken).elements()), sorted((taken - own).elements())


def line(site: str, sent: Sent) -> bytes:
    """Returns the line of ``EGRESS_FILE`` about one payload, its newline included."""
    return canonical.dumps({"site": site, **sent.to_json()}) + b"\n"


def read(data: bytes) -> dict[str, list[Sent]]:
    """Reads ``EGRESS_FILE``; a last line without its newline was being written when the process died, and is dropped.

    Raises: ConfigError: A line that ``line`` does not write.
    """
    found: dict[str, list[Sent]] = {}
    for number, text in enumerate(data.split(b"\n")[:-1], start=1):
        match canonical.loads(text, what=f"line {number} of {EGRESS_FILE}"):
            case {"site": str(site), "kind": str(kind), "group": str(group), "bytes": int(size), "sha256": str(sha256)}:
                found.setdefault(site, []).append(Sent(kind, group, size, sha256))
            case _:
                raise ConfigError(f"line {number} of {EGRESS_FILE} describes no payload")
    return found
