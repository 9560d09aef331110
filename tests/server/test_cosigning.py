"""A report goes round among sites: who signs, who refuses, who does not answer; it stands in any case."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import envelope, report, statement
from privacy.audit.approval import CHARTER_FILE
from privacy.audit.site_statement import STATEMENTS_FILE
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.audit.verify import Verdict, verify
from privacy.keys.signing import SigningKey, parse_trust
from privacy.store.run_folder import MODEL_FILE, PAGE_FILE, REPORT_FILE, TRUST_FILE
from server.cosigning import cosigned
from server.exchange import Answers
from strategies.messages import COSIGN
from strategies.task import SiteId
from tests.clients.invited import RUN, Parties
from tests.clients.node import body_of, refusal
from tests.federation import Federation, federate
from tests.privacy.audit import sample, test_signers
from tests.server import real

SITES = ("alba", "brno", "cork", "dole")
Edit = Callable[[dict[str, Any]], object]


# The server's side, alone


class Stub:
    """An exchange with sites that answer as they are told."""

    def __init__(self, payloads: Mapping[str, bytes], missing: Mapping[str, str]) -> None:
        self.nodes = {SiteId(site): place for place, site in enumerate((*payloads, *missing))}
        self.answers = Answers(
            {SiteId(site): data for site, data in payloads.items()},
            {SiteId(site): reason for site, reason in missing.items()},
        )
        self.asked: dict[str, bytes] = {}

    def ask(self, kind: str, questions: Mapping[str, bytes], *, group: str) -> Answers:
        assert (kind, group) == (COSIGN, "9")
        self.asked = dict(questions)
        return self.answers


def round_of(stub: Stub, signed: bytes) -> tuple[bytes, list[str]]:
    lines: list[str] = []
    return cosigned(stub, signed, group="9", note=lines.append), lines  # type: ignore[arg-type]


def test_whoever_does_not_sign_is_named_and_stops_nobody() -> None:
    signed = report.sign(test_signers.predicate(), sample.MODEL_SHA256, sample.KEY)
    message = envelope.pae(envelope.PAYLOAD_TYPE, envelope.decode(signed).payload)
    keys = test_signers.KEYS
    payloads = {"va": keys["va"].sign(message), "hungary": keys["va"].sign(message), "cleveland": b"x"}
    stub = Stub(payloads, {"switzerland": "no answer within 10 s"})
    found, lines = round_of(stub, signed)
    assert found == envelope.add(signed, keys["va"])
    assert stub.asked == dict.fromkeys(stub.nodes, signed)
    assert [line.split(":")[0] for line in lines] == [
        f"{site} does not sign the report" for site in ("switzerland", "hungary", "cleveland")
    ]
    assert lines[0].endswith("no answer within 10 s")


def test_a_site_that_is_not_listed_is_not_asked() -> None:
    signed = report.sign(sample.plain_predicate(), sample.MODEL_SHA256, sample.KEY)
    stub = Stub({}, {"va": "it hangs"})
    stub.answers = Answers({}, {})
    assert round_of(stub, signed) == (signed, [])
    assert stub.asked == {}


# Real sites


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("founded") / "north")


@pytest.fixture(scope="module")
def over(founded: Federation, tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """A federation after a run, whose report all sites were asked to sign."""
    parties = Parties(founded.copied(tmp_path_factory.mktemp("over") / "north"))
    parties.run(parties.job("record"))
    return parties


def folder_of(parties: Parties) -> Path:
    return parties.federation.hub.path / "runs" / RUN


def verified(parties: Parties, name: str = REPORT_FILE, *, threshold: int = 1, data: bytes = b"") -> Verdict:
    folder = folder_of(parties)
    trust = parse_trust((folder / TRUST_FILE).read_text())
    return verify(
        data or (folder / name).read_bytes(),
        trusted=trust.signers,
        cosigners=trust.cosigners,
        threshold=threshold,
        model_sha256=hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        transcript=(folder / TRANSCRIPT_FILE).read_bytes(),
        charters=(folder / CHARTER_FILE).read_bytes(),
        statements=(folder / STATEMENTS_FILE).read_bytes(),
    )


def edited(parties: Parties, edit: Edit, key: SigningKey | None = None) -> bytes:
    """The run's report with a change, signed by the coordinator, or whoever it then says."""
    told = statement.decode(envelope.decode((folder_of(parties) / REPORT_FILE).read_bytes()).payload)
    edit(told.predicate)
    payload = statement.encode(told.predicate, told.subject_sha256)
    return envelope.sign(payload, key or parties.federation.hub.identity)


