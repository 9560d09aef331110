"""The verifier on honest reports, on lies that are properly signed, and on files that somebody changed."""

import base64
import copy
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from privacy.audit import canonical, pricing, schemas, statement
from privacy.audit import envelope as dsse
from privacy.audit.answers import CheckedClaim
from privacy.audit.html import page
from privacy.audit.verify import Verdict, exit_code, failure, verify
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation, Sampling, SamplingType
from privacy.errors import ConfigError, FederationError, LocalProtocolError, VerificationError
from tests.privacy.audit import ledgers, promises, sample

TRUST = {sample.KEY.public_key}
LEDGERS = sample.ledgers_file()


@pytest.fixture(scope="module")
def envelope() -> bytes:
    return sample.signed()


@pytest.fixture(scope="module")
def drawn(envelope: bytes) -> bytes:
    return page.render(envelope)


def full(data: bytes, beside: bytes | None = LEDGERS) -> Verdict:
    return verify(data, trusted=TRUST, model_sha256=sample.MODEL_SHA256, ledgers=beside)


def code(data: bytes) -> int:
    try:
        return full(data).exit_code
    except FederationError as error:
        return exit_code(error)


def failed(verdict: Verdict) -> dict[str, str]:
    return {claim.id: claim.why for claim in verdict.claims if claim.verdict == "fails"}


# Honest reports


def test_everything_holds_with_trust_and_model(envelope: bytes) -> None:
    verdict = full(envelope)
    assert [(claim.id, claim.kind, claim.verdict) for claim in verdict.claims] == [
        ("report.signature", "proved", "holds"),
        ("report.consistency", "proved", "holds"),
        ("model.digest", "attested", "holds"),
        ("privacy.epsilon", "asserted", "holds"),
        ("ledger.chain", "proved", "holds"),
        ("conformance.release", "measured", "holds"),
    ]
    assert (verdict.authentic, verdict.ok, verdict.exit_code) == (True, True, 0)
    assert verdict.headline.startswith("AUTHENTIC: ")


def test_the_page_holds_too(drawn: bytes) -> None:
    verdict = full(drawn)
    assert verdict.exit_code == 0
    assert verdict.claims[-1].id == "report.page"


def test_without_trust_the_first_line_says_so(envelope: bytes) -> None:
    verdict = verify(envelope, model_sha256=sample.MODEL_SHA256, ledgers=LEDGERS)
    assert verdict.lines()[0].startswith("AUTHENTICITY NOT CHECKED")
    assert (verdict.authentic, verdict.ok, verdict.exit_code) == (False, True, 3)


def test_self_is_called_integrity_and_not_identity(envelope: bytes) -> None:
    verdict = verify(envelope, self_signed=True, model_sha256=sample.MODEL_SHA256, ledgers=LEDGERS)
    assert verdict.authentic
    assert verdict.exit_code == 0
    assert "does not show whose key" in verdict.headline


def test_without_the_model_its_claim_is_unchecked(envelope: bytes) -> None:
    verdict = verify(envelope, trusted=TRUST)
    assert verdict.claims[2].verdict == "unchecked"
    assert sample.MODEL_SHA256 in verdict.claims[2].why
    assert (verdict.authentic, verdict.ok, verdict.exit_code) == (True, False, 3)


def test_another_model_file_fails(envelope: bytes) -> None:
    verdict = verify(envelope, trusted=TRUST, model_sha256="0" * 64)
    assert set(failed(verdict)) == {"model.digest"}
    assert verdict.exit_code == 1


def test_a_run_without_privacy_makes_no_epsilon_claim() -> None:
    verdict = full(sample.signed(sample.plain_predicate()))
    assert verdict.exit_code == 0
    assert "privacy.epsilon" not in {claim.id for claim in verdict.claims}


def test_an_epsilon_is_never_named_without_its_terms(envelope: bytes) -> None:
    why = full(envelope).claims[3].why
    for term in ("0.9646", "cleveland", "PLD", "unit record", "replace_special", "delta 0.001", "target 1", "4 sites"):
        assert term in why


