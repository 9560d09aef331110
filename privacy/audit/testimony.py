"""Three claims that rest on what the sites themselves signed about a run: statements, egress, and the server's log.

A site can lie about itself. What it cannot do is speak for another; and what the server cannot do is drop, add or
rewrite what a site said without being found, or show two sites two histories of its log.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from privacy.audit import conformance_claim, egress, payments, words
from privacy.audit.approval import ADOPTED, APPROVED
from privacy.audit.checkpoint import Checkpoint, NoteKey, open_checkpoint, parse_note, parse_size
from privacy.audit.egress import Sent
from privacy.audit.envelope import decode_base64
from privacy.audit.payments import Payment
from privacy.audit.site_statement import SiteStatement, read_all
from privacy.audit.statement import Statement
from privacy.audit.witness import Witness
from privacy.charter.document import Charter
from privacy.dp.events import event_from_json
from privacy.errors import ConfigError, UnsupportedEventError, VerificationError

STATED, LEFT, WITNESSED = "sites.statements", "sites.egress", "log.witnessed"
Stated = Mapping[str, SiteStatement]


def keys_of(charter: Charter) -> dict[str, bytes]:
    """Returns the sites' identity keys."""
    return {site.id: site.identity for site in charter.sites.values()}


def server_log(charter: Charter) -> NoteKey:
    """Returns under which name and key the server's log is signed."""
    return NoteKey(f"{charter.federation}/server/{charter.server.id}", charter.server.identity)


def site_log(charter: Charter, site: str) -> NoteKey:
    """Returns under which name and key a site's log is signed."""
    return NoteKey(f"{charter.federation}/site/{site}", charter.sites[site].identity)


def stated_claim(stated: Stated, data: bytes, unattested: Mapping[str, str]) -> dict[str, Any]:
    """Returns the claim about statements.

    Args:
      stated: Those in which everything holds.
      data: ``STATEMENTS_FILE`` with just these.
      unattested: Why there is none of another site.
    """
    return {
        "id": STATED,
        "kind": "attested",
        "statements_sha256": hashlib.sha256(data).hexdigest(),
        "sites": [stated_entry(one) for one in stated.values()],
        "unattested": [{"site": site, "reason": reason} for site, reason in unattested.items()],
    }


def stated_entry(one: SiteStatement) -> dict[str, Any]:
    """Returns what the claim says of one statement."""
    return {
        "site": one.site,
        "allowed": one.allowed,
        "refused": one.refused,
        "refusals": [vars(refusal) for refusal in one.refusals],
    }


def stated_in(report: Statement, charter: Charter, data: bytes) -> Stated:
    """Returns the sites' statements, in which everything agrees with the charter's keys and with the report.

    Args:
      report: Makes the claim.
      charter: Adopted.
      data: ``STATEMENTS_FILE`` at hand. Untrusted.

    Raises: ConfigError, VerificationError: The first thing that does not hold.
    """
    claim = report.claim(STATED) or {}
    found = hashlib.sha256(data).hexdigest()
    if found != claim["statements_sha256"]:
        raise VerificationError(f"the sites' statements have SHA-256 {found[:16]}..., the report's are others")
    stated = read_all(data, keys_of(charter))
    if [stated_entry(one) for one in stated.values()] != claim["sites"]:
        raise VerificationError("the report lists other decisions or refusals than the sites state")
    for one in stated.values():
        if problem := next(about(one, report, charter), ""):
            raise VerificationError(problem)
    return stated


def about(one: SiteStatement, report: Statement, charter: Charter) -> Iterator[str]:
    """Yields where a site's statement and the report tell two stories, in words."""
    proposal, job = (report.claim(APPROVED) or {})["proposal"], (report.claim(APPROVED) or {})["job"]
    expected = {
        "federation": (report.claim(ADOPTED) or {})["federation"],
        "run": report.predicate["run"]["id"],
        **{name: proposal[name] for name in ("charter", "application", "study")},
        "job": job,
    }
    yield from (f"{one.site} states another {name}" for name in expected if getattr(one, name) != expected[name])
    if one.conformance != hashlib.sha256(conformance_claim.said_by(report, one.site)).hexdigest():
        yield f"{one.site} said something else of its release paths at the roll call than the report says"
    if one.site not in proposal["cohort"]:
        yield f"{one.site} states something and was not asked"
    try:
        if open_checkpoint(one.log, key := site_log(charter, one.site)).origin != key.name:
            yield f"{one.site} shows the checkpoint of another log"
        yield from _debits(one, report)
    except (ConfigError, VerificationError, UnsupportedEventError) as error:
        yield f"{one.site}: {error}"


def _debits(one: SiteStatement, report: Statement) -> Iterator[str]:
    """What a site says that it paid must be the events from which its epsilon was computed, and cover its answers."""
    paid = [
        Payment(debit["claim"], debit["round"], debit["attempt"], event_from_json(debit["event"]))
        for debit in one.debits
    ]
    yield from payments.problems(report, one.site, paid)


def left_claim(stated: Stated, received: Mapping[str, Sequence[Sent]]) -> dict[str, Any]:
    """Returns the claim about what left the sites: what the server received, and what was sent and never arrived."""
    sites = []
    for site, payloads in received.items():
        lost = egress.without(stated[site].egress, payloads)[0] if site in stated else []
        sites.append(
            {
                "site": site,
                "payloads": egress.totals(payloads),
                "sha256": egress.digest(payloads),
                "lost": [one.to_json() for one in lost],
            }
        )
    return {"id": LEFT, "kind": "attested", "sites": sites}


