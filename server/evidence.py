"""The signed report of a run of real sites: what the coordinator knows, and what every site signed about itself.

No score and no loss is in it: those stay in the sites' folders. What a site states is checked before it is believed;
a site whose statement does not hold is named as unattested, with the reason, and the run is reported all the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import privacy
from privacy.audit import approval, egress, limits, masked_rounds, report, testimony, verify
from privacy.audit.approval import CHARTER_FILE
from privacy.audit.checkpoint import open_checkpoint
from privacy.audit.egress import Sent
from privacy.audit.merkle import consistency_proof, leaf_hash
from privacy.audit.site_statement import STATEMENTS_FILE, SiteStatement, opened
from privacy.audit.statement import Statement
from privacy.audit.witness import growth
from privacy.charter.document import Charter
from privacy.charter.rules import Proposal
from privacy.dp.plan import PrivacyPlan
from privacy.errors import ConfigError, FederationError, VerificationError
from privacy.keys.signing import SigningKey
from privacy.store import report_files
from privacy.store.log import Log
from privacy.store.run_folder import MODEL_FILE, RunFolder
from server.claims import PrivacyClaim, epsilon_claim
from server.limits import of_private
from server.model_file import parameters
from server.parts import submodels
from server.releases import not_protected as about_chain
from server.releases import releases
from server.rounds import RoundRecord
from strategies.invitation import Invitation
from strategies.job import Job
from strategies.messages import CLOSE, TRAIN
from strategies.task import SiteId


@dataclass(frozen=True)
class RealRun:
    """A run that came to an end, as its coordinator knows it.

    Attributes:
      job: As the coordinator resolved it.
      invitation: What every site was asked.
      title: Of the study, for people.
      data: Whose records, in words.
      started: Of the first attempt, UTC; a run that was resumed began when it first did.
      finished: UTC.
      charters: Every version of the charter as signed, one after the other (``transcript/charter.jsonl``).
      statements: What each site answered when asked for its statement. Untrusted.
      manifest: Every payload received per site, roll call included, before and after a resumption.
      transcript: What the sites signed in masked rounds (``transcript/secagg.jsonl``).
      model: The model file's bytes.
      rounds: In order.
      attempts: Of these rounds, and of one that was begun and never ended.
      stopped: Why the run ended before its last round; empty if it did not.
      conformance: The report's claim about tested release paths; ``None`` without noise.
      claims: What the ledgers say that was paid: the sites' by their statements, the server's by its own.
      log: The server's last checkpoint, a signed note, and
      growth: what its log tells a witness that has seen that many entries, up to that checkpoint (``snapshot``).
    """

    job: Job
    invitation: Invitation
    title: str
    data: str
    started: datetime
    finished: datetime
    charters: bytes = field(repr=False)
    statements: Mapping[SiteId, bytes] = field(repr=False)
    manifest: Mapping[SiteId, Sequence[Sent]] = field(repr=False)
    transcript: bytes = field(repr=False)
    model: bytes = field(repr=False)
    rounds: tuple[RoundRecord, ...]
    attempts: int
    claims: tuple[PrivacyClaim, ...]
    log: bytes
    growth: Callable[[int], bytes] = field(repr=False)
    stopped: str = ""
    conformance: dict[str, Any] | None = None

    def received(self, site: SiteId) -> list[Sent]:
        """Returns what the server received from a site; not its statement, which cannot list itself."""
        return [sent for sent in self.manifest.get(site, ()) if sent.kind != CLOSE]

    @property
    def proposal(self) -> Proposal:
        """What the charter's rules are asked about: of every privacy setting, the plan with the least noise."""
        plans: list[PrivacyPlan] = [
            min((spent.plan for spent in claim.spent.values()), key=lambda plan: plan.noise_multiplier)
            for claim in self.claims
            if claim.placement != "central"
        ]
        return self.invitation.proposal(self.job, tuple(plans), approval.adopted(self.charters).floors)


def snapshot(log: Log) -> tuple[bytes, Callable[[int], bytes]]:
    """Returns ``log`` and ``growth`` of a run: the log as it is now, whatever is added to it while a report is made."""
    note = log.note()
    size = open_checkpoint(note, log.key).size
    leaves = [leaf_hash(entry.body) for entry in log.entries()[:size]]

    def grown(old: int) -> bytes:
        if old > size:
            raise ConfigError(f"the log has {size} entries and never had {old}")
        return growth(old, consistency_proof(old, leaves), note)

    return note, grown


def write_report(folder: RunFolder, run: RealRun, key: SigningKey) -> bytes:
    """Writes model, charter, statements, signed report and page; what our own verifier refuses is never written.

    Args:
      folder: Of the run.
      run: What happened.
      key: The coordinator's identity key, as the charter lists it. Secret; it is not kept.

    Returns: The report, which the coordinator alone has signed so far.

    Raises:
      ConfigError: The run contradicts itself, or a claim about it does not hold.
      VerificationError: Charter or transcript do not hold.
    """
    body, statements = predicate(run, report.signer_entry(key, "server"))
    signed = report.sign(body, sha256(run.model).hexdigest(), key)
    verdict = verify.verify(
        signed,
        trusted={key.public_key},
        model_sha256=sha256(run.model).hexdigest(),
        transcript=run.transcript,
        charters=run.charters,
        statements=statements,
    )
    failing = [claim for claim in verdict.claims if claim.verdict == "fails"]
    if failing:
        raise ConfigError(f"the report would not hold: {failing[0].id}: {failing[0].why}")
    folder.write(MODEL_FILE, run.model)
    folder.write(CHARTER_FILE, run.charters)
    folder.write(STATEMENTS_FILE, statements)
    report_files.write(folder, signed)
    return signed


