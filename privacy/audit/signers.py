"""Who may sign a report, and who did: the signer, who must have; the sites that it lists; whoever the reader trusts.

A site's signature says that what the report tells about that site is what the site has on record itself. It does not
vouch for the rest, and a report without it stands: a site may be away, or refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from privacy.audit import envelope, transcript
from privacy.audit.envelope import Envelope
from privacy.audit.statement import Statement
from privacy.errors import VerificationError
from privacy.keys.signing import Trust, keyid


@dataclass(frozen=True)
class Signed:
    """Whose signatures hold; all fields are public.

    Attributes:
      signer: Key id of the signer, whose signature is always there.
      sites: Cosigning sites that signed.
      absent: Those that did not.
      trusted: Key ids of the reader's trust set, cosigners' included, that signed.
      unknown: Key ids that signed, and that neither the report nor the reader knows: of them nothing was checked.
    """

    signer: str
    sites: tuple[str, ...]
    absent: tuple[str, ...]
    trusted: frozenset[str]
    unknown: tuple[str, ...]

    @property
    def who(self) -> str:
        """Who signed and who did not, in words."""
        named = f", {', '.join(self.sites)}" if self.sites else ""
        without = f" (not: {', '.join(self.absent)})" if self.absent else ""
        return f"key {self.signer[:16]}{named}{without}"


def read(sealed: Envelope, report: Statement, trust: Trust | None = None) -> Signed:
    """Checks every signature whose key is known.

    Args:
      sealed: Holds ``report``. Untrusted.
      report: Names signer and cosigners.
      trust: Whom the reader trusts; they may sign without being named.

    Raises: VerificationError: The signer has not signed, or a signature does not fit.
    """
    signer, sites = keyid(report.public_key), {site: keyid(key) for site, key in report.cosigners.items()}
    if signer not in sealed.keyids:
        raise VerificationError(f"the report names key {signer[:16]} as its signer, which has not signed it")
    trusted = frozenset() if trust is None else trust.signers | trust.cosigners
    unknown = envelope.check_signatures(sealed, {report.public_key, *report.cosigners.values(), *trusted})
    there = set(sealed.keyids)
    return Signed(
        signer=signer,
        sites=tuple(site for site, named in sites.items() if named in there),
        absent=tuple(site for site, named in sites.items() if named not in there),
        trusted=frozenset(there & {keyid(key) for key in trusted}),
        unknown=unknown,
    )


def problems(signed: Signed, trust: Trust | None = None) -> Iterator[str]:
    """Yields why signatures that fit are not those of anybody whom a reader knows, in words.

    Args:
      signed: What ``read`` found.
      trust: Whom the reader trusts; ``None`` if that is not in question.
    """
    for stranger in signed.unknown:
        yield f"key {stranger[:16]} signed too, which neither the report names nor the reader trusts"
    if trust is None or signed.signer in {keyid(key) for key in trust.signers}:
        return
    if signed.signer in signed.trusted:
        yield f"signed by key {signed.signer[:16]}, which is trusted beside a signer, and not as one"
    else:
        yield f"signed by key {signed.signer[:16]}, which is not among the {len(trust.signers)} trusted"


def other_keys(report: Statement, signed_rounds: bytes) -> Iterator[str]:
    """Yields which sites signed masked rounds under another key than the report lists for them to sign it, in words.

    Args:
      report: Names the cosigners.
      signed_rounds: ``transcript/secagg.jsonl``, whose signatures are checked elsewhere.

    Raises: ConfigError: It does not begin with a roster.
    """
    roster, _ = transcript.decode(signed_rounds)
    for site, key in report.cosigners.items():
        if roster.keys.get(site, key) != key:
            yield f"{site} signed the masked rounds under another key than it is listed to sign the report with"


def contradictions(report: Statement) -> Iterator[str]:
    """Yields what a report of a run says about its signers and cannot be so, in words."""
    body = report.predicate
    if body["signer"]["role"] == "auditor":
        yield "an auditor signs a report that has the audited one inside, and nothing else"
    sites = [entry["site"] for entry in body["cosigners"]]
    if any(first >= second for first, second in pairwise(sites)):
        yield "the cosigners are not in the order of their names, or one is there twice"
    if strangers := [site for site in sites if site not in {entry["site"] for entry in body["egress"]}]:
        yield f"{strangers[0]} is listed to sign and took no part"
    keys = [body["signer"]["public_key"], *(entry["public_key"] for entry in body["cosigners"])]
    if len(set(keys)) != len(keys):
        yield "two of those who are listed to sign have one key"
