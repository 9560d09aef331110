"""What a report says to a reviewer's and to a data-protection officer's questions. Pure: from the predicate alone.

Questions follow the layers of NIST SP 800-226, "Guidelines for Evaluating Differential Privacy Guarantees" (2025);
attacks those that EDPB Opinion 28/2024 asks to be tested against; the annex GDPR Article 35(7). An answer is "yes" only
where a claim of the report bears it out: nothing here is a promise of its own, and nothing calls data anonymous.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from privacy.audit import crossings, words
from privacy.audit.statement import EPSILON_CLAIMS

Answer = Literal["yes", "no", "n/a"]
AUDITS = {
    "audit.one_run": "canaries in one release",
    "audit.black_box": "canaries in the training data",
    "audit.membership": "losses of real records",
    "audit.inversion": "one update turned back into a record",
}
"""Claims with a verdict, or one for each release path, and what was done."""


@dataclass(frozen=True)
class Hazard:
    """One question, phrased so that "yes" is the better answer; ``evidence`` names a claim or a part of the report."""

    layer: str
    question: str
    answer: Answer
    evidence: str


@dataclass(frozen=True)
class Attack:
    """An attack that a regulator asks about, and what the report has on it."""

    name: str
    result: str
    evidence: str


@dataclass(frozen=True)
class Risk:
    """A row of a data-protection impact assessment: all four are plain words; ``evidence`` names claims."""

    risk: str
    measure: str
    evidence: str
    residual: str


def hazards(body: dict[str, Any]) -> tuple[Hazard, ...]:
    """Answers the questions of each layer, from the parameters at the top to the trust that all rests on.

    Args:
      body: Fits ``schemas/privacy-audit-v1.json``.
    """
    found = _Read(body)
    return (
        *_parameters(found),
        *_algorithms(found),
        *_utility(found),
        *_trust(found),
        *_chain(found),
        *_security(found),
    )


def attacks(body: dict[str, Any]) -> tuple[Attack, ...]:
    """Says which attacks were tried, and what came of them; one that was not tried says so."""
    found = _Read(body)

    def tried(name: str, *claims: str) -> Attack:
        results = [f"{AUDITS[claim_id]}: {found.verdict(claim_id)}" for claim_id in found.made(*claims)]
        return Attack(name, "; ".join(results) or "not tested", found.cite(*claims))

    members = ("audit.one_run", "audit.black_box", "audit.membership")
    return (
        tried("Membership inference: was this person's record used?", *members),
        tried("Reconstruction: what did this person's record say, from what a site sent?", "audit.inversion"),
        tried("Model inversion: what did a record say, from the delivered model alone?"),
        tried("Attribute inference: what else can be said of somebody of whom some fields are known?"),
        tried("Extraction and regurgitation: does the model give records back?"),
    )


def dpia(body: dict[str, Any]) -> tuple[Risk, ...]:
    """Returns risks to people, measures against them, evidence, and what remains (GDPR Article 35(7)(c) and (d))."""
    return tuple(_risks(_Read(body)))


class _Read:
    """The report, read for what it claims."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.claims: dict[str, dict[str, Any]] = {claim["id"]: claim for claim in body["claims"]}
        self.epsilons = [self.claims[name] for name in EPSILON_CLAIMS.values() if name in self.claims]
        self.on: dict[str, bool] = body["protections"]
        self.real = body["run"]["engine"] == "sites"

    def made(self, *ids: str) -> list[str]:
        """Returns those of the ids under which the report claims something."""
        return [claim_id for claim_id in ids if claim_id in self.claims]

    def cite(self, *ids: str) -> str:
        """Names those claims that are there, or a dash."""
        return ", ".join(self.made(*ids)) or "–"

    @property
    def dp(self) -> str:
        """Names the claims of differential privacy."""
        return self.cite(*EPSILON_CLAIMS.values())

    def verdict(self, claim_id: str) -> str:
        """Returns a measured claim's verdict, the worst of several; nothing if there is no such claim."""
        claim = self.claims.get(claim_id)
        return "" if claim is None else worst_verdict(claim)

    @property
    def conforms(self) -> bool:
        """Whether every test of the release path passed, and saw every defect that was made on purpose."""
        sites = self.claims.get("conformance.release", {"sites": []})["sites"]
        tests = [one["passed"] for site in sites for one in site["tests"]]
        return bool(tests) and all(tests) and all(one["fired"] for site in sites for one in site["controls"])


def worst_verdict(claim: dict[str, Any]) -> str:
    """Returns the verdict of a claim of ``AUDITS``, the worst of its paths'."""
    verdicts = [path["verdict"] for path in claim["paths"]] if "paths" in claim else [claim["verdict"]]
    return next((one for one in ("violation", "inconclusive") if one in verdicts), "no violation")


