"""Who must sign, and that nobody else can add a site."""

import json

import pytest
from securesystemslib.dsse import Envelope

# Public; the package only forgets to say so to type checkers.
from securesystemslib.signer import Key  # type: ignore[attr-defined]

from privacy.audit import canonical
from privacy.charter.document import from_body
from privacy.charter.signatures import MAX_FILE_BYTES, SignedCharter, decode, missing, signers, verify_chain
from privacy.errors import ConfigError, VerificationError
from tests.privacy.charter.example import CHARTER, PENS, SITES, body, following, officer, server, signed, site

FIRST = signed(CHARTER, "alba", "brno", "cork")
GROWN_BODY = {"sites": [*body()["sites"], site("evil")], "officers": [*body()["officers"], officer("evil")]}
GROWN = following(CHARTER, **GROWN_BODY)


def test_k_of_m() -> None:
    assert verify_chain([FIRST]) == CHARTER
    assert missing(signed(CHARTER, "alba", "brno")) == ["1 more of its own officers must sign (2 of 3 have)"]
    with pytest.raises(VerificationError, match="1 more of its own"):
        verify_chain([signed(CHARTER, "alba", "brno")])
    with pytest.raises(VerificationError, match="no charter"):
        verify_chain([])


def test_a_file_is_read_as_it_was_written() -> None:
    again = decode(FIRST.encode())
    assert again.encode() == FIRST.encode()
    assert [officer.site for officer in signers(again)] == ["alba", "brno", "cork"]
    with pytest.raises(ConfigError, match="newline"):
        decode(FIRST.encode()[:-1])
    with pytest.raises(ConfigError, match="too large"):
        decode(b" " * MAX_FILE_BYTES + b"\n")


def test_no_byte_of_a_file_can_change_unnoticed() -> None:
    data = FIRST.encode()
    for place in range(0, len(data), 7):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((ConfigError, VerificationError)):
            verify_chain([decode(changed)])


def test_another_implementation_agrees() -> None:
    envelope = Envelope.from_dict(json.loads(FIRST.encode()))
    keys = [
        Key.from_dict(
            pen.keyid, {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": pen.public_key.hex()}}
        )
        for pen in (PENS["alba"], PENS["brno"], PENS["cork"])
    ]
    assert len(envelope.verify(keys, 3)) == 3


def test_a_foreign_or_forged_signature_is_refused_beside_enough_good_ones() -> None:
    with pytest.raises(VerificationError, match="no officer's"):
        missing(FIRST.signed_by(PENS["evil"]))
    forged = SignedCharter(CHARTER, {**FIRST.signatures, PENS["dole"].keyid: bytes(64)})
    with pytest.raises(VerificationError, match="officer of dole does not hold"):
        missing(forged)


def test_a_signature_under_another_charter_does_not_count() -> None:
    other = from_body(body(application="cd" * 32))
    with pytest.raises(VerificationError, match="does not hold"):
        missing(SignedCharter(other, FIRST.signatures))


def test_a_site_is_added_by_the_officers_there_were() -> None:
    assert verify_chain([FIRST, signed(GROWN, "alba", "brno", "cork", "evil")]) == GROWN


def test_nobody_else_adds_a_site() -> None:
    two = signed(GROWN, "alba", "brno", "evil")  # three of its own five, but two of those there were
    assert missing(two, CHARTER) == ["1 more of the officers of version 1 must sign (2 of 3 have)"]
    with pytest.raises(VerificationError, match="version 1 must sign"):
        verify_chain([FIRST, two])


def test_a_version_of_ones_own_making_is_refused() -> None:
    own = {"officers": [officer(name, f"{name} evil") for name in SITES]}
    seized = SignedCharter(following(CHARTER, **own), {})
    assert "officers of version 1" in "".join(missing(seized, CHARTER))


def test_who_is_new_signs_too() -> None:
    assert missing(signed(GROWN, *SITES), CHARTER) == ["officer of evil is new and has not signed"]


def test_the_rule_of_the_new_version_must_be_met_as_well() -> None:
    stricter = following(CHARTER, rule={"signatures": 4})
    assert missing(signed(stricter, *SITES[:3]), CHARTER) == ["1 more of its own officers must sign (3 of 4 have)"]


def test_officers_who_leave_may_sign_once_more() -> None:
    left = following(
        CHARTER,
        sites=body()["sites"][1:],
        officers=body()["officers"][1:],
        floors={"cohort": 3, "survivors": 3, "threshold": 2, "cover": 3},
    )
    assert missing(signed(left, *SITES), CHARTER) == []
    assert missing(signed(left, "alba", "brno", "cork"), CHARTER) == [
        "1 more of its own officers must sign (2 of 3 have)"
    ]
    with pytest.raises(VerificationError, match="no officer's"):
        missing(signed(left, *SITES))


def test_versions_follow_one_another() -> None:
    second = signed(following(CHARTER), *SITES)
    third = signed(following(second.charter), *SITES)
    assert verify_chain([FIRST, second, third]) == third.charter
    with pytest.raises(VerificationError, match="version 3 does not follow version 1"):
        verify_chain([FIRST, third])
    with pytest.raises(VerificationError, match="version 1 was not given"):
        verify_chain([second])
    fork = signed(from_body(body(version=2, previous="00" * 32)), *SITES)
    with pytest.raises(VerificationError, match="another version 1"):
        verify_chain([FIRST, fork])
    moved = signed(
        from_body(
            body(
                version=2,
                previous=CHARTER.digest,
                federation="south",
                server=server(uri="spiffe://south/server/hub"),
                sites=[{**entry, "uri": None} for entry in body()["sites"]],
            )
        ),
        *SITES,
    )
    with pytest.raises(VerificationError, match="does not continue"):
        verify_chain([FIRST, moved])


def test_what_was_revoked_stays_revoked() -> None:
    more = signed(following(CHARTER, revoked=["1f", "20", "a0"]), *SITES)
    assert verify_chain([FIRST, more]) == more.charter
    for fewer in ([], ["a0"], ["20", "a0"]):
        with pytest.raises(VerificationError, match="count again"):
            verify_chain([FIRST, signed(following(CHARTER, revoked=fewer), *SITES)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"payloadType": "application/vnd.in-toto+json"}, "other than a charter"),
        ({"signatures": {}}, "not a list"),
        ({"signatures": [{"keyid": 1, "sig": ""}]}, "not text"),
        ({"signatures": [{"keyid": "b", "sig": ""}, {"keyid": "a", "sig": ""}]}, "order of key ids"),
        ({"signatures": [{"keyid": "a", "sig": ""}, {"keyid": "a", "sig": ""}]}, "order of key ids"),
        ({"signatures": [{"keyid": "a"}]}, "not a charter file"),
        ({"payload": "e30="}, "charter-v1"),
        ({"surprise": 1}, "not a charter file"),
    ],
)
def test_other_files_are_refused(change: dict[str, object], said: str) -> None:
    changed = {**json.loads(FIRST.encode()), **change}
    with pytest.raises(ConfigError, match=said):
        decode(canonical.dumps(changed) + b"\n")
