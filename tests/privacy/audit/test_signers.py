"""Who signed a report: sites beside the signer, a threshold of the reader's, and strangers who sign as well."""

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from privacy.audit import envelope, report, statement
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, parse_trust
from tests.privacy.audit import masked, sample

SITES = tuple(sorted(sample.N_TRAIN))
KEYS = {site: SigningKey(bytes([10 + place]) * 32) for place, site in enumerate(SITES)}
OFFICER = SigningKey(bytes([99]) * 32)
ALL = {sample.KEY.public_key, *(key.public_key for key in KEYS.values())}


def predicate() -> dict[str, Any]:
    body = sample.plain_predicate()
    body["cosigners"] = report.cosigner_entries({site: key.public_key for site, key in KEYS.items()})
    return body


@pytest.fixture(scope="module")
def signed() -> bytes:
    return report.sign(predicate(), sample.MODEL_SHA256, sample.KEY)


def by(data: bytes, *names: str) -> bytes:
    for name in names:
        data = envelope.add(data, KEYS[name])
    return data


def forged(body: dict[str, Any], key: SigningKey, model_sha256: str = sample.MODEL_SHA256) -> bytes:
    """Signs whatever it is given, under whatever name it has in it."""
    return envelope.sign(statement.encode(body, model_sha256), key)


def checked(data: bytes, trusted: set[bytes] | None = None, threshold: int = 1) -> Verdict:
    return verify(
        data, trusted=ALL if trusted is None else trusted, threshold=threshold, model_sha256=sample.MODEL_SHA256
    )


def test_all_signed(signed: bytes) -> None:
    verdict = checked(by(signed, *SITES), threshold=5)
    assert (verdict.exit_code, verdict.authentic) == (0, True)
    assert verdict.claims[0].why.endswith(f"{', '.join(SITES)}: you trust 4 of their 4 keys")
    assert verdict.headline.endswith(f"by the trusted key {sample.KEY.keyid[:16]} and 4 other trusted keys")


def test_the_signer_s_signature_is_enough_and_who_is_missing_is_said(signed: bytes) -> None:
    verdict = checked(by(signed, "va"))
    assert (verdict.exit_code, verdict.authentic) == (0, True)
    listed = "listed as signed by va (not: cleveland, hungary, switzerland): you trust 1 of their 1 key"
    assert verdict.claims[0].why.endswith(f"since key {sample.KEY.keyid[:16]} signed it; {listed}")


def test_keys_that_only_the_report_calls_a_site_s_are_not_told_as_a_site_s(signed: bytes) -> None:
    """Four keys that the coordinator made up itself, each with a signature that fits."""
    data, trusted = by(signed, *SITES), {sample.KEY.public_key}
    listed = f"listed as signed by {', '.join(SITES)}: "
    verdict = checked(data, trusted)
    assert verdict.claims[0].why.endswith(f"{listed}you trust 0 of their 4 keys")
    assert verdict.headline == f"AUTHENTIC: signed by the trusted key {sample.KEY.keyid[:16]}"
    for verdict in (verify(data), verify(data, self_signed=True)):
        assert verdict.claims[0].why.endswith(f"{listed}the report alone says that these keys are theirs")


def test_that_no_site_signed_is_said(signed: bytes) -> None:
    assert checked(signed).claims[0].why.endswith(f"no site that it lists did (not: {', '.join(SITES)})")


@pytest.mark.parametrize(("n_sites", "holds"), [(0, False), (1, False), (2, True), (4, True)])
def test_a_threshold_counts_trusted_keys_that_signed(signed: bytes, n_sites: int, holds: bool) -> None:
    verdict = checked(by(signed, *SITES[:n_sites]), threshold=3)
    assert (verdict.authentic, verdict.exit_code) == (holds, 0 if holds else 1)
    if not holds:
        assert f"signed by {n_sites + 1} of the 5 trusted keys" in verdict.claims[0].why
        assert verdict.headline.startswith("NOT AUTHENTIC")


def test_a_signature_that_the_reader_does_not_trust_does_not_count(signed: bytes) -> None:
    trusted = {sample.KEY.public_key, KEYS["va"].public_key, OFFICER.public_key}
    assert not checked(by(signed, "cleveland", "hungary"), trusted, threshold=2).authentic
    assert checked(by(signed, "cleveland", "va"), trusted, threshold=2).authentic


def test_trusted_sites_do_not_make_up_for_the_signer(signed: bytes) -> None:
    verdict = checked(by(signed, *SITES), {key.public_key for key in KEYS.values()}, threshold=2)
    assert (verdict.authentic, verdict.exit_code) == (False, 1)
    assert "not among the 4 trusted" in verdict.claims[0].why


def test_an_officer_who_is_trusted_may_sign_beside(signed: bytes) -> None:
    countersigned = envelope.add(signed, OFFICER)
    assert checked(countersigned, {sample.KEY.public_key, OFFICER.public_key}, threshold=2).exit_code == 0
    for verdict in (
        checked(countersigned),
        verify(countersigned, model_sha256=sample.MODEL_SHA256),
        verify(countersigned, self_signed=True, model_sha256=sample.MODEL_SHA256),
    ):
        assert verdict.exit_code == 1
        assert f"key {OFFICER.keyid[:16]} signed too" in verdict.claims[0].why


