"""Both suites under one contract; the real one against published vectors; and what X25519 keys are refused."""

import hashlib
import hmac
import pickle

import pytest

from privacy.errors import RemoteProtocolError
from privacy.keys.agreement import Secret, agree, check_public, public_key
from privacy.keys.signing import SigningKey
from privacy.secagg.suite import RealSuite
from tests.privacy.secagg.ideal_suite import UnsafeIdealSuite

A, B = Secret(b"a" * 32), Secret(b"b" * 32)
KEY = SigningKey(b"k" * 32)
SUITES = [RealSuite(), UnsafeIdealSuite()]


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: type(s).__name__)
class TestContract:
    def test_both_ends_agree(self, suite: RealSuite) -> None:
        one = suite.agree(A, suite.public(B)).reveal()
        assert one == suite.agree(B, suite.public(A)).reveal()
        assert len(one) == 32
        assert one != suite.agree(A, suite.public(A)).reveal()
        check_public(suite.public(A))

    def test_signatures(self, suite: RealSuite) -> None:
        signature = suite.sign(KEY, b"message")
        assert len(signature) == 64
        suite.verify(KEY.public_key, signature, b"message")
        for public, sig, message in (
            (SigningKey(b"x" * 32).public_key, signature, b"message"),
            (KEY.public_key, bytes([signature[0] ^ 1]) + signature[1:], b"message"),
            (KEY.public_key, signature, b"massage"),
        ):
            with pytest.raises(RemoteProtocolError):
                suite.verify(public, sig, message)

    def test_sealing(self, suite: RealSuite) -> None:
        sealed = suite.seal(b"k" * 32, b"p" * 66, b"ad")
        assert len(sealed) == 82
        assert suite.open(b"k" * 32, sealed, b"ad") == b"p" * 66
        for key, ciphertext, ad in (
            (b"x" * 32, sealed, b"ad"),
            (b"k" * 32, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"ad"),
            (b"k" * 32, sealed, b"da"),
            (b"k" * 32, b"", b"ad"),
        ):
            with pytest.raises(RemoteProtocolError):
                suite.open(key, ciphertext, ad)

    def test_kdf_separates_label_and_info(self, suite: RealSuite) -> None:
        keys = {suite.kdf(b"i" * 32, label, info) for label in ("a", "b") for info in (b"1", b"2")}
        assert len(keys) == 4
        assert {len(key) for key in keys} == {32}

    def test_twins_are_refused(self, suite: RealSuite) -> None:
        public = suite.public(B)
        twin = public[:31] + bytes([public[31] | 0x80])
        with pytest.raises(RemoteProtocolError):
            suite.agree(A, twin)


def test_x25519_of_rfc_7748() -> None:
    """Section 6.1: Bob's private key, both public keys, the shared secret."""
    bob = Secret(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert agree(bob, alice).reveal().hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_hkdf_of_rfc_5869_shape() -> None:
    """The suite's KDF is HKDF-SHA256 with the salt and info of §1.2, computed here with HMAC alone."""
    prk = hmac.digest(b"FSA1", b"i" * 32, hashlib.sha256)
    expected = hmac.digest(prk, b"FSA1/label\x00info\x01", hashlib.sha256)
    assert RealSuite().kdf(b"i" * 32, "label", b"info") == expected


def test_the_stream_is_aes_256_ctr() -> None:
    """AES-256 of the zero block under the zero key, as published for the block cipher."""
    buffer = bytearray(48)
    RealSuite().stream(bytes(32)).update_into(bytes(16), buffer)
    assert bytes(buffer[:16]).hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize(
    "public",
    [
        b"",
        bytes(31),
        bytes(33),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        (2**255 + 9).to_bytes(32, "little"),
        b"\xff" * 32,
    ],
)
def test_other_encodings_are_refused(public: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="encoding"):
        check_public(public)


# Points of small order below p: 0, 1, and the two of order 8 (RFC 7748 section 6.1 asks to refuse all-zero results).
SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
]


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_all_zero_secrets_are_refused(public: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="all-zero"):
        agree(A, public)


def test_secrets_hide() -> None:
    assert repr(A) == "Secret(32 bytes)"
    assert "aaaa" not in f"{A}"
    with pytest.raises(TypeError):
        pickle.dumps(A)
    assert public_key(A) != A.reveal()
