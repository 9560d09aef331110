"""What goes into the machines and what they ask for: values, no behaviour.

A driver executes effects in order. If ``Persist`` fails, it drops the effects behind it and tells the machine with
``Persisted(ok=False)``, or forgets the machine: nothing may be sent that was not written down first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privacy.secagg.wire import Advert


@dataclass(frozen=True)
class Begin:
    """Event, coordinator only: send START to the cohort."""


@dataclass(frozen=True)
class Received:
    """Event: bytes came in.

    Attributes:
      data: Untrusted.
      sender: Coordinator only: the site that the transport authenticated.
    """

    data: bytes = field(repr=False)
    sender: str = ""


@dataclass(frozen=True)
class Expired:
    """Event: the timer of that phase ran out. That of another phase is stale and changes nothing."""

    phase: str


@dataclass(frozen=True)
class Persisted:
    """Event, client only: how the last ``Persist`` went. Success changes nothing; failure aborts."""

    ok: bool = True


ProtocolEvent = Begin | Received | Expired | Persisted


@dataclass(frozen=True)
class Attempt:
    """Record, before ADV (§6.1): unique, and increasing within a run."""

    run: bytes
    round: int
    attempt: int


@dataclass(frozen=True)
class Debit:
    """Record, before MSK or what takes its place (§3.5): the privacy plan charges this attempt at this round.

    Attributes:
      run: 16 bytes.
      round: From 1.
      attempt: From 1.
      ctx: Digest of the context.
      regions: Active regions that the site sends.
    """

    run: bytes
    round: int
    attempt: int
    ctx: bytes
    regions: tuple[int, ...]


@dataclass(frozen=True)
class Persist:
    """Effect, client only: write the record durably before anything else happens."""

    record: Attempt | Debit


@dataclass(frozen=True)
class Send:
    """Effect, client only: send to the server."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class SendTo:
    """Effect, coordinator only: send to one site; the driver repeats it within the phase while no answer came."""

    site: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Timer:
    """Effect: start a timer on the own monotonic clock; it replaces the one before."""

    seconds: int
    phase: str


@dataclass(frozen=True)
class Audit:
    """Effect: something a person should be able to read later.

    Attributes:
      event: "aborted", "dropped" (the site's message was refused), "bad_share" (the site revealed another share than it
        was dealt) or "bad_dealer" (the site's own shares do not open its secret).
      site: Whom it concerns; empty if nobody in particular.
      detail: Plain words, no secret values.
    """

    event: str
    site: str
    detail: str


@dataclass(frozen=True)
class Transcript:
    """What the sites signed, for a stranger to check again; public.

    Attributes:
      context: Encoded context.
      adverts: Keys and signatures of U1.
      u2: Sites whose shares arrived.
      y_digests: SHA-256 of each masked vector, by site of U3 and region.
      msk_signatures: By site of U3.
      survivors: U3.
      con_signatures: By site that signed U3.
      active: Regions that were summed.
    """

    context: bytes
    adverts: Mapping[str, Advert]
    u2: tuple[str, ...]
    y_digests: Mapping[str, Mapping[int, bytes]]
    msk_signatures: Mapping[str, bytes]
    survivors: tuple[str, ...]
    con_signatures: Mapping[str, bytes]
    active: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """Effect: the attempt is over and everything secret is erased.

    Attributes:
      survivors: U3.
      sums: Coordinator only: exact sum over U3's holders by active region, shape ``(length_k,)``, grid units.
      transcript: Coordinator only.
    """

    survivors: tuple[str, ...]
    sums: Mapping[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    transcript: Transcript | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Aborted:
    """Effect: the attempt is over without a sum, everything secret is erased.

    Attributes:
      reason: Plain words, no secret values.
      site: Whose fault it is, if known.
      region: Coordinator only: the region that lost too many holders; a retry may leave it out.
    """

    reason: str
    site: str = ""
    region: int | None = None


Effect = Persist | Send | SendTo | Timer | Audit | Finished | Aborted