def test_trust_and_self_exclude_each_other(envelope: bytes) -> None:
    with pytest.raises(ConfigError):
        verify(envelope, trusted=TRUST, self_signed=True)


def test_an_empty_trust_set_trusts_nobody(envelope: bytes) -> None:
    verdict = verify(envelope, trusted=set())
    assert not verdict.authentic
    assert verdict.exit_code == 1


def test_what_ends_without_a_verdict_is_a_json_object_as_well(envelope: bytes) -> None:
    with pytest.raises(ConfigError) as cut:
        verify(envelope[:-9])
    found = failure(cut.value)
    schemas.check("verify-v1", found)
    assert (found["ok"], found["authentic"], found["claims"]) == (False, False, [])
    assert found["error"] == str(cut.value)


@pytest.mark.parametrize("trusted", [None, TRUST, set()], ids=["no trust", "trust", "empty trust"])
def test_the_json_object_fits_its_schema(envelope: bytes, trusted: set[bytes] | None) -> None:
    verdict = verify(envelope, trusted=trusted)
    schemas.check("verify-v1", verdict.to_json())
    assert len(verdict.lines()) == 1 + len(verdict.claims)
    assert all("\n" not in line for line in verdict.lines())


def test_progress_names_what_takes_long(envelope: bytes) -> None:
    lines: list[str] = []
    verify(envelope, progress=lines.append)
    assert lines == [f"pricing {site}" for site in sample.N_TRAIN]


@pytest.mark.parametrize(
    ("authentic", "verdicts", "expected"),
    [
        (True, ["holds", "holds"], 0),
        (False, ["holds"], 3),
        (True, ["holds", "unchecked"], 3),
        (True, ["unchecked", "fails"], 1),
        (False, ["fails"], 1),
    ],
)
def test_exit_codes_of_verdicts(authentic: bool, verdicts: list[Any], expected: int) -> None:
    claims = tuple(CheckedClaim("x", "proved", verdict, "y") for verdict in verdicts)
    assert exit_code(Verdict(authentic, "headline", claims)) == expected


def test_exit_codes_of_errors() -> None:
    assert exit_code(VerificationError("x")) == 1
    assert exit_code(ConfigError("x")) == 2
    assert exit_code(LocalProtocolError("x")) == 2


# Another signer


def test_a_forger_with_another_key_is_not_believed() -> None:
    forgery = sample.forged(sample.predicate(), sample.OTHER_KEY)
    assert not verify(forgery).authentic
    verdict = verify(forgery, trusted=TRUST, model_sha256=sample.MODEL_SHA256)
    assert set(failed(verdict)) == {"report.signature"}
    assert (verdict.authentic, verdict.exit_code) == (False, 1)
    assert verdict.headline.startswith("NOT AUTHENTIC")


def test_a_signature_of_another_key_does_not_verify() -> None:
    payload = statement.encode(sample.predicate(), sample.MODEL_SHA256)
    with pytest.raises(VerificationError):
        verify(dsse.sign(payload, sample.OTHER_KEY))


def test_a_borrowed_key_id_does_not_verify() -> None:
    payload = statement.encode(sample.predicate(), sample.MODEL_SHA256)
    body = json.loads(dsse.sign(payload, sample.OTHER_KEY))
    body["signatures"][0]["keyid"] = sample.KEY.keyid
    with pytest.raises(VerificationError):
        verify(canonical.dumps(body) + b"\n")


# Signed lies about epsilon; contradictions that need no pricing are in test_report.py

