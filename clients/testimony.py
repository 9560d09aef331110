"""What a site states about a run at its end: from its own log, ledger and list of what it sent; never its scores."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from clients.run_store import RunStore
from privacy.audit.site_statement import Refusal, SiteStatement
from privacy.charter.document import Charter
from privacy.store.application import application_digest
from privacy.store.ledger import Ledger
from privacy.store.log import Log
from strategies.invitation import Invitation


def state(  # the places that the statement is drawn from
    store: RunStore,
    invitation: Invitation,
    job: str,
    *,
    site: str,
    charter: Charter,
    log: Log,
    ledger: Ledger,
    witnessed: bytes,
) -> SiteStatement:
    """Draws the statement up.

    Args:
      store: The run's folder at the site.
      invitation: As it was let pass.
      job: Digest that the site resolved, hex.
      site: Whose statement.
      charter: Pinned.
      log: The site's.
      ledger: The site's.
      witnessed: The server's last checkpoint that was accepted, a signed note.
    """
    decisions = [entry for entry in _decisions(log) if entry["run"] == invitation.run]
    return SiteStatement(
        federation=charter.federation,
        site=site,
        run=invitation.run,
        charter=charter.digest,
        application=application_digest(),
        study=invitation.study,
        job=job,
        conformance=sha256(store.conformance).hexdigest(),
        allowed=sum(entry["allowed"] for entry in decisions),
        refusals=Refusal.counted((e["by"], e["strategy"]) for e in decisions if not e["allowed"]),
        egress=store.egress,
        debits=tuple(_debits(ledger, invitation.run)),
        log=log.note(),
        witnessed=witnessed,
    )


def _decisions(log: Log) -> Iterator[Mapping[str, Any]]:
    return (entry.record.content for entry in log.entries() if entry.record.kind == "decision")


def _debits(ledger: Ledger, run: str) -> Iterator[dict[str, Any]]:
    for debit in ledger.debits():
        if debit.run == run:
            body = debit.to_json()
            yield {key: body[key] for key in ("claim", "round", "attempt", "event")}
