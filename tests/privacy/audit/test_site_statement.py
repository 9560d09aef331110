"""A site's statement: one spelling, one signer, and nothing in it that the site does not say."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from privacy.audit import canonical, envelope
from privacy.audit.egress import Sent
from privacy.audit.site_statement import PAYLOAD_TYPE, Refusal, SiteStatement, opened, read_all
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey

KEYS = {name: SigningKey(name.encode().ljust(32, b".")) for name in ("alba", "brno")}
PUBLIC = {name: key.public_key for name, key in KEYS.items()}
TRUTH = SiteStatement(
    federation="north",
    site="alba",
    run="run-1",
    charter="0" * 64,
    application="1" * 64,
    study="2" * 64,
    job="3" * 64,
    conformance="4" * 64,
    allowed=3,
    refusals=(Refusal("strategy", "fedsgd", 2),),
    egress=(Sent.of("query.hello", "0", b"hello"),),
    debits=({"claim": "record", "round": 1, "attempt": 1, "event": {"mechanism": "gaussian"}},),
    log=b"a note\n",
    witnessed=b"another\n",
)
SIGNED = TRUTH.sign(KEYS["alba"])


def test_it_is_read_as_it_was_written() -> None:
    assert opened(SIGNED, PUBLIC) == TRUTH
    assert read_all(SIGNED + replace(TRUTH, site="brno").sign(KEYS["brno"]), PUBLIC) == {
        "alba": TRUTH,
        "brno": replace(TRUTH, site="brno"),
    }
    assert read_all(b"", PUBLIC) == {}


def test_every_changed_byte_is_found() -> None:
    for place in range(0, len(SIGNED), 7):
        changed = SIGNED[:place] + bytes([SIGNED[place] ^ 1]) + SIGNED[place + 1 :]
        with pytest.raises((ConfigError, VerificationError)):
            opened(changed, PUBLIC)


def test_only_the_site_itself_speaks_for_it() -> None:
    with pytest.raises(VerificationError, match="not its own"):
        opened(TRUTH.sign(KEYS["brno"]), PUBLIC)
    with pytest.raises(VerificationError, match="no site of the charter"):
        opened(replace(TRUTH, site="cork").sign(KEYS["alba"]), PUBLIC)
    borrowed = json.loads(TRUTH.sign(KEYS["brno"]))
    borrowed["signatures"][0]["keyid"] = KEYS["alba"].keyid
    with pytest.raises(VerificationError):
        opened(canonical.dumps(borrowed) + b"\n", PUBLIC)


def test_a_signature_over_something_else_is_no_statement() -> None:
    payload = envelope.decode(SIGNED, PAYLOAD_TYPE).payload
    report = envelope.sign(payload, KEYS["alba"])
    with pytest.raises(ConfigError, match="something other"):
        opened(report, PUBLIC)
    relabelled = json.loads(report)
    relabelled["payloadType"] = PAYLOAD_TYPE
    with pytest.raises(VerificationError):
        opened(canonical.dumps(relabelled) + b"\n", PUBLIC)


def body(**changes: Any) -> bytes:
    value = json.loads(envelope.decode(SIGNED, PAYLOAD_TYPE).payload)
    return envelope.sign(canonical.dumps({**value, **changes}), KEYS["alba"], PAYLOAD_TYPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"schema": "collegium/site-statement/v2"},
        {"charter": "0" * 63},
        {"decisions": {"allowed": -1, "refused": 2}},
        {"egress": [{"kind": "query.hello", "group": "0", "bytes": 5}]},
        {"log": "not base64!"},
        {"debits": [{"claim": "record"}]},
    ],
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        opened(body(**changes), PUBLIC)


def test_refusals_are_counted_as_they_are_listed() -> None:
    with pytest.raises(VerificationError, match="other refusals than it counts"):
        opened(body(decisions={"allowed": 3, "refused": 1}), PUBLIC)


def test_statements_stand_in_order_and_once() -> None:
    other = replace(TRUTH, site="brno").sign(KEYS["brno"])
    for data in (SIGNED + SIGNED, other + SIGNED, SIGNED + other[:-1]):
        with pytest.raises(ConfigError):
            read_all(data, PUBLIC)


def test_what_strangers_asked_for_always_fits_a_statement() -> None:
    asked = [("clause", f"strategy {n}\n\u202e" * 40) for n in range(1200)] + [("", "x"), ("\x00", "x")]
    refusals = Refusal.counted(asked)
    assert sum(one.times for one in refusals) == len(asked)
    again = opened(replace(TRUTH, refusals=refusals).sign(KEYS["alba"]), PUBLIC)
    assert again.refusals == refusals
    assert base64.b64encode(again.log) == base64.b64encode(TRUTH.log)
