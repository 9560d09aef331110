"""A report that an auditor took up: the run's own inside, nothing of it changed, and both signatures checked."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import audited, envelope, report, schemas, statement
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.command import _outcome
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, parse_trust
from tests.privacy.audit import sample, test_signers
from tests.privacy.audit.test_signers import forged

AUDITOR, MADE = sample.AUDITOR, sample.AUDITED
ONE_SHOT = {
    "id": "audit.one_shot",
    "kind": "measured",
    "canaries": 100,
    "dimension": 14,
    "delta": "0.00001",
    "formal": None,
    "mean": "0.1",
    "sd": "0.3",
    "estimate": "0.5000",
    "control": {"mean": "0.9", "sd": "0.3", "estimate": "9.0000"},
}
RUN, SITES = {sample.KEY.public_key}, test_signers.ALL - {sample.KEY.public_key}


@pytest.fixture(scope="module")
def run() -> bytes:
    """A run's own report, with the signatures of two sites."""
    signed = report.sign(test_signers.predicate(), sample.MODEL_SHA256, sample.KEY)
    return test_signers.by(signed, "hungary", "va")


@pytest.fixture(scope="module")
def audit(run: bytes) -> bytes:
    return report.audited(run, [ONE_SHOT], AUDITOR, MADE)


def checked(data: bytes, without: SigningKey | None = None, threshold: int = 1) -> Verdict:
    """By a reader who trusts everybody for what they are, or all but one."""
    gone = set() if without is None else {without.public_key}
    return verify(
        data,
        trusted=RUN - gone,
        cosigners=SITES,
        auditors={AUDITOR.public_key} - gone,
        threshold=threshold,
        model_sha256=sample.MODEL_SHA256,
    )


def body_of(data: bytes) -> dict[str, Any]:
    return statement.decode(envelope.decode(data).payload).predicate


def said(verdict: Verdict, claim_id: str) -> tuple[str, str]:
    return next((claim.verdict, claim.why) for claim in verdict.claims if claim.id == claim_id)


def test_an_audited_report_says_what_the_run_said_and_more(run: bytes, audit: bytes) -> None:
    before, after = body_of(run), body_of(audit)
    assert after["claims"] == [*before["claims"], ONE_SHOT]
    assert base64.b64decode(after["audited"]["envelope"]) == run
    assert (after["signer"]["role"], after["cosigners"]) == ("auditor", [])
    verdict = checked(audit)
    assert verdict.authentic
    assert said(verdict, "report.signature")[0] == "holds"
    holds, why = said(verdict, "report.audited")
    assert holds == "holds"
    assert "listed as signed by hungary, va (not: cleveland, switzerland): you trust 2 of their 2 keys" in why
    assert "2026-11-23T09:30:00+00:00" in why
    assert said(verdict, "report.consistency")[0] == "holds"
    schemas.check("verify-v1", verdict.to_json())


def test_all_signatures_count_towards_the_threshold(audit: bytes) -> None:
    """Auditor, run and two sites; a third site would be one more than there are."""
    assert checked(audit, threshold=4).authentic
    assert not checked(audit, threshold=5).authentic


@pytest.mark.parametrize(("missing", "claim_id"), [(AUDITOR, "report.signature"), (sample.KEY, "report.audited")])
def test_both_signers_must_be_trusted(audit: bytes, missing: SigningKey, claim_id: str) -> None:
    verdict = checked(audit, without=missing)
    assert (verdict.authentic, verdict.exit_code) == (False, 1)
    assert said(verdict, claim_id)[0] == "fails"
    assert verdict.headline.startswith("NOT AUTHENTIC")


def test_the_keys_to_trust_are_those_of_both_reports(audit: bytes) -> None:
    trust = parse_trust(report.trusted_keys(audit).decode())
    assert [set(one) for one in (trust.signers, trust.cosigners, trust.auditors)] == [RUN, SITES, {AUDITOR.public_key}]