def test_a_report_without_its_signer_s_signature_is_none() -> None:
    payload = statement.encode(predicate(), sample.MODEL_SHA256)
    for data in (envelope.sign(payload, KEYS["va"]), by(envelope.sign(payload, KEYS["va"]), "hungary")):
        with pytest.raises(VerificationError, match="has not signed it"):
            checked(data)


@pytest.mark.parametrize("whose", [*SITES, "signer"])
def test_every_signature_that_is_there_must_fit(signed: bytes, whose: str) -> None:
    """Also one more than is asked for, by a key that the reader does not trust."""
    decoded = envelope.decode(by(signed, *SITES))
    keyid = (KEYS | {"signer": sample.KEY})[whose].keyid
    signature = next(one.value for one in decoded.signatures if one.keyid == keyid)
    data = by(signed, *SITES).replace(base64.b64encode(signature), base64.b64encode(bytes(64)))
    for trusted in (ALL, {sample.KEY.public_key}, set(), None):
        with pytest.raises(VerificationError):
            verify(data, trusted=trusted)


@pytest.mark.parametrize(("threshold", "trusted"), [(0, ALL), (-1, ALL), (6, ALL), (2, None)])
def test_a_threshold_that_nobody_can_mean_is_refused(signed: bytes, threshold: int, trusted: set[bytes] | None) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        verify(signed, trusted=trusted, threshold=threshold)


def test_the_page_holds_with_all_signatures(signed: bytes) -> None:
    data = by(signed, *SITES)
    verdict = checked(page.render(data), threshold=5)
    assert (verdict.exit_code, verdict.claims[-1].id) == (0, "report.page")


def test_a_page_around_fewer_signatures_is_another_page(signed: bytes) -> None:
    """Taking signatures away leaves a report that holds, and a page that says who did not sign."""
    whole = page.render(by(signed, *SITES))
    less = whole.replace(by(signed, *SITES), by(signed, "va"))
    assert less != whole
    assert checked(less, threshold=5).exit_code == 1


def test_a_site_signs_with_the_key_that_it_signed_masked_rounds_with() -> None:
    """Else a coordinator lists keys of its own as those of sites."""
    body = masked.predicate()
    body["cosigners"] = predicate()["cosigners"]
    data = by(report.sign(body, sample.MODEL_SHA256, sample.KEY), *SITES)
    verdict = verify(data, trusted=ALL, threshold=5, transcript=masked.signed_rounds())
    assert "cleveland signed the masked rounds under another key" in next(
        claim.why for claim in verdict.claims if claim.id == "secagg.rounds" and claim.verdict == "fails"
    )


def test_the_keys_to_trust_are_those_that_the_report_lists(signed: bytes) -> None:
    text = report.trusted_keys(by(signed, "va")).decode()
    sites = frozenset(key.public_key for key in KEYS.values())
    trust = parse_trust(text)
    assert (trust.signers, trust.cosigners) == (frozenset({sample.KEY.public_key}), sites)
    assert [line for line in text.splitlines() if line.startswith("#")][2:] == [f"# {site}" for site in SITES]
    verdict = verify(by(signed, "va"), trusted=trust.signers, cosigners=sites, threshold=2)
    assert verdict.authentic


def test_a_cosigner_s_key_makes_no_report(signed: bytes) -> None:
    """A site whose key is handed out to count signatures makes a report of its own, with whatever in it."""
    body = predicate()
    body["signer"] = report.signer_entry(KEYS["va"])
    body["cosigners"] = body["cosigners"][:-1]
    own = forged(body, KEYS["va"])
    sites = {key.public_key for key in KEYS.values()}
    verdict = verify(own, trusted={sample.KEY.public_key}, cosigners=sites, model_sha256=sample.MODEL_SHA256)
    assert (verdict.authentic, verdict.exit_code) == (False, 1)
    assert "trusted, and not as the signer of a run's report" in verdict.claims[0].why
    assert verify(signed, trusted={sample.KEY.public_key}, cosigners=sites).authentic


Edit = Callable[[dict[str, Any]], object]
WRONG: dict[str, Edit] = {
    "out of order": lambda b: b["cosigners"].reverse(),
    "a site twice": lambda b: b["cosigners"].insert(0, copy.deepcopy(b["cosigners"][0])),
    "a site that took no part": lambda b: b["cosigners"][0].update(site="basel"),
    "two sites with one key": lambda b: b["cosigners"][0].update(public_key=b["cosigners"][1]["public_key"]),
    "a site with the signer's key": lambda b: b["cosigners"][0].update(public_key=b["signer"]["public_key"]),
    "an auditor without a report": lambda b: b["signer"].update(role="auditor"),
}


@pytest.mark.parametrize("edit", WRONG.values(), ids=WRONG.keys())
def test_a_list_of_cosigners_that_cannot_be_is_not_signed_and_is_found(edit: Edit) -> None:
    body = predicate()
    edit(body)
    with pytest.raises(ConfigError, match="contradicts itself"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
    verdict = checked(forged(body, sample.KEY))
    assert [claim.id for claim in verdict.claims if claim.verdict == "fails"] == ["report.consistency"]
