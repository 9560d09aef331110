"""A signature fits one opening and one end's certificate or answer, and is made as documented."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from clients.channel.credentials import sign_asked, sign_opened, verify_asked, verify_opened
from privacy.charter.document import Charter
from privacy.enrolment.certificates import read_certificate
from privacy.errors import VerificationError
from tests.clients.channel.ends import identity, issued
from tests.federation import Federation

ASKED = b"what the dialler asks"
FIRST, TERMS = b"the dialler's first frame", b"what the listener grants"


def test_a_diallers_signature_is_over_its_certificate_and_all_that_it_asks(federation: Federation) -> None:
    alba, charter = identity(federation, "alba"), federation.charter
    leaf = read_certificate(alba.credentials().certificate)
    signature = sign_asked(alba, leaf, ASKED)
    parts = [b"north", hashlib.sha256(leaf.public_bytes(Encoding.DER)).digest(), ASKED]
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    key = Ed25519PublicKey.from_public_bytes(charter.sites["alba"].identity)
    key.verify(signature, b"collegium/channel/v1/asked\0" + hashed)


def test_a_diallers_signature_fits_nothing_else(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Charter, "__post_init__", lambda _: None)  # a site's names follow the federation's
    alba, charter = identity(federation, "alba"), federation.charter
    site, leaf = charter.sites["alba"], read_certificate(alba.credentials().certificate)
    others = issued(federation, "alba"), identity(federation, "cork").credentials()
    signature = sign_asked(alba, leaf, ASKED)
    verify_asked(charter, site, leaf, signature, ASKED)
    for where, who, shown, claimed, asked in (
        (other_name(charter), site, leaf, signature, ASKED),
        (charter, charter.sites["cork"], leaf, signature, ASKED),
        *((charter, site, read_certificate(other.certificate), signature, ASKED) for other in others),
        (charter, site, leaf, b"", ASKED),
        (charter, site, leaf, sign_opened(alba, charter, "brno", ASKED, b""), ASKED),
        (charter, site, leaf, signature, ASKED + b"x"),
    ):
        with pytest.raises(VerificationError, match="does not hold the key"):
            verify_asked(where, who, shown, claimed, asked)


def test_a_listeners_signature_is_over_every_part_with_its_length(federation: Federation) -> None:
    charter = federation.charter
    signature = sign_opened(identity(federation, "brno"), charter, "alba", FIRST, TERMS)
    parts = [b"north", bytes.fromhex(charter.digest), b"brno", b"alba", FIRST, TERMS]
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    key = Ed25519PublicKey.from_public_bytes(charter.sites["brno"].identity)
    key.verify(signature, b"collegium/channel/v1/opened\0" + hashed)


def other_name(charter: Charter) -> Charter:
    return replace(charter, federation="south")


def other_version(charter: Charter) -> Charter:
    return replace(charter, body={**charter.body, "application": "00" * 32})


@pytest.mark.parametrize("changed", [other_name, other_version])
def test_it_fits_no_other_charter(
    federation: Federation, changed: Callable[[Charter], Charter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Charter, "__post_init__", lambda _: None)  # a site's names follow the federation's
    brno, alba, charter = identity(federation, "brno"), identity(federation, "alba"), federation.charter
    signature = sign_opened(brno, charter, "alba", FIRST, TERMS)
    verify_opened(alba, charter, charter.sites["brno"], signature, FIRST, TERMS)
    with pytest.raises(VerificationError):
        verify_opened(alba, changed(charter), charter.sites["brno"], signature, FIRST, TERMS)


def test_it_fits_no_other_sites_opening_or_answer(federation: Federation) -> None:
    brno, alba, charter = identity(federation, "brno"), identity(federation, "alba"), federation.charter
    signature, site = sign_opened(brno, charter, "alba", FIRST, TERMS), charter.sites["brno"]
    verify_opened(alba, charter, site, signature, FIRST, TERMS)
    same_key = replace(charter.sites["cork"], identity=site.identity)
    for own, listener, first, terms in (
        (identity(federation, "cork"), site, FIRST, TERMS),
        (alba, charter.sites["cork"], FIRST, TERMS),
        (alba, same_key, FIRST, TERMS),
        (alba, site, FIRST + b"x", TERMS),
        (alba, site, FIRST, TERMS + b"x"),
        (alba, site, FIRST + TERMS[:1], TERMS[1:]),
    ):
        with pytest.raises(VerificationError, match="does not hold the identity key"):
            verify_opened(own, charter, listener, signature, first, terms)
    with pytest.raises(VerificationError):
        verify_opened(alba, charter, site, b"", FIRST, TERMS)