def _answer(good: bool, *, applies: bool = True) -> Answer:
    return ("yes" if good else "no") if applies else "n/a"


def _parameters(found: _Read) -> Iterator[Hazard]:
    layer, dp = "Privacy parameter and unit", bool(found.epsilons)
    units = {claim["unit"] for claim in found.epsilons}
    entries = [entry for claim in found.epsilons for entry in claim["sites"]]
    yield Hazard(layer, "Is every loss of privacy bounded by an ε at a stated δ?", _answer(dp), found.dp)
    yield Hazard(
        layer,
        "Does a bound cover all records of a person at a site, and not only one of them?",
        _answer(bool(units & {"patient", "site"}), applies=dp),
        found.dp,
    )
    yield Hazard(
        layer,
        "Is it said what neighbouring data sets differ by, with ε for swapping beside it?",
        _answer(all(entry["epsilon_replace_one"] is not None for entry in entries), applies=dp),
        found.dp,
    )
    yield Hazard(
        layer,
        "Is spending bounded over all runs on the same data?",
        _answer(found.real or all("lifetime" in entry for entry in entries), applies=dp),
        found.dp,
    )


def _algorithms(found: _Read) -> Iterator[Hazard]:
    layer, dp = "Algorithms and their correctness", bool(found.epsilons)
    yield Hazard(layer, "Can anybody recompute ε from the listed steps?", _answer(dp, applies=dp), found.dp)
    yield Hazard(
        layer,
        "Was the code that adds noise tested before it was used, by tests that see defects made on purpose?",
        _answer(found.conforms, applies=dp),
        found.cite("conformance.release"),
    )
    yield Hazard(
        layer,
        "Was that code attacked with canaries, and stayed below the formal value?",
        _answer(found.verdict("audit.one_run") == "no violation", applies=dp),
        found.cite("audit.one_run"),
    )
    yield Hazard(
        layer,
        "Was the delivered model attacked, with an attack that works on a model without privacy?",
        _answer(any(found.verdict(name) == "no violation" for name in ("audit.black_box", "audit.membership"))),
        found.cite("audit.black_box", "audit.membership"),
    )
    yield Hazard(
        layer,
        "Do ledgers without gaps hold every step that was paid for?",
        _answer("ledger.chain" in found.claims, applies=dp),
        found.cite("ledger.chain"),
    )


def _utility(found: _Read) -> Iterator[Hazard]:
    layer, utility = "Utility and bias", found.body["utility"]
    scored = utility is not None and bool(utility["sites"])
    where = "the scores of this report" if scored else "–"
    yield Hazard(layer, "Does the report say how well the model works at each site?", _answer(scored), where)
    yield Hazard(layer, "Does it say how well it works for groups of people, by age or sex?", "no", "–")


def _trust(found: _Read) -> Iterator[Hazard]:
    layer, dp = "Trust model and exposure of data", bool(found.epsilons)
    places = {claim["placement"] for claim in found.epsilons}
    yield Hazard(
        layer,
        "Does a bound hold against the server as well?",
        _answer(bool(places & {"local", "distributed"}), applies=dp),
        found.dp,
    )
    masked = found.cite("secagg.rounds", "secagg.egress")
    yield Hazard(layer, "Is the server kept from reading a single site's update?", _answer(found.on["secagg"]), masked)
    yield Hazard(
        layer,
        "Did each site sign what it sent, so that the server's account can be compared?",
        _answer("sites.statements" in found.claims, applies=found.real),
        found.cite("sites.statements", "sites.egress"),
    )
    yield Hazard(
        layer,
        "Did nothing computed from records leave a site without a price, scores and losses included?",
        _answer(dp and found.body["utility"] is None and not crossings.unprotected(found.body), applies=found.real),
        found.cite("sites.egress"),
    )


def _chain(found: _Read) -> Iterator[Hazard]:
    if crossings.of(found.body) is not None:
        question = "Was everything that the holder of a cut model's piece saw of single records covered by noise?"
        covered = _answer(not crossings.unprotected(found.body))
        yield Hazard("Trust model and exposure of data", question, covered, "releases")


def _security(found: _Read) -> Iterator[Hazard]:
    layer, dp = "Implementation, access and security", bool(found.epsilons)
    exact = all(claim["kind"] == "proved" for claim in found.epsilons)
    yield Hazard(
        layer, "Is noise drawn as exact integers, so that rounding opens no gap?", _answer(exact, applies=dp), found.dp
    )
    yield Hazard(
        layer,
        "Does drawing noise take the same time whatever is drawn?",
        _answer(good=False, applies=dp),
        "not_protected" if dp else "–",
    )
    yield Hazard(
        layer,
        "Were connections encrypted, and both ends authenticated?",
        _answer(found.on["tls"], applies=found.real),
        "protections",
    )
    yield Hazard(
        layer,
        "Did the sites agree beforehand on what may be asked of them, and decide each request by that?",
        _answer("charter.approved" in found.claims, applies=found.real),
        found.cite("charter.adopted", "charter.approved", "sites.statements"),
    )