def test_the_command_takes_each_key_for_what_its_line_says(
    audit: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audit.dsse.json").write_bytes(audit)
    keys = report.trusted_keys(audit).decode()
    first = {}
    for name, text in (("marked", keys), ("bare", keys.replace(" auditor", ""))):
        (tmp_path / name).write_text(text)
        _outcome(["verify", str(tmp_path / "audit.dsse.json"), "--trust", str(tmp_path / name)])
        first[name] = capsys.readouterr().out.splitlines()[0]
    assert first["marked"].startswith("AUTHENTIC: ")
    assert first["bare"].startswith("NOT AUTHENTIC: ")


def test_a_later_audit_takes_the_place_of_the_one_before(run: bytes, audit: bytes) -> None:
    again = report.audited(audit, [ONE_SHOT], AUDITOR, MADE)
    assert again == audit
    assert audited.original(again).data == run


def test_the_page_of_an_audited_report_holds(audit: bytes) -> None:
    assert said(checked(page.render(audit)), "report.page")[0] == "holds"


@pytest.mark.parametrize("claim_id", ["privacy.epsilon", "ledger.chain", "model.digest"])
def test_nothing_but_measurements_is_added(run: bytes, claim_id: str) -> None:
    with pytest.raises(ConfigError):
        report.audited(run, [{**ONE_SHOT, "id": claim_id}], AUDITOR, MADE)


def test_an_audit_before_the_run_was_over_is_not_signed(run: bytes) -> None:
    with pytest.raises(ConfigError, match="before the run was over"):
        report.audited(run, [ONE_SHOT], AUDITOR, datetime(2026, 11, 22, 14, 3, 18, tzinfo=UTC))


# Who audits is somebody else than who ran


def test_who_signs_a_run_s_report_does_not_audit_it(run: bytes) -> None:
    """The coordinator, or a site that signed, measures its own run and calls itself the auditor."""
    for key in (sample.KEY, test_signers.KEYS["va"]):
        with pytest.raises(ConfigError, match="nobody audits a run of their own"):
            report.audited(run, [ONE_SHOT], key, MADE)
        body = audited.predicate(audited.original(run), [ONE_SHOT], report.signer_entry(key, "auditor"), MADE)
        verdict = verify(
            forged(body, key), trusted=RUN, cosigners=SITES, auditors={key.public_key}, model_sha256=sample.MODEL_SHA256
        )
        assert "nobody audits a run of their own" in said(verdict, "report.audited")[1]
        assert (verdict.authentic, verdict.exit_code) == (False, 1)


def test_a_key_trusted_for_runs_alone_audits_nothing(run: bytes) -> None:
    key = sample.OTHER_KEY
    by_other = report.audited(run, [ONE_SHOT], key, MADE)
    verdict = verify(by_other, trusted={*RUN, key.public_key}, model_sha256=sample.MODEL_SHA256)
    assert "trusted, and not as an auditor" in said(verdict, "report.signature")[1]
    assert (verdict.authentic, verdict.exit_code) == (False, 1)


def test_a_run_does_not_claim_attacks_on_itself(run: bytes) -> None:
    """Nor does an auditor make them theirs by taking such a report up."""
    body = body_of(run)
    body["claims"].append(ONE_SHOT)
    with pytest.raises(ConfigError, match="not by the run itself"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
    own = forged(body, sample.KEY)
    verdict = checked(own)
    assert "not by the run itself" in said(verdict, "report.consistency")[1]
    assert verdict.exit_code == 1
    with pytest.raises(ConfigError, match="claims attacks itself"):
        report.audited(own, [], AUDITOR, MADE)
    taken_up = audited.predicate(audited.original(own), [], report.signer_entry(AUDITOR, "auditor"), MADE)
    assert "claims attacks itself" in said(checked(forged(taken_up, AUDITOR)), "report.audited")[1]


def test_an_auditor_s_key_makes_no_run(run: bytes) -> None:
    """A report drawn up from nothing by the auditor, for a reader who trusts both keys as ``keys.txt`` names them."""
    own = forged({**body_of(run), "signer": report.signer_entry(AUDITOR), "cosigners": []}, AUDITOR)
    verdict = checked(own)
    assert (verdict.authentic, verdict.exit_code) == (False, 1)
    assert "trusted, and not as the signer of a run's report" in verdict.headline


Edit = Callable[[dict[str, Any]], object]
FORGED: dict[str, Edit] = {
    "another SHA-256": lambda b: b["audited"].update(sha256="0" * 64),
    "another title": lambda b: b["run"].update(title="Another run"),
    "less that is not protected": lambda b: b["not_protected"].pop(),
    "a claim of the run dropped": lambda b: b["claims"].pop(0) and b["claims"].append(b["claims"].pop(0)),
    "a claim of the run changed": lambda b: b["claims"][0].update(parameters=15),
    "an audit in another role": lambda b: b["signer"].update(role="server"),
    "cosigners of the audit": lambda b: b.update(cosigners=test_signers.predicate()["cosigners"]),
    "a time that is none": lambda b: b["audited"].update(made="2026-02-30T00:00:00Z"),
    "an older audit than its run": lambda b: b["audited"].update(made="2026-11-22T14:03:18Z"),
    "a claim that is no measurement": lambda b: b["claims"].append(
        {"id": "secagg.egress", "kind": "asserted", "unmasked_arrays": 0}
    ),
}


@pytest.mark.parametrize("edit", FORGED.values(), ids=FORGED.keys())
def test_an_auditor_who_changes_the_run_s_report_is_found(audit: bytes, edit: Edit) -> None:
    body = body_of(audit)
    edit(body)
    try:
        verdict = checked(forged(body, AUDITOR))
    except ConfigError:  # the schema does not take it
        return
    assert said(verdict, "report.audited")[0] == "fails"
    assert (verdict.authentic, verdict.exit_code) == (False, 1)


def test_another_model_under_the_same_run_is_found(audit: bytes) -> None:
    verdict = checked(forged(body_of(audit), AUDITOR, model_sha256="0" * 64))
    assert "another model" in said(verdict, "report.audited")[1]


def with_inside(audit: bytes, data: bytes) -> bytes:
    body = body_of(audit)
    sha256 = hashlib.sha256(data).hexdigest()
    body["audited"].update(envelope=base64.b64encode(data).decode(), sha256=sha256)
    return forged(body, AUDITOR)


def test_the_report_inside_must_be_signed_by_the_run(run: bytes, audit: bytes) -> None:
    """An auditor makes up a run: another key, no signature that fits, a stranger beside, or no report at all."""
    body = body_of(run)
    stranger = sample.OTHER_KEY
    made_up = forged({**body, "signer": report.signer_entry(stranger)}, stranger)
    assert said(checked(with_inside(audit, made_up)), "report.audited")[0] == "fails"
    assert said(checked(with_inside(audit, envelope.add(run, stranger))), "report.audited")[0] == "fails"
    with pytest.raises(VerificationError):
        checked(with_inside(audit, forged(body, stranger)))
    for nonsense in (b"x", audit, run[:-1]):
        with pytest.raises(ConfigError):
            checked(with_inside(audit, nonsense))


def test_a_changed_byte_inside_is_found(run: bytes, audit: bytes) -> None:
    """The auditor's signature covers the bytes inside, and the run's own covers what they say."""
    position = run.index(b'"sig":"') + 10
    changed = run[:position] + bytes([run[position] ^ 1]) + run[position + 1 :]
    with pytest.raises((ConfigError, VerificationError)):
        checked(with_inside(audit, changed))
