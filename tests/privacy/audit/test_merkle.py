"""RFC 6962 trees: Google's published vectors, a naive recursive tree as the oracle, and proofs that must not pass."""

import base64
import hashlib
from collections.abc import Iterator, Sequence

import pytest

from privacy.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from privacy.errors import VerificationError

# The eight entries and their hashes: github.com/transparency-dev/merkle, testonly/constants.go; proofs from
# proof/verify_test.go and testonly/reference_test.go (they began as google/certificate-transparency's tests).
ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, E = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",  # leaf 0
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",  # leaf 1
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",  # leaf 4
)
G = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"  # leaf 6
AB, CD, EF, GH = (
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
)
ABCD, EFGH = (
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
INCLUSION = [  # index, size, proof
    (0, 1, []),
    (0, 2, [B]),
    (1, 2, [A]),
    (2, 3, [AB]),
    (1, 5, [A, CD, E]),
    (0, 8, [B, CD, EFGH]),
    (5, 8, [E, GH, ABCD]),
]
CONSISTENCY = [  # old size, size, proof
    (1, 1, []),
    (1, 8, [B, CD, EFGH]),
    (6, 8, [EF, GH, ABCD]),
    (2, 5, [CD, E]),
    (6, 7, [EF, G, ABCD]),
]
# compact/range_test.go, TestGetRootHashGolden: entry i is i as two bytes, little-endian.
GOLDEN = {
    10: "VjWMPSYNtCuCNlF/RLnQy6HcwSk6CIipfxm+hettA+4=",
    15: "j4SulYmocFuxdeyp12xXCIgK6PekBcxzAIj4zbQzNEI=",
    16: "c+4Uc6BCMOZf/v3NZK1kqTUJe+bBoFtOhP+P3SayKRE=",
    100: "dUh9hYH88p0CMoHkdr1wC2szbhcLAXOejWpINIooKUY=",
    255: "SmdsuKUqiod3RX2jyF2M6JnbdE4QuTwwipfAowI4/i0=",
    256: "qFI0t/tZ1MdOYgyPpPzHFiZVw86koScXy9q3FU5casA=",
    1000: "RXrgb8xHd55Y48FbfotJwCbV82Kx22LZfEbmBGAvwlQ=",
    4095: "cWRFdQhPcjn9WyBXE/r1f04ejxIm5lvg40DEpRBVS0w=",
    65535: "iPuVYJhP6SEE4gUFp8qbafd2rYv9YTCDYqAxCj8HdLM=",
}
MANY = [leaf_hash(b"%d" % number) for number in range(40)]
SOME = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")


def raw(hashes: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, hashes))


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is written, sharing nothing with the code under test."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    k = max(1 << power for power in range(60) if 1 << power < len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def passes_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree: bytes) -> bool:
    try:
        verify_inclusion(leaf, index, size, proof, tree)
    except VerificationError:
        return False
    return True


def passes_consistency(old: int, before: bytes, size: int, after: bytes, proof: Sequence[bytes]) -> bool:
    try:
        verify_consistency(old, before, size, after, proof)
    except VerificationError:
        return False
    return True


def test_the_hashes_of_rfc_6962() -> None:
    # rfc6962/rfc6962_test.go
    assert EMPTY_ROOT.hex() == ROOTS[0]
    assert leaf_hash(b"").hex() == A
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]


def test_golden_roots() -> None:
    frontier, found = Frontier(), {}
    for number in range(max(GOLDEN)):
        frontier = frontier.then(leaf_hash(number.to_bytes(2, "little")))
        if frontier.size in GOLDEN:
            found[frontier.size] = base64.b64encode(frontier.root()).decode()
    assert found == GOLDEN


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, proof: list[str]) -> None:
    assert inclusion_proof(index, LEAVES[:size]) == raw(proof)
    verify_inclusion(LEAVES[index], index, size, raw(proof), bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "size", "proof"), CONSISTENCY)
def test_published_consistency_proofs(old: int, size: int, proof: list[str]) -> None:
    assert consistency_proof(old, LEAVES[:size]) == raw(proof)
    verify_consistency(old, bytes.fromhex(ROOTS[old]), size, bytes.fromhex(ROOTS[size]), raw(proof))


