"""Two claims about a run of real sites: its charter was adopted, and the charter allows what ran.

Both are decided by the code that the sites' own gates use (``privacy.charter``), from the charter's versions in the
transcript folder. Whose the officers' keys are, no signature shows: a site compares the digest with the one it pinned.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from privacy.audit import transcript
from privacy.audit.statement import EPSILON_CLAIMS, Statement
from privacy.charter import rules, signatures
from privacy.charter.document import Charter
from privacy.charter.rules import CharterRefusalError, Proposal, Terms
from privacy.errors import ConfigError, RemoteProtocolError, VerificationError
from privacy.secagg.context import RUN_BYTES, RoundContext, Thresholds

ADOPTED, APPROVED = "charter.adopted", "charter.approved"
CHARTER_FILE = "transcript/charter.jsonl"
"""Where a run folder holds the charter: an envelope a line, every version from the first to the one in force."""
MAX_CHARTERS_BYTES = 2**28
_TERMS = ("epsilon", "delta", "clip", "noise")
_PROTECTION = {"record": "record_dp", "site": "site_dp", "distributed": "distributed_dp"}


def adopted(data: bytes) -> Charter:
    """Reads every version of a charter from a stranger and returns the one in force.

    Raises:
      ConfigError: Something in it is no charter.
      VerificationError: A version does not follow the one before, or too few officers signed it.
    """
    if len(data) > MAX_CHARTERS_BYTES:
        raise ConfigError(f"the charters are larger than {MAX_CHARTERS_BYTES // 2**20} MB")
    return signatures.verify_chain([signatures.decode(line) for line in data.splitlines(keepends=True)])


def adopted_claim(charter: Charter, data: bytes) -> dict[str, Any]:
    """Returns the claim that a charter is adopted; ``data`` is where it was read from."""
    return {
        "id": ADOPTED,
        "kind": "proved",
        "federation": charter.federation,
        "version": charter.version,
        "digest": charter.digest,
        "charters_sha256": hashlib.sha256(data).hexdigest(),
    }


def approved_claim(proposal: Proposal, job: str) -> dict[str, Any]:
    """Returns the claim that the charter allows a job: the proposal as every site was asked, and the job's digest."""
    names = ("charter", "application", "study", "strategy", "purpose", "asset")
    body = {
        **{name: getattr(proposal, name) for name in names},
        "parameters": {name: f"{value:f}" for name, value in proposal.parameters.items()},
        "cohort": list(proposal.cohort),
        "thresholds": None if proposal.thresholds is None else vars(proposal.thresholds),
        "privacy": [
            {"setting": terms.setting, **{name: f"{getattr(terms, name):f}" for name in _TERMS}}
            for terms in proposal.privacy
        ],
    }
    return {"id": APPROVED, "kind": "proved", "job": job, "proposal": body}


def proposal_of(claim: Mapping[str, Any]) -> Proposal:
    """Returns the proposal that ``approved_claim`` wrote; the report's schema has checked it."""
    body = dict(claim["proposal"])
    limits = body.pop("thresholds")
    return Proposal(
        **{name: body[name] for name in ("charter", "application", "study", "strategy", "purpose", "asset")},
        parameters={name: Decimal(value) for name, value in body["parameters"].items()},
        cohort=tuple(body["cohort"]),
        thresholds=None if limits is None else Thresholds(**limits),
        privacy=tuple(Terms(entry["setting"], *(Decimal(entry[name]) for name in _TERMS)) for entry in body["privacy"]),
    )


def adopted_problems(report: Statement, data: bytes, signed_rounds: bytes | None) -> list[str]:
    """Checks the claim that the charter is adopted, and that server and sites went by its keys.

    Args:
      report: Makes the claim.
      data: The charter's versions at hand. Untrusted.
      signed_rounds: The transcript of masked rounds at hand, if any. Untrusted.
    """
    claim = report.claim(ADOPTED) or {}
    found = hashlib.sha256(data).hexdigest()
    if found != claim["charters_sha256"]:
        return [f"the charter's versions have SHA-256 {found[:16]}..., the report's are others"]
    try:
        charter = adopted(data)
    except (ConfigError, VerificationError) as error:
        return [str(error)]
    expected = adopted_claim(charter, data)
    problems = [f"'{name}' is not that of the charter" for name in expected if expected[name] != claim[name]]
    if report.public_key != charter.server.identity:
        problems.append("the report is signed by another key than the charter's server has")
    problems += _other_cosigners(report, charter)
    return problems + (list(_strangers(charter, signed_rounds)) if signed_rounds is not None else [])


def _other_cosigners(report: Statement, charter: Charter) -> Iterator[str]:
    for site, key in report.cosigners.items():
        if site not in charter.sites or charter.sites[site].identity != key:
            yield f"the report lists a key of {site} to sign it that the charter does not list"


