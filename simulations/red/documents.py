"""Members whose report lies: an honest run's papers, altered, and signed again by a key that the reader trusts."""

import hashlib
from decimal import Decimal
from typing import Any

from privacy.audit import conformance_claim, ledger_chain
from simulations.red.member import BentReport
from simulations.red.papers import Papers

EPSILON = "privacy.epsilon"


def _first(papers: Papers) -> dict[str, Any]:
    entry: dict[str, Any] = papers.claim(EPSILON)["sites"][0]
    return entry


def _rounded_down(papers: Papers) -> None:
    entry = _first(papers)
    entry["epsilon"] = str(Decimal(entry["epsilon"]) - Decimal("0.0002"))


def _understated(papers: Papers) -> None:
    for entry in papers.claim(EPSILON)["sites"]:
        entry["epsilon"] = str((Decimal(entry["epsilon"]) / 2).quantize(Decimal("0.0001")))


def _event_deleted(papers: Papers) -> None:
    for event in _first(papers)["events"]:
        event["count"] -= 1


def _reset_each_round(papers: Papers) -> None:
    for entry in papers.claim(EPSILON)["sites"]:
        for event in entry["events"]:
            event["count"] = 1


def _more_noise(papers: Papers) -> None:
    for event in _first(papers)["events"]:
        event["noise_multiplier"] = str(2 * Decimal(event["noise_multiplier"]))


def _other_relation(papers: Papers) -> None:
    papers.claim(EPSILON)["relation"] = "add_remove"


def _as_poisson(papers: Papers) -> None:
    for entry in papers.claim(EPSILON)["sites"]:
        for event in entry["events"]:
            event["sampling"] = {"type": "poisson", "rate": "0.1"}


def _called_proved(papers: Papers) -> None:
    papers.claim(EPSILON)["kind"] = "proved"
    for entry in papers.claim(EPSILON)["sites"]:
        for event in entry["events"]:
            event.pop("arithmetic", None)


def _round_dropped(papers: Papers) -> None:
    papers.body["rounds"].pop()


def _survivor_left_out(papers: Papers) -> None:
    papers.claim("secagg.rounds")["attempts"][0]["survivors"].pop()


def _transcript_cut(papers: Papers) -> None:
    cut = b"".join(papers.files["transcript"].splitlines(keepends=True)[:-1])
    papers.files["transcript"] = cut
    papers.claim("secagg.rounds")["transcript_sha256"] = hashlib.sha256(cut).hexdigest()


def _model_swapped(papers: Papers) -> None:
    papers.model_sha256 = papers.claim("model.digest")["sha256"] = "0" * 64


def _ledger_rolled_back(papers: Papers) -> None:
    """Both lines of the last debit, and the claim about the chain to go with it."""
    cut = b"".join(papers.files["ledgers"].splitlines(keepends=True)[:-2])
    papers.files["ledgers"] = cut
    papers.claim(ledger_chain.CLAIM).update(ledger_chain.claim_of(cut, papers.body["run"]["id"]))


def _conformance_not_told(papers: Papers) -> None:
    papers.drop(conformance_claim.CLAIM)


def _ledgers_not_told(papers: Papers) -> None:
    papers.drop(ledger_chain.CLAIM)


def _too_few_shares(papers: Papers) -> None:
    rows = papers.claim("privacy.epsilon.distributed")["hypothetical"]
    for row in rows:
        row["counted"] = row is rows[-1]


_DISTRIBUTED = {"privacy": "distributed", "epsilon": Decimal(8)}

MEMBERS: tuple[BentReport, ...] = (
    BentReport("epsilon rounded down", "an epsilon 0.0002 below its events' price", _rounded_down),
    BentReport("epsilon understated", "half of every epsilon", _understated),
    BentReport("event deleted", "one execution fewer than rounds that were answered", _event_deleted),
    BentReport("accountant reset each round", "every site lists one execution", _reset_each_round),
    BentReport("more noise on paper", "one site lists twice its noise", _more_noise),
    BentReport("wrong relation", "add or remove one, for noise that was priced for zeroing one out", _other_relation),
    BentReport("full batches as Poisson", "amplification by sampling that did not happen", _as_poisson),
    BentReport("proved without exact noise", "a claim called proved whose noise was not drawn exactly", _called_proved),
    BentReport("round dropped", "the last round is not listed", _round_dropped),
    BentReport("survivor left out", "one survivor fewer than the sites signed", _survivor_left_out),
    BentReport("transcript cut", "the last attempt is missing from the transcript", _transcript_cut),
    BentReport("model swapped", "the statement is about another model", _model_swapped),
    BentReport("ledger rolled back", "the last entry of a ledger is missing", _ledger_rolled_back),
    BentReport("ledgers not told", "an epsilon, and no word of the ledgers that paid for it", _ledgers_not_told),
    BentReport("conformance not told", "an epsilon, and no test of the noise behind it", _conformance_not_told),
    BentReport(
        "uncertain shares",
        "noise of sites that may drop out is counted",
        _too_few_shares,
        _DISTRIBUTED,
    ),
)