@pytest.mark.parametrize("size", range(1, len(MANY) + 1))
def test_every_tree_equals_the_naive_one_and_every_proof_holds(size: int) -> None:
    leaves = MANY[:size]
    tree = naive_root(leaves)
    assert root(leaves) == tree
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(index, leaves)
        verify_inclusion(leaf, index, size, proof, tree)
        assert not passes_inclusion(SOME, index, size, proof, tree)
        assert not passes_inclusion(leaf, (index + 1) % size if size > 1 else 1, size, proof, tree)
    for old in range(size + 1):
        proof, before = consistency_proof(old, leaves), naive_root(MANY[:old])
        verify_consistency(old, before, size, tree, proof)
        forked = naive_root([*MANY[: old - 1], SOME]) if old else SOME
        assert not passes_consistency(old, forked, size, tree, proof)
        if old < size:
            assert not passes_consistency(old, before, size, SOME, proof) or old == 0


def wrong_proofs(proof: Sequence[bytes], *roots: bytes) -> Iterator[tuple[bytes, ...]]:
    for extra in (b"", *roots):
        yield (*proof, extra)
        yield (extra, *proof)
    for place, one in enumerate(proof):
        yield (*proof[:place], bytes([one[0] ^ 8]) + one[1:], *proof[place + 1 :])
        yield (*proof[:place], *proof[place + 1 :])
    if len(proof) > 1:
        yield (proof[0], SOME, *proof[1:])
        yield tuple(reversed(proof))


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_a_changed_inclusion_proof_is_refused(index: int, size: int, proof: list[str]) -> None:
    # The cases of proof/verify_test.go, corruptInclusionProof.
    leaf, tree, right = LEAVES[index], bytes.fromhex(ROOTS[size]), raw(proof)
    for wrong in wrong_proofs(right, tree):
        assert not passes_inclusion(leaf, index, size, wrong, tree)
    for place in (index - 1, index + 1, index ^ 2):
        assert not passes_inclusion(leaf, place, size, right, tree)
    for other in (size * 2, size // 2):
        assert not passes_inclusion(leaf, index, other, right, tree)
    for hashed, whole in ((b"wrong", tree), (leaf, EMPTY_ROOT), (leaf, SOME), (b"", tree), (leaf, b""), (b"", b"")):
        assert not passes_inclusion(hashed, index, size, right, whole)


@pytest.mark.parametrize(("old", "size", "proof"), CONSISTENCY[1:])
def test_a_changed_consistency_proof_is_refused(old: int, size: int, proof: list[str]) -> None:
    # The cases of proof/verify_test.go, corruptConsistencyProof.
    before, after, right = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size]), raw(proof)
    for wrong in ((), *wrong_proofs(right, before, after)):
        assert not passes_consistency(old, before, size, after, wrong)
    for other in (old - 1, old + 1, old ^ 2):
        assert not passes_consistency(other, before, size, after, right)
    for other in (size * 2, size // 2):
        assert not passes_consistency(old, before, other, after, right)
    for first, second in ((SOME, after), (before, SOME), (after, before), (b"wrong", after), (before, b"wrong")):
        assert not passes_consistency(old, first, size, second, right)


@pytest.mark.parametrize(
    ("old", "before", "size", "after", "proof", "holds"),
    [  # proof/verify_test.go, TestVerifyConsistency, with real hashes
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, (), True),
        (0, EMPTY_ROOT, 1, SOME, (), True),
        (1, SOME, 1, SOME, (), True),
        (0, SOME, 1, SOME, (), False),  # no empty log has this root
        (0, EMPTY_ROOT, 0, SOME, (), False),
        (1, EMPTY_ROOT, 1, SOME, (), False),
        (1, SOME, 0, EMPTY_ROOT, (), False),
        (2, SOME, 1, SOME, (), False),
        (1, SOME, 2, SOME, (), False),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, (SOME,), False),
        (0, EMPTY_ROOT, 1, EMPTY_ROOT, (SOME,), False),
        (1, SOME, 1, SOME, (SOME,), False),
        (-1, SOME, 1, SOME, (), False),
    ],
)
def test_edges_of_consistency(
    old: int, before: bytes, size: int, after: bytes, proof: tuple[bytes, ...], holds: bool
) -> None:
    assert passes_consistency(old, before, size, after, proof) is holds


def test_no_proof_of_what_is_not_there() -> None:
    for index in (-1, 8):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(index, LEAVES)
    for old in (-1, 9):
        with pytest.raises(ValueError, match="never one"):
            consistency_proof(old, LEAVES)
    for index, size in ((0, 0), (1, 0), (1, 1), (2, 1), (-1, 1)):
        assert not passes_inclusion(SOME, index, size, (), SOME)
