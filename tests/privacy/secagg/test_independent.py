"""The second implementation's primitives against the numbers that the standards print."""

import cbor2
import pytest

from tests.privacy.secagg import independent_primitives as primitives
from tests.privacy.secagg.independent import FIELD, combine, polynomial_at, split

unhex = bytes.fromhex

X25519_VECTORS = [  # RFC 7748 §5.2, then §6.1: two public keys and the secret they give
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "09" + "00" * 31,
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "09" + "00" * 31,
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    ),
]

ED25519_VECTORS = [  # RFC 8032 §7.1, tests 1 to 3: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)

CBOR_VECTORS: list[tuple[primitives.CborItem, str]] = [  # RFC 8949 appendix A
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (False, "f4"),
    (True, "f5"),
    (b"", "40"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("IETF", "6449455446"),
    ("ü", "62c3bc"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
]


@pytest.mark.parametrize(("scalar", "u", "expected"), X25519_VECTORS)
def test_x25519_gives_rfc_7748(scalar: str, u: str, expected: str) -> None:
    assert primitives.x25519(unhex(scalar), unhex(u)).hex() == expected


def test_x25519_iterated_gives_rfc_7748() -> None:
    """§5.2, a hundred steps are not printed there; one is, and a thousand, which takes about a second."""
    k = u = (9).to_bytes(32, "little")
    for step in range(1000):
        k, u = primitives.x25519(k, u), k
        if step == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize(("seed", "public", "message", "signature"), ED25519_VECTORS)
def test_ed25519_gives_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    assert primitives.ed25519_public(unhex(seed)).hex() == public
    assert primitives.ed25519_sign(unhex(seed), unhex(message)).hex() == signature


def test_chacha20_block_gives_rfc_8439() -> None:
    """§2.3.2."""
    block = primitives.chacha20_block(bytes(range(32)), 1, unhex("000000090000004a00000000"))
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_poly1305_gives_rfc_8439() -> None:
    """§2.5.2."""
    key = unhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    assert primitives.poly1305(key, b"Cryptographic Forum Research Group").hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_chacha20_poly1305_gives_rfc_8439() -> None:
    """§2.8.2, sealed and opened; a changed byte of ciphertext or associated data is refused."""
    key, nonce, ad = bytes(range(0x80, 0xA0)), unhex("070000004041424344454647"), unhex("50515253c0c1c2c3c4c5c6c7")
    sealed = primitives.chacha20_poly1305_seal(key, nonce, SUNSCREEN, ad)
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    assert primitives.chacha20_poly1305_open(key, nonce, sealed, ad) == SUNSCREEN
    for changed, data in ((bytes([sealed[0] ^ 1]) + sealed[1:], ad), (sealed, ad + b"x")):
        with pytest.raises(ValueError, match="tag"):
            primitives.chacha20_poly1305_open(key, nonce, changed, data)


def test_aes_256_gives_fips_197() -> None:
    """Appendix C.3."""
    block = primitives.aes256_block(bytes(range(32)), unhex("00112233445566778899aabbccddeeff"))
    assert block.hex() == "8ea2b7ca516745bfeafc49904b496089"


def test_aes_256_ctr_gives_sp_800_38a() -> None:
    """F.5.5; the stream is the ciphertext without the plaintext."""
    key = unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plaintext = unhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    stream = primitives.aes256_ctr_stream(key, unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), 64)
    assert bytes(a ^ b for a, b in zip(plaintext, stream, strict=True)).hex() == (
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )


@pytest.mark.parametrize(
    ("salt", "info", "expected"),
    [  # RFC 5869 A.1 and A.3
        (
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        ("", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ],
)
def test_hkdf_gives_rfc_5869(salt: str, info: str, expected: str) -> None:
    assert primitives.hkdf_sha256(b"\x0b" * 22, unhex(salt), unhex(info), 42).hex() == expected


@pytest.mark.parametrize(("item", "expected"), CBOR_VECTORS)
def test_cbor_gives_rfc_8949(item: primitives.CborItem, expected: str) -> None:
    assert primitives.cbor(item).hex() == expected


def test_both_orders_of_text_keys_agree() -> None:
    """RFC 8949 §4.2.1 (bytes of the encoded key) and RFC 7049 §3.9 (length first, then bytes) sort text keys alike."""
    keys = ["b", "aachen", "a" * 23, "b" * 24, "a" * 24, "a" * 255, "a" * 256, "z" * 30, "0", "10", "9", "site-1.x", ""]
    encoded = [primitives.cbor(key) for key in keys]
    assert sorted(encoded) == sorted(encoded, key=lambda key: (len(key), key))
    by_key = {key: place for place, key in enumerate(keys)}
    assert primitives.cbor(by_key) == cbor2.dumps(by_key, canonical=True)


def test_shamir_by_hand() -> None:
    """1234 + 166 x + 94 x² at 1 to 4, worked out on paper: two differences of 94 make the step from value to value."""
    assert [polynomial_at([1234, 166, 94], x) for x in (1, 2, 3, 4)] == [1494, 1942, 2578, 3402]
    shares = {x: value.to_bytes(33, "big") for x, value in ((2, 1942), (3, 2578), (4, 3402))}
    assert combine(shares, 3) == (1234).to_bytes(32, "big")


def test_shamir_near_the_top_of_the_field() -> None:
    """A line through p - 1 with slope 1 passes 0 at 1: the field wraps where it should, and shares need 33 bytes."""
    assert [polynomial_at([FIELD - 1, 1], x) for x in (1, 2)] == [0, 1]
    assert polynomial_at([FIELD - 2, 0], 7).to_bytes(33, "big").hex() == "01" + "ff" * 31 + "a1"


def test_split_draws_as_the_specification_says() -> None:
    """§4.3: coefficients of 33 bytes, seven bits cleared, drawn again from ``p`` upwards, lowest degree first."""
    draws = iter([b"\xff" * 33, b"\xfe" + bytes(31) + b"\x05", bytes(32) + b"\x03"])
    shares = split(bytes(31) + b"\x07", 3, [1, 2, 10], lambda size: next(draws) if size == 33 else b"")
    assert {x: int.from_bytes(share, "big") for x, share in shares.items()} == {1: 15, 2: 29, 10: 357}


def test_a_surplus_share_off_the_polynomial_is_refused() -> None:
    shares = split(bytes(range(32)), 2, [1, 2, 3], primitives.Stream(b"seed").draw)
    assert combine(shares, 2) == bytes(range(32))
    with pytest.raises(ValueError, match="polynomial"):
        combine(shares | {3: shares[1]}, 2)
