"""What one site states about one run, under its own key: what it was asked under, refused, sent and paid.

Canonical JSON in the format ``site-statement-v1``, in a DSSE envelope of a type of its own, so that no signature of
the same key over something else can pass for one. Everything in it is public; scores and losses are not in it. It
holds the word of a site and not of its records: a site can lie about itself, but not about what others received.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from privacy.audit import canonical, envelope, schemas
from privacy.audit.egress import Sent
from privacy.audit.envelope import decode_base64
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, keyid

PAYLOAD_TYPE = "application/vnd.collegium.site-statement+json"
STATEMENTS_FILE = "transcript/statements.jsonl"
"""Where a run folder holds the sites' statements: an envelope a line, in the order of sites."""
MAX_STATEMENTS_BYTES = 2**28
_MOST_REFUSALS = 1000
_SCHEMA = "collegium/site-statement/v1"
_NAMES = ("federation", "site", "run", "charter", "application", "study", "job", "conformance")


@dataclass(frozen=True, order=True)
class Refusal:
    """What a site refused, how often, and the clause, policy or check that decided it."""

    by: str
    strategy: str
    times: int

    @classmethod
    def counted(cls, refusals: Iterable[tuple[str, str]]) -> "tuple[Refusal, ...]":
        """Returns refusals in order, equal ones as one; each is given as what refused and the strategy asked for.

        The strategy is a stranger's text: it is cut to what a statement can hold, and so is the number of lines.
        """
        counts = Counter((_plain(by, 100) or "unknown", _plain(strategy, 64)) for by, strategy in refusals)
        listed = sorted(cls(by, strategy, times) for (by, strategy), times in counts.items())
        if rest := listed[_MOST_REFUSALS - 1 :]:
            listed[_MOST_REFUSALS - 1 :] = [cls("several", "", sum(one.times for one in rest))]
        return tuple(listed)


@dataclass(frozen=True)
class SiteStatement:
    """One site's statement about one run; all fields are public.

    Attributes:
      run: As the coordinator named it in START.
      charter: Digest of the charter that the site has pinned, hex.
      application: SHA-256 of the application that is installed there, hex.
      study: Digest of the study that it read from its own file, hex.
      job: Digest of the job that it resolved for itself, hex.
      conformance: SHA-256 of what it said of its release paths at the last roll call, hex; of nothing without noise.
      allowed: Requests of this run that its gate let through.
      refusals: Requests of this run that it refused.
      egress: Every payload of this run that it handed to the transport, before this statement.
      debits: Lines of its ledger about this run: ``claim``, ``round``, ``attempt``, ``event``.
      log: Its own log's last checkpoint, a signed note.
      witnessed: The server's last checkpoint that it accepted, a signed note.
    """

    federation: str
    site: str
    run: str
    charter: str
    application: str
    study: str
    job: str
    conformance: str
    allowed: int
    refusals: tuple[Refusal, ...]
    egress: tuple[Sent, ...]
    debits: tuple[Mapping[str, Any], ...]
    log: bytes
    witnessed: bytes

    @property
    def refused(self) -> int:
        """Requests that were refused."""
        return sum(refusal.times for refusal in self.refusals)

    def sign(self, key: SigningKey) -> bytes:
        """Returns the bytes of the envelope, one line with its newline.

        Args:
          key: The site's identity key. Secret; it is not kept.

        Raises: ConfigError: It does not fit its schema.
        """
        body = {
            "schema": _SCHEMA,
            **{name: getattr(self, name) for name in _NAMES},
            "decisions": {"allowed": self.allowed, "refused": self.refused},
            "refusals": [vars(refusal) for refusal in self.refusals],
            "egress": [one.to_json() for one in self.egress],
            "debits": [dict(debit) for debit in self.debits],
            "log": base64.b64encode(self.log).decode(),
            "witnessed": base64.b64encode(self.witnessed).decode(),
        }
        schemas.check("site-statement-v1", body)
        return envelope.sign(canonical.dumps(body), key, PAYLOAD_TYPE)


def opened(data: bytes, keys: Mapping[str, bytes]) -> SiteStatement:
    """Reads a statement from a stranger and checks that the site which it names signed it.

    Args:
      data: One envelope.
      keys: Raw identity key by site id, as the charter lists them.

    Raises:
      ConfigError: It is no statement, in its one spelling.
      VerificationError: It names a site that is none, or another key signed it.
    """
    sealed = envelope.decode(data, PAYLOAD_TYPE)
    body = canonical.loads(sealed.payload, what="the site's statement")
    schemas.check("site-statement-v1", body)
    site = body["site"]
    if site not in keys:
        raise VerificationError(f"{site} states something and is no site of the charter")
    if keyid(keys[site]) not in sealed.keyids:
        raise VerificationError(
            f"the statement of {site} is signed by key {sealed.keyids[0][:16]}, which is not its own"
        )
    envelope.check_only_signature(sealed, keys[site], PAYLOAD_TYPE)
    refusals = tuple(Refusal(**refusal) for refusal in body["refusals"])
    if body["decisions"]["refused"] != sum(refusal.times for refusal in refusals):
        raise VerificationError(f"{site} lists other refusals than it counts")
    return SiteStatement(
        **{name: body[name] for name in _NAMES},
        allowed=body["decisions"]["allowed"],
        refusals=refusals,
        egress=tuple(Sent.from_json(one) for one in body["egress"]),
        debits=tuple(body["debits"]),
        log=decode_base64(body["log"]),
        witnessed=decode_base64(body["witnessed"]),
    )


def read_all(data: bytes, keys: Mapping[str, bytes]) -> dict[str, SiteStatement]:
    """Reads ``STATEMENTS_FILE`` from a stranger.

    Raises: ConfigError, VerificationError: As ``opened``, or a site stands twice or out of order.
    """
    found: dict[str, SiteStatement] = {}
    for line in _lines(data):
        statement = opened(line, keys)
        if found and statement.site <= max(found):
            raise ConfigError("the statements are not in the order of sites, or a site states twice")
        found[statement.site] = statement
    return found


def _lines(data: bytes) -> Iterator[bytes]:
    if len(data) > MAX_STATEMENTS_BYTES:
        raise ConfigError(f"the statements are larger than {MAX_STATEMENTS_BYTES // 2**20} MB")
    yield from data.splitlines(keepends=True)


def _plain(text: str, most: int) -> str:
    return "".join(character for character in text if character.isprintable())[:most]