def left_problems(report: Statement, stated: Stated) -> list[str]:
    """Compares the server's account of each payload with that of the site that sent it."""
    return [problem for entry in (report.claim(LEFT) or {})["sites"] for problem in _left(entry, stated)]


def _left(entry: Mapping[str, Any], stated: Stated) -> Iterator[str]:
    site = entry["site"]
    if site not in stated:
        return
    received, invented = egress.without(stated[site].egress, (Sent.from_json(one) for one in entry["lost"]))
    if invented:
        yield f"{len(invented)} payloads are listed as lost that {site} never sent"
    if egress.digest(received) != entry["sha256"] or egress.totals(received) != entry["payloads"]:
        yield f"the server counted other payloads from {site} than {site} signed"


def left_contradictions(report: Statement) -> Iterator[str]:
    """Yields where the payloads and the table of what left each site differ, in words."""
    claim = report.claim(LEFT)
    if claim is None:
        return
    table = {entry["site"]: (entry["messages"], entry["bytes"]) for entry in report.predicate["egress"]}
    if sorted(entry["site"] for entry in claim["sites"]) != sorted(table):
        yield "payloads are listed of other sites than the table of what left the sites"
    for entry in claim["sites"]:
        counted = tuple(sum(one[name] for one in entry["payloads"]) for name in ("messages", "bytes"))
        if table.get(entry["site"], counted) != counted:
            yield f"the payloads of {entry['site']} do not add up to what left it"


def witnessed_claim(charter: Charter, stated: Stated, note: bytes, growth: Callable[[int], bytes]) -> dict[str, Any]:
    """Returns the claim that the server's log only grew.

    Args:
      charter: In force.
      stated: Whose witnesses to answer to.
      note: The log's last checkpoint.
      growth: What the log sends to a witness who has seen that many entries (``Log.growth``).

    Raises: VerificationError: A site has witnessed more than the log holds, or something else.
    """
    sizes = sorted({seen_by(one, charter).size for one in stated.values()})
    return {
        "id": WITNESSED,
        "kind": "attested",
        "origin": server_log(charter).name,
        "checkpoint": base64.b64encode(note).decode(),
        "growths": [{"size": size, "proof": base64.b64encode(growth(size)).decode()} for size in sizes],
    }


def seen_by(one: SiteStatement, charter: Charter) -> Checkpoint:
    """Returns the server's checkpoint that a site accepted last. Raises: ConfigError, VerificationError: It is none."""
    return open_checkpoint(one.witnessed, server_log(charter))


def witnessed_problems(report: Statement, charter: Charter, stated: Stated) -> list[str]:
    """Checks that the log's last state contains every state that a site has seen of it."""
    claim, key = report.claim(WITNESSED) or {}, server_log(charter)
    growths = {entry["size"]: entry["proof"] for entry in claim["growths"]}
    if claim["origin"] != key.name:
        return [f"the log is that of {claim['origin']}, not the charter's server's"]
    site = "the server"
    try:
        open_checkpoint(note := decode_base64(claim["checkpoint"]), key)
        for site, one in stated.items():
            size = seen_by(one, charter).size
            if size not in growths:
                return [f"nothing shows that the log contains what {site} has seen of it"]
            check_growth(one, charter, note, decode_base64(growths[size]))
    except (ConfigError, VerificationError) as error:
        return [f"{site}: {error}"]
    return []


def check_growth(one: SiteStatement, charter: Charter, note: bytes, growth: bytes) -> None:
    """Checks that the server's log contains what a site has seen of it.

    Args:
      one: Says what the site has seen.
      charter: In force.
      note: The log's last checkpoint.
      growth: What the log says about its growth since.

    Raises: ConfigError, VerificationError: It went back, forked, or does not say so.
    """
    key = server_log(charter)
    witness, last = Witness(key.name, key, seen_by(one, charter)), open_checkpoint(note, key)
    witness.check(last)
    if witness.accept(growth).seen != last:
        raise VerificationError("the log's growth ends in another state than its last one")


def stated_summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line what statements that hold show."""
    refused = sum(entry["refused"] for entry in claim["sites"])
    return (
        f"{words.count(len(claim['sites']), 'site')} signed, with the charter's keys, that this charter, application, "
        f"study and job are its own; {words.count(refused, 'request')} refused and listed; not shown: that they ran it"
    )


def unattested_summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line whose statements are missing, and why."""
    listed = "; ".join(f"{entry['site']}: {entry['reason']}" for entry in claim["unattested"])
    return f"no statement that holds of {listed}"


def left_summary(claim: Mapping[str, Any], stated: int) -> str:
    """Returns in one line what an account of payloads that holds shows."""
    n = sum(one["messages"] for entry in claim["sites"] for one in entry["payloads"])
    lost = sum(len(entry["lost"]) for entry in claim["sites"])
    never = f", and {words.count(lost, 'payload')} that never arrived" if lost else ""
    return (
        f"{words.count(n, 'payload')}{never}, by kind, round, size and SHA-256: the server's account is what "
        f"{words.count(stated, 'site')} signed; not shown: what left a site by another way"
    )


def witnessed_summary(claim: Mapping[str, Any], stated: int) -> str:
    """Returns in one line what a witnessed log shows."""
    return f"the {entries(claim)} of {claim['origin']} contain all that {words.count(stated, 'site')} had seen of them"


def entries(claim: Mapping[str, Any]) -> str:
    """Returns how many entries a log has by its last checkpoint, in words; no signature is checked."""
    try:
        lines = parse_note(decode_base64(claim["checkpoint"])).text.split("\n")
        return f"{words.number(size := parse_size(lines[1]))} {'entry' if size == 1 else 'entries'}"
    except (ConfigError, IndexError):
        return "entries"