def predicate(run: RealRun, signer: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
    """Returns the predicate that the coordinator signs, and the sites' statements that it rests on.

    Args:
      run: What happened.
      signer: The key that will sign, as the report names it.

    Raises: ConfigError, VerificationError: Charter, transcript or log do not hold.
    """
    charter = approval.adopted(run.charters)
    body = _told_by_server(run, charter, signer)
    stated, lines, unattested = _heard(run, charter, body)
    received: dict[str, Sequence[Sent]] = {site: run.received(site) for site in run.job.sites}
    body["claims"] += [
        testimony.stated_claim(stated, lines, unattested),
        testimony.left_claim(stated, received),
        testimony.witnessed_claim(charter, stated, run.log, run.growth),
    ]
    for site, reason in unattested.items():
        body["not_protected"].append(
            f"No statement that holds of {site} ({reason}): what left it and what it paid is the server's word."
        )
    return body, lines


def _told_by_server(run: RealRun, charter: Charter, signer: Mapping[str, str]) -> dict[str, Any]:
    job = run.job
    model = {"id": "model.digest", "kind": "attested", "file": MODEL_FILE, "sha256": sha256(run.model).hexdigest()}
    body = {
        "schema": "collegium/privacy-audit/v1",
        "tool": {"name": "collegium", "version": privacy.__version__},
        "run": _run(run),
        "signer": dict(signer),
        "cosigners": report.cosigner_entries({site: charter.sites[site].identity for site in job.sites}),
        "audited": None,
        "protections": {
            "secagg": job.secagg,
            "record_dp": job.record_privacy,
            "site_dp": "site" in job.privacy,
            "distributed_dp": "distributed" in job.privacy,
            "tls": True,
        },
        "claims": [
            {**model, "parameters": parameters(job)},
            *(epsilon_claim(claim, len(job.sites)) for claim in run.claims),
            *([] if run.conformance is None else [run.conformance]),
            masked_rounds.claim_of(run.transcript),
            {"id": "secagg.egress", "kind": "asserted", "unmasked_arrays": 0},
            approval.adopted_claim(charter, run.charters),
            approval.approved_claim(run.proposal, job.digest),
        ],
        "utility": None,
        "submodels": submodels(job, run.rounds),
        **releases(job, run.attempts),
        "rounds": [_round(record, divided=not job.plan.is_whole) for record in run.rounds],
        "egress": [_egress(site, run.received(site)) for site in job.sites],
    }
    return limits.told(body, *of_private(job), *about_chain(job))


def _run(run: RealRun) -> dict[str, Any]:
    skipped = sum(record.skipped for record in run.rounds)
    return {
        "id": run.invitation.run,
        "scenario": run.job.name,
        "title": run.title,
        "data": run.data,
        "strategy": run.job.strategy,
        "engine": "sites",
        "seed": run.job.seed,
        "rounds": run.job.task.training.rounds,
        "completed": len(run.rounds) - skipped,
        "skipped": skipped,
        "status": "stopped" if run.stopped else "finished",
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
    }


def _round(record: RoundRecord, *, divided: bool) -> dict[str, Any]:
    return {
        "round": record.round,
        "attempts": record.attempts,
        "answered": list(record.answered),
        "missing": [{"site": site, "reason": reason} for site, reason in record.missing.items()],
        "skipped": record.skipped,
        "still": list(record.still) if divided else [],
        "loss": None,
    }


def _egress(site: SiteId, received: Sequence[Sent]) -> dict[str, Any]:
    """A run of real sites is masked, or it does not start: every array that arrives is."""
    return {
        "site": site,
        "messages": len(received),
        "bytes": sum(sent.size for sent in received),
        "unmasked_arrays": sum(sent.kind == TRAIN for sent in received),
    }


def _heard(
    run: RealRun, charter: Charter, body: dict[str, Any]
) -> tuple[dict[str, SiteStatement], bytes, dict[str, str]]:
    """Returns the statements in which everything holds, as read and as bytes, and why there is none of other sites."""
    stated: dict[str, SiteStatement] = {}
    lines, unattested = b"", dict[str, str]()
    told = Statement("", "", body)
    for site in sorted(run.job.sites):
        data = run.statements.get(site)
        if data is None:
            unattested[site] = "it did not answer"
            continue
        try:
            one = opened(data, testimony.keys_of(charter))
            problem = next(_doubts(one, site, run, charter, told), "")
        except FederationError as error:
            problem = str(error)
        if problem:
            unattested[site] = problem[:250]
        else:
            stated[site], lines = one, lines + data
    return stated, lines, unattested


def _doubts(one: SiteStatement, site: SiteId, run: RealRun, charter: Charter, told: Statement) -> Iterator[str]:
    """Yields why a statement cannot stand in the report beside what the server itself knows."""
    if one.site != site:
        yield f"it answered with the statement of {one.site}"
    yield from testimony.about(one, told, charter)
    if unsigned := egress.without(one.egress, run.received(site))[1]:
        yield f"{len(unsigned)} payloads arrived that it does not state, the first of kind {unsigned[0].kind}"
    seen = testimony.seen_by(one, charter)
    try:
        testimony.check_growth(one, charter, run.log, run.growth(seen.size))
    except ConfigError as error:
        raise VerificationError(f"what it has seen of the server's log is not in it: {error}") from None
