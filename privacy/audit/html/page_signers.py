"""Who signed a report and which ledgers stand behind it, as its page tells it. Nothing is checked here."""

from typing import Any

from privacy.audit import audited
from privacy.audit.envelope import Envelope
from privacy.audit.html.tables import Column, Table
from privacy.audit.ledger_chain import CLAIM, LEDGERS_FILE
from privacy.audit.statement import Statement
from privacy.keys.signing import keyid

ROLES = {
    "run": "the run, with a key made for it",
    "server": "the coordinator",
    "auditor": "the auditor",
}
"""Who a signer is, by its role."""

_COLUMNS = (Column("Who", numeric=False), Column("Signed", numeric=False), Column("Key id", numeric=False))


def view(sealed: Envelope, report: Statement) -> dict[str, Any]:
    """Returns what the page shows of signatures.

    Args:
      sealed: Holds ``report``; untrusted, and not checked: a signature that is there need not be good.
      report: Names signer and cosigners.
    """
    view: dict[str, Any] = {
        "table": _table("Signatures that are there; the verifier checks each", sealed, report),
        "sentence": _sentence(sealed, report),
        "audited": None,
    }
    taken_up = report.predicate["audited"]
    if taken_up is None:
        return view
    inner = audited.inside(report)
    view["sentence"] += f" The run's own report inside is {_sentence(inner.sealed, inner.report, 'signed')}"
    view["audited"] = {
        "sha256": taken_up["sha256"],
        "made": f"{taken_up['made'][:10]} {taken_up['made'][11:16]} UTC",
        "table": _table("Who signed the report that was audited", inner.sealed, inner.report),
    }
    return view


def _sentence(sealed: Envelope, report: Statement, signed_by: str = "Signed") -> str:
    who = ROLES[report.predicate["signer"]["role"]]
    signed = [site for site, key in report.cosigners.items() if keyid(key) in sealed.keyids]
    absent = [site for site in report.cosigners if site not in signed]
    if not report.cosigners:
        return f"{signed_by} by {who}."
    sites = f"and by {len(signed)} of {len(report.cosigners)} sites" if signed else "and by no site"
    return f"{signed_by} by {who} {sites}{f'; not by {_few(absent)}' if absent else ''}."


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _table(caption: str, sealed: Envelope, report: Statement) -> Table:
    listed = [(ROLES[report.predicate["signer"]["role"]], keyid(report.public_key))]
    listed += [(site, keyid(key)) for site, key in report.cosigners.items()]
    rows: list[tuple[str | int, ...]] = [
        (who, "yes" if key in sealed.keyids else "NO", key[:16]) for who, key in listed
    ]
    known = {key for _, key in listed}
    rows += [("not named in the report", "yes", key[:16]) for key in sealed.keyids if key not in known]
    return Table(caption, _COLUMNS, tuple(rows))


def ledgers(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``ledger.chain``; nothing if there is no such claim."""
    claim = report.claim(CLAIM)
    if claim is None:
        return None
    columns = (Column("Holder", numeric=False), Column("Entries"), Column("Debits of this run"))
    rows = tuple((one["holder"], one["entries"], one["debits"], one["head"][:16]) for one in claim["ledgers"])
    caption = f"{LEDGERS_FILE}, SHA-256 {claim['ledgers_sha256']}"
    table = Table(caption, (*columns, Column("Last hash begins", numeric=False)), rows)
    return {"file": LEDGERS_FILE, "table": table}