def _risks(found: _Read) -> Iterator[Risk]:
    yield _membership_risk(found)
    secagg, local = found.on["secagg"], found.on["record_dp"]
    read = [
        *(["only sums of several sites' updates could be opened"] if secagg else []),
        *(["each site adds noise in every step"] if local else []),
    ]
    yield Risk(
        "Whoever runs the server reads a site's update and reconstructs records from it",
        "; ".join(read) or "none: the server saw each site's update by itself",
        found.cite("secagg.rounds", "secagg.egress", *(["privacy.epsilon"] if local else []), "audit.inversion"),
        "what the sums themselves tell, and a server in league with sites"
        if secagg
        else "single noisy updates are seen by the server"
        if local
        else "all of it",
    )
    yield from _release_risk(found)
    lifetimes = any("lifetime" in entry for claim in found.epsilons for entry in claim["sites"])
    yield Risk(
        "Many runs on the same data add up until they reveal what none of them does",
        "every ledger has a budget for all runs, debited before release"
        if lifetimes or (found.real and found.epsilons)
        else "none",
        found.cite("ledger.chain", *EPSILON_CLAIMS.values()) if found.epsilons else "–",
        "releases made outside this software count in no ledger",
    )
    checked = [
        *(["tests of the release path at the start of the run"] if "conformance.release" in found.claims else []),
        *(["attacks by an auditor"] if found.made(*AUDITS) else []),
    ]
    yield Risk(
        "The software does less than it says: too little noise, no clipping, repeated randomness",
        " and ".join(checked) or "none that this report shows",
        found.cite("conformance.release", *AUDITS),
        "a document cannot show that the code that ran is the code that was tested",
    )
    yield from _handling_risks(found)


def _membership_risk(found: _Read) -> Risk:
    risk = "Somebody learns from the model whether a given person's record was used, or what it said"
    cited = found.cite(*EPSILON_CLAIMS.values(), "audit.one_run", "audit.black_box", "audit.membership")
    if not found.epsilons:
        return Risk(risk, "none: no differential privacy was applied", cited, "not bounded by this report")
    worst = [max(claim["sites"], key=lambda entry: Decimal(entry["epsilon"])) for claim in found.epsilons]
    measures = [
        f"noise, ε ≤ {entry['epsilon']} at δ = {claim['delta']} for one {claim['unit']}"
        for claim, entry in zip(found.epsilons, worst, strict=True)
    ]
    remains = [
        f"a 50 % suspicion about one {claim['unit']} may rise to {words.chance(float(entry['epsilon']))[1]}"
        for claim, entry in zip(found.epsilons, worst, strict=True)
    ]
    return Risk(risk, "; ".join(measures), cited, "; ".join(remains))


def _release_risk(found: _Read) -> Iterator[Risk]:
    released = crossings.of(found.body)
    if released is None:
        return
    noisy = [one["epsilon"] or "Infinity" for one in crossings.together(found.body)]
    yield Risk(
        "The holder of a cut model's piece recovers records or labels from the values that it is sent",
        f"noise on released values, ε ≤ {max(noisy, key=Decimal)} for one record, over all that its owner released"
        if noisy
        else "none: values were released as they are",
        "releases",
        "all of what was released as it is" if crossings.unprotected(found.body) else "what that noise leaves",
    )


def _handling_risks(found: _Read) -> Iterator[Risk]:
    real, tls = found.real, found.on["tls"]
    yield Risk(
        "Messages are read or altered on their way",
        "encrypted connections with both ends authenticated"
        if tls
        else "none"
        if real
        else "all parties ran in one place; there was no way to listen on",
        "protections",
        "a party whose keys are stolen" if tls else "all of it" if real else "a real federation needs TLS",
    )
    agreed = "charter.approved" in found.claims
    yield Risk(
        "A site is asked for something that it did not agree to",
        "a charter that the sites adopted, and a gate at each site that refuses anything else" if agreed else "none",
        found.cite("charter.adopted", "charter.approved", "sites.statements"),
        "what the charter itself allows" if agreed else "whoever runs the software decides what is asked",
    )
    yield Risk(
        "This report is forged, or altered afterwards",
        "signatures over all of it, checked offline; the page is drawn again and compared",
        "report.signature, report.page",
        "whoever holds a signing key can sign what is untrue; keys must be had by another way than the report",
    )
    yield Risk(
        "The model treats groups of people unequally",
        "none; scores are told by site only" if found.body["utility"] is not None else "none",
        "–",
        "not measured: noise tends to cost small groups most",
    )
