"""Who may sign a report, and who did: the signer, who must have; the sites that it lists; whoever the reader trusts.

A site's signature says that what the report tells about that site is what the site has on record itself. It does not
vouch for the rest, and a report without it stands: a site may be away, or refuse.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from privacy.audit import envelope, transcript, words
from privacy.audit.audited import ADDED
from privacy.audit.envelope import Envelope
from privacy.audit.statement import Statement
from privacy.errors import VerificationError
from privacy.keys.signing import Trust, keyid


@dataclass(frozen=True)
class Signed:
    """Whose signatures hold; all fields are public.

    Attributes:
      signer: Key id of the signer, whose signature is always there.
      sites: Cosigning sites that signed, each with the key id that the report lists for it.
      absent: Those that did not.
      trusted: Key ids of the reader's trust set, in whatever role, that signed; ``None`` without such a set.
      unknown: Key ids that signed, and that neither the report nor the reader knows: of them nothing was checked.
    """

    signer: str
    sites: Mapping[str, str]
    absent: tuple[str, ...]
    trusted: frozenset[str] | None
    unknown: tuple[str, ...]

    @property
    def who(self) -> str:
        """Who signed and who did not, in words: that a key is a site's is at first only what the report says."""
        signer = f"key {self.signer[:16]} signed it"
        without = f" (not: {', '.join(self.absent)})" if self.absent else ""
        if not self.sites:
            return signer + (f"; no site that it lists did{without}" if self.absent else "")
        if self.trusted is None:
            whose = "the report alone says that these keys are theirs"
        else:
            known = sum(key in self.trusted for key in self.sites.values())
            whose = f"you trust {known} of their {words.count(len(self.sites), 'key')}"
        return f"{signer}; listed as signed by {', '.join(self.sites)}{without}: {whose}"


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
    trusted = None if trust is None else frozenset(keyid(key) for key in trust.keys)
    known = {report.public_key, *report.cosigners.values(), *(() if trust is None else trust.keys)}
    unknown = envelope.check_signatures(sealed, known)
    there = set(sealed.keyids)
    return Signed(
        signer=signer,
        sites={site: named for site, named in sites.items() if named in there},
        absent=tuple(site for site, named in sites.items() if named not in there),
        trusted=None if trusted is None else trusted & there,
        unknown=unknown,
    )


def problems(signed: Signed, trust: Trust | None = None, *, audit: bool = False) -> Iterator[str]:
    """Yields why signatures that fit are not those of anybody whom a reader knows, in words.

    Args:
      signed: What ``read`` found.
      trust: Whom the reader trusts; ``None`` if that is not in question.
      audit: Whether they signed an audit, which its auditor signs, or a run's own report.
    """
    for stranger in signed.unknown:
        yield f"key {stranger[:16]} signed too, which neither the report names nor the reader trusts"
    if trust is None:
        return
    if signed.signer in {keyid(key) for key in (trust.auditors if audit else trust.signers)}:
        return
    if signed.signer in (signed.trusted or ()):
        role = "auditor" if audit else "signer of a run's report"
        yield f"signed by key {signed.signer[:16]}, which is trusted, and not as {'an' if audit else 'the'} {role}"
    else:
        yield f"signed by key {signed.signer[:16]}, which is not among the {len(trust.keys)} trusted"


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
    if body["audited"] is None and any(claim["id"].startswith(ADDED) for claim in body["claims"]):
        yield "attacks are claimed by an auditor, around a run's report, and not by the run itself"
    sites = [entry["site"] for entry in body["cosigners"]]
    if any(first >= second for first, second in pairwise(sites)):
        yield "the cosigners are not in the order of their names, or one is there twice"
    if strangers := [site for site in sites if site not in {entry["site"] for entry in body["egress"]}]:
        yield f"{strangers[0]} is listed to sign and took no part"
    keys = [body["signer"]["public_key"], *(entry["public_key"] for entry in body["cosigners"])]
    if len(set(keys)) != len(keys):
        yield "two of those who are listed to sign have one key"