Edit = Callable[[dict[str, Any]], object]
LIES: dict[str, Edit] = {
    "epsilon lowered": lambda c: c["sites"][0].update(epsilon="0.9640"),
    "epsilon lowered by its last digit, rounded down": lambda c: c["sites"][0].update(epsilon="0.9645"),
    "epsilon raised": lambda c: c["sites"][0].update(epsilon="0.9657"),
    "replace-one lowered": lambda c: c["sites"][1].update(epsilon_replace_one="1.9000"),
    "RDP lowered": lambda c: c["sites"][2].update(epsilon_rdp="0.9300"),
    "planned lowered": lambda c: c["sites"][3].update(planned_epsilon="0.9800"),
    "less noise than claimed": lambda c: c["sites"][0]["events"][0].update(noise_multiplier="9"),
    "sampling that did not happen": lambda c: c["sites"][0]["events"][0].update(
        sampling={"type": "poisson", "rate": "0.5"}
    ),
    "another delta": lambda c: c.update(delta="0.00001"),
    "a larger budget": lambda c: c.update(budget_executions=34),
    "full batches at half rate": lambda c: c["sites"][0]["events"][0]["sampling"].update(rate="0.5"),
    "a hidden second mechanism": lambda c: c["sites"][0]["events"].append(
        {**c["sites"][0]["events"][0], "noise_multiplier": "20", "count": 1}
    ),
}


@pytest.mark.parametrize("edit", LIES.values(), ids=LIES.keys())
def test_a_signed_lie_about_epsilon_fails(edit: Edit) -> None:
    body = sample.predicate()
    edit(body["claims"][1])
    verdict = full(sample.forged(sample.told(body)))
    assert verdict.authentic
    assert failed(verdict).keys() - ledgers.EVIDENCE == {"privacy.epsilon"}
    assert verdict.exit_code == 1


def test_two_mechanisms_are_priced_together() -> None:
    events = [GaussianEvent(sample.NOISE, FULL_BATCH, 10), GaussianEvent(sample.NOISE * 2, FULL_BATCH, 6)]
    body = sample.predicate()
    body["claims"][1]["sites"][0].update(
        events=[event.to_json() for event in events],
        epsilon=sample.price(events, Relation.REPLACE_SPECIAL),
        epsilon_replace_one=sample.price(events, Relation.REPLACE_ONE),
        epsilon_rdp=sample.price(events, Relation.REPLACE_SPECIAL, "RDP"),
    )
    spent = ledgers.of(body)
    debits = [one for one in spent["cleveland"] if one["kind"] == "reserved"]
    for debit in debits[10:]:
        debit["event"]["noise_multiplier"] = str(sample.NOISE * 2)
    body, data = ledgers.with_ledgers(body, spent)
    assert full(sample.signed(body), data).exit_code == 0


def test_poisson_sampling_is_priced() -> None:
    half = Sampling(SamplingType.POISSON, Decimal("0.5"))
    events, whole = ([GaussianEvent(sample.NOISE, half, count)] for count in (16, 17))
    body = sample.predicate()
    for site in body["claims"][1]["sites"]:
        site.update(
            events=[event.to_json() for event in events],
            epsilon=sample.price(events, Relation.REPLACE_SPECIAL),
            epsilon_replace_one=sample.price(events, Relation.REPLACE_ONE),
            epsilon_rdp=sample.price(events, Relation.REPLACE_SPECIAL, "RDP"),
            planned_epsilon=sample.price(whole, Relation.REPLACE_SPECIAL),
        )
    body["rounds"][3] = {**body["rounds"][4], "round": 4}  # nobody was late
    body, data = ledgers.with_evidence(body)
    assert full(sample.signed(body), data).exit_code == 0


def test_a_site_that_never_answered_spent_nothing() -> None:
    body = sample.predicate()
    for entry in body["rounds"]:
        entry["answered"] = [site for site in entry["answered"] if site != "va"]
        entry["missing"].append({"site": "va", "reason": "no answer within 10 s"})
    zero = dict.fromkeys(("epsilon", "epsilon_replace_one", "epsilon_rdp"), "0.0000")
    body["claims"][1]["sites"][3].update(events=[], **zero)
    body, data = ledgers.with_evidence(body)
    assert full(sample.signed(body), data).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": "0.000001"},
        {"noise_multiplier": "999999999999999999"},
        {"sampling": {"type": "poisson", "rate": "0.000000000000000001"}, "noise_multiplier": "0.1"},
    ],
    ids=["hardly any noise", "absurd noise", "hardly any noise, rarely"],
)
def test_what_cannot_be_priced_is_unchecked_and_never_holds(change: dict[str, Any]) -> None:
    body = sample.predicate()
    for site in body["claims"][1]["sites"]:
        site["events"][0].update(copy.deepcopy(change))
    body, _data = ledgers.with_evidence(body)
    verdict = full(sample.forged(body), None)
    assert verdict.claims[3].verdict == "unchecked"
    assert verdict.exit_code == 3


