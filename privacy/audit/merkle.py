"""Merkle trees of transparency logs: root, proof that an entry is in it, proof that it only grew. SHA-256, pure.

``MTH``, ``PATH`` and ``PROOF`` are RFC 6962's (sections 2.1, 2.1.1, 2.1.2); the verifiers are the algorithms of
RFC 9162 (2.1.3.2 and 2.1.4.2), step by step. Everything here is public. Sizes and indices count entries, from 0.

See: https://www.rfc-editor.org/rfc/rfc6962 (2.1), https://www.rfc-editor.org/rfc/rfc9162 (2.1).
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from privacy.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of a tree without entries."""


def leaf_hash(entry: bytes) -> bytes:
    """Returns the hash of an entry; its prefix keeps an entry from being taken for an inner node (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier(NamedTuple):
    """All that is needed of a tree to make it grow: the roots of its complete subtrees, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def then(self, leaf: bytes) -> "Frontier":
        """Returns the tree with one more leaf hash."""
        size, peaks, right = self.size + 1, self.peaks, leaf
        whole = size
        while whole % 2 == 0:  # each trailing zero bit of the size completes a subtree
            right = node_hash(peaks[-1], right)
            peaks = peaks[:-1]
            whole //= 2
        return Frontier(size, (*peaks, right))

    def root(self) -> bytes:
        """Returns ``MTH`` of the leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, node = self.peaks
        for peak in reversed(rest):
            node = node_hash(peak, node)
        return node


def root(leaves: Sequence[bytes]) -> bytes:
    """Returns ``MTH`` of leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.then(leaf)
    return frontier.root()


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """Returns ``PATH(index, leaves)``: what joins one leaf hash to the root, from the leaf up (RFC 6962, 2.1.1).

    Raises: ValueError: No such leaf.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves has no leaf {index}")
    if len(leaves) == 1:
        return ()
    k = _split(len(leaves))
    if index < k:
        return (*inclusion_proof(index, leaves[:k]), root(leaves[k:]))
    return (*inclusion_proof(index - k, leaves[k:]), root(leaves[:k]))


def consistency_proof(old: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """Returns ``PROOF(old, leaves)``: what shows that the first ``old`` leaves are still the same (RFC 6962, 2.1.2).

    Empty for ``old`` = 0, where there is nothing to show.

    Raises: ValueError: There never were so many leaves.
    """
    if not 0 <= old <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves was never one of {old}")
    return _subproof(old, leaves, known=True) if old else ()


def _subproof(m: int, leaves: Sequence[bytes], *, known: bool) -> tuple[bytes, ...]:
    """``SUBPROOF``; ``known``: the verifier has the root of these leaves, as it is that of the whole old tree."""
    n = len(leaves)
    if m == n:
        return () if known else (root(leaves),)
    k = _split(n)
    if m <= k:
        return (*_subproof(m, leaves[:k], known=known), root(leaves[k:]))
    return (*_subproof(m - k, leaves[k:], known=False), root(leaves[:k]))


def _split(n: int) -> int:
    """The largest power of two below ``n`` (RFC 6962, 2.1)."""
    return 1 << (n - 1).bit_length() - 1


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> None:
    """Checks that a leaf hash stands at ``index`` of the tree with this size and root.

    Raises: VerificationError: The proof does not show it.
    See: RFC 9162, 2.1.3.2.
    """
    _check_hashes((leaf, tree_root, *proof))
    if not 0 <= index < size:  # step 1
        raise VerificationError(f"a log of {size} entries has no entry {index}")
    fn, sn, r = index, size - 1, leaf  # steps 2 and 3
    for p in proof:  # step 4
        if sn == 0:  # 4.1
            raise _unproven(index)
        if fn % 2 == 1 or fn == sn:  # 4.2
            r = node_hash(p, r)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1  # 4.3
    if sn != 0 or r != tree_root:  # step 5
        raise _unproven(index)


def verify_consistency(old_size: int, old_root: bytes, size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that a tree still begins with all that was in it at an older size.

    An empty log is the beginning of every log.

    Raises: VerificationError: The proof does not show it.
    See: RFC 9162, 2.1.4.2.
    """
    _check_hashes((old_root, new_root, *proof))
    if not 0 <= old_size <= size:
        raise VerificationError(f"a log of {size} entries cannot follow one of {old_size}")
    if old_size in {0, size}:  # outside of the algorithm, which asks for 0 < first < second
        if proof or (old_root != (EMPTY_ROOT if old_size < size else new_root)):
            raise _inconsistent(old_size)
        return
    if not proof:  # step 1
        raise _inconsistent(old_size)
    path = [*([old_root] if old_size & (old_size - 1) == 0 else []), *proof]  # step 2
    if _roots(old_size - 1, size - 1, path) != (old_root, new_root):  # step 7
        raise _inconsistent(old_size)


def _roots(fn: int, sn: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Steps 3 to 6: returns the old and the new root that the path leads to, ``None`` if it has the wrong length."""
    while fn % 2 == 1:  # step 4
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]  # step 5
    for c in path[1:]:  # step 6
        if sn == 0:  # 6.1
            return None
        if fn % 2 == 1 or fn == sn:  # 6.2
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1  # 6.3
    return (fr, sr) if sn == 0 else None


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise VerificationError("a proof holds something that is no SHA-256")


def _unproven(index: int) -> VerificationError:
    return VerificationError(f"the proof does not show that entry {index} is in the log")


def _inconsistent(old_size: int) -> VerificationError:
    return VerificationError(f"the log is not shown to begin with the {old_size} entries that it had before")
