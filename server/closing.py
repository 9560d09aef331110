"""The end of a run of real sites: each keeps the model and states what left it; the report is signed and goes round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from privacy.audit import egress
from privacy.audit.approval import CHARTER_FILE
from privacy.audit.egress import EGRESS_FILE, Sent
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.charter.document import Charter
from privacy.dp.events import merged
from privacy.dp.filters import Filter
from privacy.dp.plan import PrivacyPlan, SitePlan
from privacy.keys.signing import SigningKey
from privacy.store import report_files
from privacy.store.ledger import Ledger
from privacy.store.log import Log
from privacy.store.run_folder import MODEL_FILE, REPORT_FILE, RunFolder, read_file
from server.claims import Lifetime, PrivacyClaim, Spent, claims_of
from server.conduct import Conducted
from server.cosigning import cosigned
from server.evidence import RealRun, snapshot, write_report
from server.model_file import model_file
from strategies.invitation import Invitation
from strategies.job import Job
from strategies.messages import CLOSE, Closing
from strategies.study import Study
from strategies.task import SiteId


@dataclass(frozen=True)
class Ended:
    """A run whose rounds are over.

    Attributes:
      ledger: The coordinator's, if it added noise.
    """

    folder: RunFolder
    study: Study
    job: Job
    invitation: Invitation
    done: Conducted
    charter: Charter
    log: Log
    ledger: Ledger | None
    started: datetime
    finished: datetime


def close(ended: Ended, key: SigningKey, report: Callable[[str], None]) -> None:
    """Asks every site to close, writes model, statements, signed report and page, and has the sites sign the report.

    Args:
      ended: What is over.
      key: The coordinator's identity key. Secret.
      report: Takes plain lines for people.

    Raises: FederationError: A claim about the run does not hold; the model is written all the same.
    """
    report("closing: each site keeps the model and states what left it")
    done, job, folder = ended.done, ended.job, ended.folder
    closings = {
        site: Closing(job.digest, len(done.rounds), done.model[job.plan.held_by(site)]).encode()
        for site in done.roster.nodes
    }
    answers = done.exchange.ask(CLOSE, closings, group=str(len(done.rounds) + 1))
    for site, reason in answers.missing.items():
        report(f"{site} states nothing: {reason}")
    model = model_file(job, done.model)
    folder.write(MODEL_FILE, model)
    note, growth = snapshot(ended.log)
    run = RealRun(
        job=job,
        invitation=ended.invitation,
        title=ended.study.title,
        data="the sites' own records, which never left them",
        started=ended.started,
        finished=ended.finished,
        charters=folder.read(CHARTER_FILE),
        statements=answers.payloads,
        manifest=_manifest(folder),
        transcript=folder.read(TRANSCRIPT_FILE),
        model=model,
        rounds=done.rounds,
        attempts=done.attempts,
        claims=_claims(ended, answers.payloads),
        log=note,
        growth=growth,
        stopped=done.stopped,
        conformance=done.conformance,
    )
    signed = write_report(folder, run, key)  # it stands, whatever becomes of the signatures beside it
    report("the report goes round, for the sites to sign it as well")
    report_files.write(folder, cosigned(done.exchange, signed, group=str(len(done.rounds) + 2), note=report))
    report(f"report {folder.path / REPORT_FILE}")


def _manifest(folder: RunFolder) -> dict[SiteId, list[Sent]]:
    """Returns every payload received, from before a resumption as well."""
    path = folder.path / EGRESS_FILE
    received = egress.read(read_file(path)) if path.exists() else {}
    return {SiteId(site): sent for site, sent in received.items()}


def _claims(ended: Ended, statements: Mapping[SiteId, bytes]) -> tuple[PrivacyClaim, ...]:
    """Returns a claim for each kind of noise: what sites state that they paid, what the server paid by its ledger."""
    done, plan, own = ended.done, ended.job.sum_plan, None
    if isinstance(plan, SitePlan) and ended.ledger is not None:
        debits = [debit for debit in ended.ledger.debits() if debit.run == ended.invitation.run]
        if events := merged([debit.event for debit in debits]):
            own = Spent(plan, events, _lifetime(ended, ended.ledger, plan))
    return claims_of(ended.job, ended.charter, done.roster.n_records, done.attempts, statements, server=own)


def _lifetime(ended: Ended, ledger: Ledger, plan: PrivacyPlan) -> Lifetime | None:
    with ledger.reading() as books:
        budget = books.asset(ended.invitation.asset).budgets[plan.claim]
        events = books.spent(ended.invitation.asset, plan.claim)
    return Lifetime(ended.invitation.asset, budget, events) if isinstance(budget, Filter) else None