def test_a_budget_that_protects_nobody_does_not_hold() -> None:
    body = sample.predicate()
    body["claims"][1]["budget_executions"] = 2**53 - 1
    verdict = full(sample.forged(body))
    assert verdict.claims[3].verdict == "unchecked"
    body["claims"][1]["sites"][0]["epsilon"] = "0.5000"
    assert set(failed(full(sample.forged(body)))) == {"privacy.epsilon"}


def test_another_model_under_an_honest_signature_fails() -> None:
    body = sample.predicate()
    body["claims"][0]["sha256"] = "0" * 64
    assert set(failed(full(sample.forged(body)))) == {"model.digest"}
    assert set(failed(full(sample.forged(body, model_sha256="0" * 64)))) == {"model.digest"}


# Changed files


@pytest.fixture(scope="module", params=["sample", "promises"])
def any_envelope(request: pytest.FixtureRequest) -> bytes:
    return sample.signed() if request.param == "sample" else promises.signed()


def test_every_changed_byte_outside_the_payload_is_found(envelope: bytes) -> None:
    start = envelope.index(b'"payload":"') + len(b'"payload":"')
    end = envelope.index(b'"', start)
    for position in [*range(start), *range(end, len(envelope))]:
        changed = bytearray(envelope)
        changed[position] ^= 1
        assert code(bytes(changed)) in {1, 2}, position


