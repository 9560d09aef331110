"""Ed25519 against the vectors of RFC 8032 (section 7.1), and the ways in which keys and signatures may be refused."""

import base64
import copy
import pickle

import pytest

from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, keyid, parse_public_keys, parse_trust, verify

# Seed, public key, message, signature: RFC 8032, section 7.1, TEST 1 to 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
SEED = bytes.fromhex(RFC_8032[0][0])


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public_key.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message))


def test_every_changed_bit_of_a_signature_is_found() -> None:
    key = SigningKey(SEED)
    signature = key.sign(b"message")
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationError):
            verify(key.public_key, bytes(changed), b"message")


@pytest.mark.parametrize(
    ("public", "signature", "message"),
    [
        (SigningKey(SEED).public_key, SigningKey(SEED).sign(b"a"), b"b"),
        (SigningKey(bytes(32)).public_key, SigningKey(SEED).sign(b"a"), b"a"),
        (b"", SigningKey(SEED).sign(b"a"), b"a"),
        (b"\xff" * 32, SigningKey(SEED).sign(b"a"), b"a"),
        (SigningKey(SEED).public_key, b"", b"a"),
        (SigningKey(SEED).public_key, SigningKey(SEED).sign(b"a") + b"\0", b"a"),
    ],
    ids=["message", "key", "no key", "not a point", "no signature", "longer signature"],
)
def test_what_does_not_fit_is_raised(public: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(VerificationError):
        verify(public, signature, message)


def test_a_key_shows_its_id_and_nothing_else() -> None:
    key = SigningKey(SEED)
    assert repr(key) == f"SigningKey(keyid={keyid(key.public_key)[:16]}...)"
    assert SEED.hex() not in repr(key)
    assert str(SEED) not in f"{key!s}{key!r}"


def test_a_key_is_not_copied_or_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SigningKey(SEED))
    with pytest.raises(TypeError):
        copy.copy(SigningKey(SEED))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(bytes(length))


def test_trusted_keys_are_read_a_line_each() -> None:
    keys = [SigningKey(bytes([number]) * 32).public_key for number in range(2)]
    lines = [base64.b64encode(key).decode() for key in keys]
    assert parse_public_keys(f"# from the hospital, by telephone\n{lines[0]}\n\n  {lines[1]} \r\n") == frozenset(keys)


@pytest.mark.parametrize("text", ["", "# nobody\n", "not a key", base64.b64encode(bytes(31)).decode(), "ä" * 44])
def test_a_trust_file_without_a_usable_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_public_keys(text)


def test_a_key_that_only_counts_beside_others_is_no_signer_s() -> None:
    keys = [SigningKey(bytes([number]) * 32).public_key for number in range(3)]
    one, two, three = (base64.b64encode(key).decode() for key in keys)
    trust = parse_trust(f"{one}\n{two} cosigner\n# cleveland\n{three}  cosigner\n{one} cosigner\n")
    assert (trust.signers, trust.cosigners) == (frozenset(keys[:1]), frozenset(keys[1:]))
    for wrong in (f"{two} cosigner", f"{one} signer", f"{one} cosigner {two}", f"{one} {two}"):
        with pytest.raises(ConfigError):
            parse_trust(wrong)


def test_a_key_that_audits_signs_no_run_unless_it_is_listed_for_both() -> None:
    keys = [SigningKey(bytes([number]) * 32).public_key for number in range(3)]
    run, auditor, both = (base64.b64encode(key).decode() for key in keys)
    trust = parse_trust(f"{run}\n{auditor} auditor\n{auditor} cosigner\n{both}\n{both} auditor\n")
    assert trust.signers == {keys[0], keys[2]}
    assert trust.auditors == {keys[1], keys[2]}
    assert (trust.cosigners, trust.keys) == (frozenset(), frozenset(keys))
    with pytest.raises(ConfigError, match="names no key"):
        parse_trust(f"{auditor} auditor")
