"""Draws ``report.html`` from the signed envelope: the same bytes for the same envelope and tool version.

The page answers, on its first screen, who is protected, from whom and how strongly, and what is not protected; the
rest is the evidence. ``verify`` redraws it, so nothing here may depend on the clock, the locale or the machine.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from privacy.audit import approval, assessment, envelope, limits, masked_rounds, statement, testimony, words
from privacy.audit.assessment import AUDITS
from privacy.audit.canary_file import CANARIES_FILE
from privacy.audit.html import (
    page_assessment,
    page_attacks,
    page_conformance,
    page_crossings,
    page_parts,
    page_privacy,
    page_rounds,
    page_secagg,
    page_signers,
    page_sites,
    page_utility,
)
from privacy.audit.html.stylesheet import CSS
from privacy.audit.html.template import PAGE
from privacy.audit.ledger_chain import LEDGERS_FILE
from privacy.audit.site_statement import STATEMENTS_FILE
from privacy.audit.statement import Statement
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.keys.signing import keyid

ENVELOPE_OPEN = b'<script type="application/json" id="envelope">'
ENVELOPE_CLOSE = b"</script>"

# Nothing is fetched and nothing runs, even if a hole in the escaping were found one day.
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_JINJA = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TEMPLATE = _JINJA.from_string(PAGE)


def render(envelope_data: bytes) -> bytes:
    """Draws the page of a report.

    Args:
      envelope_data: The bytes of ``report.dsse.json``; decoded strictly, its signature is not checked.

    Returns: A self-contained HTML document, UTF-8, with the envelope inside.
    Raises: ConfigError: Not an envelope with a valid report.
    """
    sealed = envelope.decode(envelope_data)
    report = statement.decode(sealed.payload)
    # Strictly decoded, it consists of base64, hex and fixed names: there is no "<" that could end the script early.
    embedded = Markup((ENVELOPE_OPEN + envelope_data + ENVELOPE_CLOSE).decode("ascii"))  # noqa: S704 - decoded above
    css, csp = Markup(CSS), Markup(CSP)  # noqa: S704 - constants of this package
    view = {**_view(report), **_evidence(report), "signed": page_signers.view(sealed, report)}
    return _TEMPLATE.render(view, keyid=keyid(report.public_key), envelope=embedded, css=css, csp=csp).encode()


def _view(report: Statement) -> dict[str, Any]:
    body = report.predicate
    run = body["run"]
    model = report.claim("model.digest") or {}
    states = body["protections"]
    used = {claim["kind"] for claim in body["claims"]}
    return {
        "file": "report.html" if body["audited"] is None else "audit.html",
        "canaries": CANARIES_FILE,
        "run": run,
        "tool": body["tool"],
        "status": words.STATUSES[run["status"]],
        "noun": "scenario" if body["utility"] is not None else "study",
        "engine": words.ENGINES[run["engine"]],
        "started": _moment(run["started"]),
        "finished": _moment(run["finished"]),
        "summary": _summary(body),
        "privacy": page_privacy.view(report),
        "stop": page_privacy.stop(report),
        "not_protected": _limits(report, "not_protected"),
        "assumptions": _limits(report, "assumptions"),
        "protections": [
            {"name": name, "on": states[key], "words": on if states[key] else off}
            for key, (name, on, off) in words.PROTECTIONS.items()
        ],
        "utility": None
        if body["utility"] is None
        else page_utility.view(body["utility"], private=bool(report.epsilons), divided=body["submodels"] is not None),
        "sites": page_sites.view(report),
        "rounds": page_rounds.view(body["rounds"]),
        "parts": page_parts.view(report),
        "crossings": page_crossings.view(report),
        "secagg": page_secagg.view(report),
        "egress": page_rounds.egress(body["egress"]),
        "claims": [_claim(claim, report) for claim in body["claims"]],
        "other_kinds": [{"name": name, "worth": worth} for name, worth in words.KINDS.items() if name not in used],
        "public_key": body["signer"]["public_key"],
        "model": {**model, "size": words.count(model["parameters"], "parameter")},
    }


def _evidence(report: Statement) -> dict[str, Any]:
    """What was tested, attacked and written down beside the run itself, and what that means to a reviewer."""
    return {
        "alarms": page_assessment.alarms(report.predicate),
        "measured": page_assessment.measured(report.predicate),
        "tested": page_conformance.view(report),
        "one_run": page_attacks.one_run(report),
        "black_box": page_attacks.black_box(report),
        "membership": page_attacks.membership(report),
        "one_shot": page_attacks.one_shot(report),
        "inversion": page_attacks.inversion(report),
        "ledgers": page_signers.ledgers(report),
        "questions": page_assessment.questions(report.predicate),
        "asked": assessment.attacks(report.predicate),
        "risks": assessment.dpia(report.predicate),
    }


def _limits(report: Statement, name: str) -> dict[str, list[str]]:
    own = limits.own_words(report, name)
    return {"lines": [line for line in report.predicate[name] if line not in own], "own": own}


def _moment(text: str) -> str:
    return f"{text[:10]} {text[11:16]} UTC"


def _summary(body: dict[str, Any]) -> str:
    run = body["run"]
    took_part = {site for entry in body["rounds"] for site in entry["answered"]}
    done = words.count(run["completed"], "round")
    of = "" if run["completed"] == run["rounds"] else f" of {run['rounds']} planned"
    return f"{words.count(len(took_part), 'site')} trained one model together in {done}{of}, by {run['strategy']}."


def _claim(claim: dict[str, Any], report: Statement) -> dict[str, str]:
    says = _says(claim, report)
    return {"id": claim["id"], "kind": claim["kind"], "says": says, "worth": words.KINDS[claim["kind"]]}


def _says(claim: dict[str, Any], report: Statement) -> str:
    say = _SAYS.get(claim["id"])
    return _epsilon_says(claim, report) if say is None else say(claim)


_SAYS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model.digest": lambda c: f"The model is the file {c['file']} with SHA-256 {c['sha256'][:16]}…",
    "conformance.release": page_conformance.says,
    "ledger.chain": lambda c: f"By {LEDGERS_FILE}, {words.count(len(c['ledgers']), 'ledger')} without a gap",
    **dict.fromkeys(AUDITS, page_assessment.attack_says),
    "audit.one_shot": lambda c: f"Canary sites give an estimate of ε {c['estimate']}, which is no bound",
    "secagg.rounds": lambda c: f"By the signatures in {TRANSCRIPT_FILE}, {masked_rounds.summary(c)}",
    "secagg.egress": lambda _: "The coordinator received no unmasked array from any site",
    approval.ADOPTED: lambda c: f"By {approval.CHARTER_FILE}, {approval.adopted_summary(c)}",
    approval.APPROVED: lambda c: f"At the run's start {approval.approved_summary(c)}",
    testimony.STATED: lambda c: f"By {STATEMENTS_FILE}, {testimony.stated_summary(c)}",
    testimony.LEFT: lambda _: "The server received from each site what the site signed, and nothing else",
    testimony.WITNESSED: lambda c: f"The log {c['origin']} only grew after a site last looked at it",
}


def _epsilon_says(claim: dict[str, Any], report: Statement) -> str:
    whom = "Each site" if claim["unit"] == "site" else f"Each {claim['unit']} at each site"
    return (
        f"{whom}: ε at most {page_privacy.largest(claim, 'epsilon')} at δ = {claim['delta']}, relation "
        f"{claim['relation']}, by {claim['accountant']} from the listed steps, against "
        f"{words.against(claim, unequal=report.unequal, cut=report.cut)}"
    )
