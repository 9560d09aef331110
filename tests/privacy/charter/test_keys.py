"""Keys under which anybody can sign are refused; the small points come from the curve's own arithmetic."""

import base64
import hashlib
from typing import Any

import pytest

from privacy.charter.document import from_body
from privacy.charter.keys import check_signing_key
from privacy.errors import ConfigError
from privacy.keys import signing
from tests.privacy.charter.example import body, officer, server

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """RFC 8032, 5.1.4, in affine coordinates."""
    k = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P)
    return x % P, (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P) % P


def times(n: int, a: Point) -> Point:
    total = (0, 1)
    for bit in f"{n:b}":
        total = add(total, total)
        total = add(total, a) if bit == "1" else total
    return total


def point(y: int) -> Point | None:
    """The even point with that y (RFC 8032, 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    for root in (pow(square, (P + 3) // 8, P), pow(square, (P + 3) // 8, P) * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == square:
            return min(root, P - root, key=lambda x: x & 1), y
    return None


def spelt(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def small() -> set[Point]:
    found = {(0, 1)}
    for y in range(2, 20):
        if (some := point(y)) is not None:
            one = times(ORDER, some)
            found |= {times(n, one) for n in range(8)}
    return found


def test_the_eight_points_that_anybody_can_sign_for() -> None:
    points = small()
    assert len(points) == 8
    for one in points:
        for sign in (0, 1 << 255):
            raw = (one[1] | sign).to_bytes(32, "little")
            with pytest.raises(ConfigError, match="of alba is no Ed25519 key"):
                check_signing_key(raw, "alba")


def test_a_key_has_one_spelling_and_is_a_point() -> None:
    wrong = [n.to_bytes(32, "little") for y in range(P, 2**255) for n in (y, y | 1 << 255)]
    wrong += [y.to_bytes(32, "little") for y in range(2, 60) if point(y) is None]
    assert len(wrong) > 40
    for raw in [*wrong, b"", bytes(31), signing.SigningKey(bytes(32)).public_key + b"\0"]:
        with pytest.raises(ConfigError, match="no Ed25519 key"):
            check_signing_key(raw, "alba")


def test_real_keys_pass() -> None:
    for number in range(200):
        check_signing_key(signing.SigningKey(hashlib.sha256(bytes([number])).digest()).public_key, "alba")


WEAK = (1).to_bytes(32, "little")


def test_the_forgery_that_this_prevents_is_real() -> None:
    """R = S B for any S: the library accepts it under the neutral element, over any message."""
    base = point(4 * pow(5, -1, P) % P)
    assert base is not None
    signing.verify(WEAK, spelt(times(5, base)) + (5).to_bytes(32, "little"), b"whatever a charter says")


@pytest.mark.parametrize("where", ["officer", "site", "server"])
def test_no_charter_lists_such_a_key(where: str) -> None:
    key = base64.b64encode(WEAK).decode()
    mine: dict[str, Any] = body()
    changes: dict[str, Any] = {
        "officer": {"officers": [{**officer("alba"), "key": key}, *mine["officers"][1:]]},
        "site": {"sites": [{**mine["sites"][0], "identity": key}, *mine["sites"][1:]]},
        "server": {"server": server(identity=key)},
    }
    with pytest.raises(ConfigError, match="no Ed25519 key that somebody alone can sign with"):
        from_body(body(**changes[where]))
