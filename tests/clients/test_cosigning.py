"""A site signs a report if it says of this site what the site has on record, and else says in a line what is not so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clients import cosigning
from clients.cosigning import Account
from privacy.audit import envelope, report
from privacy.audit.payments import Payment
from privacy.audit.statement import Statement
from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.errors import RemoteProtocolError, VerificationError
from privacy.keys.signing import SigningKey
from strategies.task import SiteId
from tests.privacy.audit import masked, sample
from tests.privacy.audit.test_signers import KEYS, forged

VA = SiteId("va")
WEAKER = GaussianEvent(sample.NOISE / 2, FULL_BATCH, 1)
Edit = Callable[[dict[str, Any]], object]


def predicate() -> dict[str, Any]:
    """Under masks and with noise, so that there is a job to agree on and something that was paid."""
    body = masked.predicate(private=True)
    body["cosigners"] = report.cosigner_entries({site: key.public_key for site, key in KEYS.items()})
    return body


def account() -> Account:
    """What the site knows, which is what the report says."""
    body = predicate()
    rounds = next(claim for claim in body["claims"] if claim["id"] == "secagg.rounds")
    told = next(entry for entry in body["egress"] if entry["site"] == VA)
    attempts = [(n, k) for n in range(1, 16) for k in range(1, 3 if n == 7 else 2)]
    paid = tuple(Payment("record", n, k, GaussianEvent(sample.NOISE, FULL_BATCH, 1)) for n, k in attempts)
    return Account(VA, body["run"]["id"], rounds["job"], paid, told["messages"], told["bytes"], masked=True)


def signature(data: bytes, own: Account | None = None, key: SigningKey = KEYS["va"]) -> bytes:
    def doubts(found: Any) -> Any:
        return cosigning.account_doubts(found, own or account())

    return cosigning.sign(data, VA, key, doubts)


@pytest.fixture(scope="module")
def signed() -> bytes:
    return report.sign(predicate(), sample.MODEL_SHA256, sample.KEY)


def test_a_site_signs_what_it_knows_to_be_so(signed: bytes) -> None:
    assert envelope.add_signature(signed, KEYS["va"].public_key, signature(signed)) == envelope.add(signed, KEYS["va"])


OTHERWISE: dict[str, tuple[Callable[[Account], Account], str]] = {
    "another run": (lambda own: replace(own, run="another"), "another run or job"),
    "another job": (lambda own: replace(own, job="0" * 64), "another run or job"),
    "a debit that the report leaves out": (
        lambda own: replace(own, paid=(*own.paid, own.paid[-1]._replace(attempt=2))),
        "other debits than privacy.epsilon",
    ),
    "a debit less": (lambda own: replace(own, paid=own.paid[1:]), "other debits than privacy.epsilon"),
    "another noise than was added": (
        lambda own: replace(own, paid=tuple(one._replace(event=WEAKER) for one in own.paid)),
        "other debits than privacy.epsilon",
    ),
    "noise of another kind": (
        lambda own: replace(own, paid=(*own.paid, own.paid[0]._replace(claim="site"))),
        "about which the report claims nothing",
    ),
    "an answer that is not counted": (lambda own: replace(own, messages=own.messages + 1), "other messages of va"),
    "bytes that are not counted": (lambda own: replace(own, bytes=own.bytes + 1), "other bytes of va"),
}


@pytest.mark.parametrize(("change", "why"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_a_site_that_knows_otherwise_does_not_sign(
    change: Callable[[Account], Account], why: str, signed: bytes
) -> None:
    with pytest.raises(VerificationError, match=why):
        signature(signed, change(account()))


def test_a_site_that_sends_masks_only_is_not_said_to_send_arrays(signed: bytes) -> None:
    body = predicate()
    next(entry for entry in body["egress"] if entry["site"] == VA)["unmasked_arrays"] = 1
    doubts = cosigning.account_doubts(Statement("", "", body), account())
    assert any("unmasked" in doubt for doubt in doubts)
    assert signature(signed)


LISTED: dict[str, Edit] = {
    "nobody": lambda b: b.update(cosigners=[]),
    "not this site": lambda b: b["cosigners"].pop(),
    "this site with another key": lambda b: b["cosigners"][-1].update(
        public_key=report.signer_entry(sample.OTHER_KEY)["public_key"]
    ),
}


@pytest.mark.parametrize("edit", LISTED.values(), ids=LISTED.keys())
def test_a_site_that_is_not_listed_with_its_key_does_not_sign(edit: Edit) -> None:
    body = predicate()
    edit(body)
    with pytest.raises(VerificationError, match="does not list va"):
        signature(report.sign(body, sample.MODEL_SHA256, sample.KEY))


def test_a_report_that_contradicts_itself_is_not_signed() -> None:
    body = predicate()
    body["run"]["completed"] = 14
    with pytest.raises(VerificationError, match="contradicts itself"):
        signature(forged(body, sample.KEY))


def test_a_report_that_its_signer_did_not_sign_is_not_signed(signed: bytes) -> None:
    with pytest.raises(VerificationError, match="has not signed"):
        signature(forged(predicate(), KEYS["hungary"]))
    with pytest.raises(VerificationError, match="signed too"):
        signature(envelope.add(signed, sample.OTHER_KEY))


@pytest.mark.parametrize("data", [b"", b"{}\n", b"x" * 100], ids=["nothing", "no envelope", "no JSON"])
def test_what_is_no_report_is_refused_as_a_broken_message(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no report"):
        signature(data)


def test_a_payload_is_not_signed_that_a_report_is_not(signed: bytes) -> None:
    """A signature of this key under another type would be a statement, a charter or an invitation."""
    found = envelope.decode(signed)
    for kind in ("application/vnd.collegium.site-statement+json", "application/vnd.collegium.charter+json"):
        with pytest.raises(RemoteProtocolError, match="no report"):
            signature(envelope.sign(found.payload, KEYS["va"], kind))