def test_changed_bytes_of_the_payload_are_found(any_envelope: bytes) -> None:
    start = any_envelope.index(b'"payload":"') + len(b'"payload":"')
    for position in range(start, any_envelope.index(b'"', start), max(29, len(any_envelope) // 150)):
        for change in (1, 0x80):
            changed = bytearray(any_envelope)
            changed[position] ^= change
            assert code(bytes(changed)) in {1, 2}, (position, change)


@pytest.mark.parametrize("which", ["envelope", "page"])
def test_a_file_cut_short_anywhere_is_unusable(envelope: bytes, drawn: bytes, which: str) -> None:
    data = envelope if which == "envelope" else drawn
    for length in [*range(0, len(data), 997), len(data) - 1]:
        assert code(data[:length]) in {1, 2}, length


def test_added_bytes_are_found(envelope: bytes, drawn: bytes) -> None:
    for data in (envelope, drawn):
        for changed in (data + b"\n", b" " + data, data + b"x", data + data):
            assert code(changed) in {1, 2}


def test_changed_bytes_of_the_page_are_found(drawn: bytes) -> None:
    for position in range(0, len(drawn), 499):
        changed = bytearray(drawn)
        changed[position] ^= 1
        assert code(bytes(changed)) in {1, 2}, position


def leaves(value: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, (*here, key))
    else:
        yield here


def changed_leaf(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + ("1" if value[-1] != "1" else "2")
        case _:
            return "x"


def test_every_changed_field_without_a_new_signature_is_found(any_envelope: bytes) -> None:
    sealed = json.loads(any_envelope)
    original = json.loads(base64.b64decode(sealed["payload"]))
    every = [path for path in leaves(original) if path[:2] != ("predicate", "rounds") or path[2] in {0, 3}]
    if len(original["predicate"]["claims"]) > 4:  # the rest is as in the other report
        promised = [path for path in every if path[:2] == ("predicate", "claims") and path[2] in {1, 2, 3}]
        every = [path for path in promised if path[4:5] in {(), (0,)}]
        names = {name for path in every for name in path}
        assert {"lifetime", "hypothetical", "order", "variance", "arithmetic"} <= names
    for path in every:
        body = copy.deepcopy(original)
        target = body
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = changed_leaf(target[path[-1]])
        sealed["payload"] = base64.b64encode(canonical.dumps(body)).decode()
        assert code(canonical.dumps(sealed) + b"\n") in {1, 2}, path


# Pages


def test_a_page_that_shows_something_else_fails(drawn: bytes) -> None:
    verdict = full(drawn.replace(b"73 %", b"51 %"))
    assert set(failed(verdict)) == {"report.page"}


@pytest.mark.parametrize("reader", [{"trusted": TRUST}, {"self_signed": True}, {}], ids=["trust", "self", "nobody"])
def test_the_first_line_about_a_page_that_shows_something_else_says_so(drawn: bytes, reader: dict[str, Any]) -> None:
    """Else whoever reads one line takes a forged page for the signer's."""
    for edited, authentic in ((drawn, "self_signed" in reader or "trusted" in reader), (drawn + b" ", False)):
        verdict = verify(edited, model_sha256=sample.MODEL_SHA256, ledgers=LEDGERS, **reader)
        assert verdict.authentic == verdict.to_json()["authentic"] == authentic
        assert verdict.headline.startswith("NOT AUTHENTIC: the page shows something else") == (edited != drawn)


def test_a_page_that_was_not_compared_is_told_in_the_first_line() -> None:
    """Because another version drew it, or because what it would draw contradicts itself: that is not drawn again."""
    older, wrong = sample.predicate(), sample.predicate()
    older["tool"]["version"] = "0.0.1"
    wrong["rounds"][0]["round"] = 2**53 - 1
    about = {"0.0.1": sample.forged(older), "contradicts itself": sample.forged(wrong)}
    for why, data in about.items():
        verdict = full(b"<p>" + page.ENVELOPE_OPEN + data + page.ENVELOPE_CLOSE)
        assert verdict.headline.endswith("; the page around it was NOT compared")
        assert (verdict.claims[-1].id, verdict.claims[-1].verdict) == ("report.page", "unchecked")
        assert why in verdict.claims[-1].why


def test_the_envelope_of_another_report_does_not_pass_for_this_page(drawn: bytes) -> None:
    other = sample.signed(sample.plain_predicate())
    start = drawn.index(page.ENVELOPE_OPEN) + len(page.ENVELOPE_OPEN)
    end = drawn.index(page.ENVELOPE_CLOSE, start)
    assert set(failed(full(drawn[:start] + other + drawn[end:]))) == {"report.page"}


def test_the_page_of_another_version_is_unchecked() -> None:
    body = sample.predicate()
    body["tool"]["version"] = "0.0.9"
    verdict = full(page.render(sample.signed(body)))
    assert verdict.claims[-1].verdict == "unchecked"
    assert verdict.exit_code == 3


@pytest.mark.parametrize(
    "data",
    [
        b"<html></html>",
        page.ENVELOPE_OPEN + b"{}" + page.ENVELOPE_CLOSE,
        b"<p>" + page.ENVELOPE_OPEN + page.ENVELOPE_CLOSE,
        b"<p>" + page.ENVELOPE_OPEN + b"{}",
        b"<p>" + 2 * (page.ENVELOPE_OPEN + sample.signed() + page.ENVELOPE_CLOSE),
    ],
    ids=["no envelope", "nothing but an envelope", "empty envelope", "unclosed", "two envelopes"],
)
def test_a_page_without_exactly_one_envelope_is_unusable(data: bytes) -> None:
    with pytest.raises(ConfigError):
        verify(data)


def test_rdp_below_pld_means_that_an_accountant_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    body = sample.predicate()
    claim = body["claims"][1]
    for site in claim["sites"]:
        site.update(epsilon="0.9000", epsilon_replace_one="0.9000", planned_epsilon="0.9000", epsilon_rdp="0.8000")
    data = sample.forged(body)
    prices = {"PLD": 0.9, "RDP": 0.8}
    monkeypatch.setattr(pricing, "epsilon", lambda _events, _delta, _relation, accountant: prices[accountant])
    assert "one of the two is wrong" in failed(full(data))["privacy.epsilon"]
    prices["RDP"] = 0.9
    for site in claim["sites"]:
        site["epsilon_rdp"] = "0.9000"
    assert failed(full(sample.forged(body))) == {}