def _strangers(charter: Charter, signed_rounds: bytes) -> Iterator[str]:
    """The keys under which masked rounds were signed must be the charter's; a broken transcript is another claim's."""
    try:
        roster, _ = transcript.decode(signed_rounds)
    except ConfigError:
        return
    for site, key in roster.keys.items():
        if site not in charter.sites or charter.sites[site].identity != key:
            yield f"the masked rounds were signed under a key of {site} that the charter does not list"


def approved_problems(report: Statement, charter: Charter, signed_rounds: bytes | None) -> list[str]:
    """Asks the charter's rules whether they allow what the report says ran, for every cohort that had a sum.

    Args:
      report: Makes the claim.
      charter: Adopted.
      signed_rounds: The transcript of masked rounds at hand, if any: the sites signed in it which run it is.
    """
    proposal = proposal_of(report.claim(APPROVED) or {})
    if signed_rounds is not None and (context := _first_context(signed_rounds)) is not None:
        run = hashlib.sha256(report.predicate["run"]["id"].encode()).digest()[:RUN_BYTES]
        signed = (context.federation, context.run, context.purpose, context.asset)
        if signed != (charter.federation, run, proposal.purpose, proposal.asset):
            return ["the masked rounds were signed for another federation, run, purpose or asset"]
    asked = [proposal]
    for cohort in (report.claim("secagg.rounds") or {"cohorts": []})["cohorts"]:
        limits = Thresholds(*(cohort[name] for name in ("n_c", "t", "min_survivors", "min_cover")))
        asked.append(replace(proposal, cohort=tuple(cohort["sites"]), thresholds=limits))
    try:
        for one in asked:
            rules.check(charter, one, datetime.fromisoformat(report.predicate["run"]["started"]))
    except (CharterRefusalError, ValueError) as error:  # no such moment
        return [str(error)]
    return []


def _first_context(signed_rounds: bytes) -> RoundContext | None:
    """Returns what the first opened sum was signed for; all later ones agree with it, or another claim fails."""
    try:
        _, records = transcript.decode(signed_rounds)
        signed = next((record.signed for record in records if record.signed is not None), None)
        return None if signed is None else RoundContext.decode(signed.context)
    except (ConfigError, RemoteProtocolError):
        return None


def contradictions(report: Statement) -> Iterator[str]:
    """Yields where the proposal and the rest of the report tell two stories, in words; nothing without a charter."""
    claim = report.claim(APPROVED)
    if claim is None:
        return
    body, proposal = report.predicate, proposal_of(claim)
    run, protections = body["run"], body["protections"]
    if proposal.strategy != run["strategy"]:
        yield f"the charter was asked about {proposal.strategy}, but {run['strategy']} ran"
    if proposal.parameters.get("rounds", run["rounds"]) != run["rounds"]:
        yield f"the charter was asked about {proposal.parameters['rounds']} rounds, but {run['rounds']} were planned"
    if set(proposal.cohort) != {entry["site"] for entry in body["egress"]}:
        yield "the charter was asked about other sites than those of this run"
    yield from _masked(report, claim, proposal)
    asked = {_PROTECTION[terms.setting]: terms for terms in proposal.privacy}
    if set(asked) != {name for name in EPSILON_CLAIMS if protections[name]}:
        yield "the charter was asked about other privacy settings than those that were on"
    for name, terms in asked.items():
        yield from _terms(terms, report.claim(EPSILON_CLAIMS[name]))


def _masked(report: Statement, claim: Mapping[str, Any], proposal: Proposal) -> Iterator[str]:
    rounds = report.claim("secagg.rounds")
    if (proposal.thresholds is None) != (rounds is None):
        yield "the charter was asked about secure aggregation, or its absence, and the run had the other"
    if rounds is None:
        return
    if claim["job"] != rounds["job"]:
        yield "the masked rounds belong to another job"
    if any(not set(cohort["sites"]) <= set(proposal.cohort) for cohort in rounds["cohorts"]):
        yield "a sum was opened over sites that the charter was not asked about"


def _terms(terms: Terms, claim: Mapping[str, Any] | None) -> Iterator[str]:
    if claim is None:
        return
    if (Decimal(claim["target_epsilon"]), Decimal(claim["delta"])) != (terms.epsilon, terms.delta):
        yield f"the charter was asked about another epsilon or delta than {claim['id']} has"
    if any(Decimal(entry["clip"]) > terms.clip for entry in claim["sites"]):
        yield f"{claim['id']} clips at more than the charter was asked about"


def adopted_summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line what an adopted charter shows, and what it does not."""
    return (
        f"version {claim['version']} of the charter of {claim['federation']} carries the officers' signatures that it "
        f"and the versions before ask for; digest {claim['digest']}: compare it with the one that your site pinned"
    )


def approved_summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line what the charter allowed."""
    body = claim["proposal"]
    settings = ", ".join(entry["setting"] for entry in body["privacy"]) or "no differential privacy"
    return (
        f"every rule of the charter allows application {body['application'][:16]}..., study {body['study'][:16]}..., "
        f"strategy {body['strategy']}, {settings}, {len(body['cohort'])} sites, {body['asset']} for {body['purpose']}"
    )
