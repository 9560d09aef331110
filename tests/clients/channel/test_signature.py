"""A listener's signature fits one opening, one answer, one pair of sites, one charter; and is made as documented."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clients.channel.credentials import sign_opened, verify_opened
from privacy.charter.document import Charter
from privacy.errors import VerificationError
from tests.clients.channel.ends import identity
from tests.federation import Federation

FIRST, TERMS = b"the dialler's first frame", b"what the listener grants"


def test_the_signature_is_over_every_part_with_its_length(federation: Federation) -> None:
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