def test_all_sites_sign_what_they_stated(over: Parties) -> None:
    for name in (REPORT_FILE, PAGE_FILE):
        verdict = verified(over, name, threshold=5)
        assert verdict.authentic
        assert not [claim for claim in verdict.claims if claim.verdict == "fails"]
    for site in SITES:
        entries = [one.record for one in over.federation.folders[site].log().entries()]
        assert [one.content["run"] for one in entries if one.kind == "report-signed"] == [RUN]


def claim(body: dict[str, Any], claim_id: str) -> Any:
    return next(one for one in body["claims"] if one["id"] == claim_id)


def more_bytes(body: dict[str, Any]) -> None:
    """In every place that must agree about it."""
    body["egress"][0]["bytes"] += 1
    claim(body, "sites.egress")["sites"][0]["payloads"][0]["bytes"] += 1


def left_out(body: dict[str, Any]) -> None:
    stated = claim(body, "sites.statements")
    stated["sites"].pop(0)
    stated["unattested"].append({"site": "alba", "reason": "it did not answer"})


def less_refused(body: dict[str, Any]) -> None:
    claim(body, "sites.statements")["sites"][0].update(allowed=3)


FALSE: dict[str, tuple[Edit, str]] = {
    "nothing": (lambda _: None, ""),
    "about others only": (lambda b: b["run"].update(title="Another title"), ""),
    "another run": (lambda b: b["run"].update(id="second"), "another run"),
    "another job": (
        lambda b: [claim(b, name).update(job="0" * 64) for name in ("charter.approved", "secagg.rounds")],
        "another job",
    ),
    "more bytes": (more_bytes, "other payloads from alba than alba signed"),
    "a digest of other payloads": (
        lambda b: claim(b, "sites.egress")["sites"][0].update(sha256="0" * 64),
        "other payloads from alba than alba signed",
    ),
    "no statement": (left_out, "decisions and refusals that alba states"),
    "other decisions": (less_refused, "decisions and refusals that alba states"),
    "less noise": (
        lambda b: claim(b, "privacy.epsilon")["sites"][0]["events"][0].update(noise_multiplier="9"),
        "other debits",
    ),
    "another log": (lambda b: claim(b, "log.witnessed").update(origin="north/server/other"), "not the charter's"),
    "another key of the site": (
        lambda b: b["cosigners"][0].update(public_key=report.signer_entry(real.STRANGER)["public_key"]),
        "does not list alba",
    ),
}


@pytest.mark.parametrize(("edit", "why"), FALSE.values(), ids=FALSE.keys())
def test_a_site_signs_only_what_it_stated(edit: Edit, why: str, over: Parties) -> None:
    data = edited(over, edit)
    reply = over.ask("alba", COSIGN, data)
    if not why:
        key = over.federation.folders["alba"].identity
        assert envelope.add_signature(data, key.public_key, body_of(reply)) == envelope.add(data, key)
    else:
        assert why in refusal(reply)


def test_a_site_signs_for_its_coordinator_only(over: Parties) -> None:
    """Somebody else has a report with all that the sites stated, and its own key in it."""
    key = real.STRANGER
    data = edited(over, lambda b: b.update(signer=report.signer_entry(key, "server")), key)
    assert "another key signed it than the charter's coordinator has" in refusal(over.ask("alba", COSIGN, data))


def test_before_it_stated_anything_a_site_signs_nothing(over: Parties, founded: Federation, tmp_path: Path) -> None:
    parties = Parties(founded.copied(tmp_path / "north"))
    body_of(parties.hello("alba", parties.signed(parties.job("record"))))
    data = (folder_of(over) / REPORT_FILE).read_bytes()
    assert "has stated nothing" in refusal(parties.ask("alba", COSIGN, data))


def test_a_list_of_cosigners_with_other_keys_than_the_charter_s_fails(over: Parties) -> None:
    """The coordinator signs in a site's name, with a key that it made."""
    mine = report.signer_entry(real.STRANGER)["public_key"]
    data = envelope.add(edited(over, lambda b: b["cosigners"][0].update(public_key=mine)), real.STRANGER)
    failed = {one.id: one.why for one in verified(over, data=data).claims if one.verdict == "fails"}
    assert "a key of alba to sign it that the charter does not list" in failed["charter.adopted"]
