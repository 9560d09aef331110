"""Shamir: any t shares give the secret, other encodings and other polynomials are refused."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import LocalProtocolError, RemoteProtocolError
from privacy.secagg.shares import P, check_share, combine, split
from tests.privacy.secagg.parties import seeded

SECRET = bytes(range(32))


def is_probable_prime(p: int) -> bool:
    d, s = p - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, d, p)
        if x not in {1, p - 1} and all(pow(x, 2**r, p) != p - 1 for r in range(1, s)):
            return False
    return True


def test_the_field_is_a_field() -> None:
    assert P == 2**257 - 93
    assert is_probable_prime(P)


def test_every_set_of_t_shares_gives_the_secret() -> None:
    shares = split(SECRET, t=3, places=range(6), entropy=seeded("a"))
    for size in (3, 4, 5, 6):
        for chosen in itertools.combinations(range(6), size):
            assert combine({place: shares[place] for place in chosen}, 3) == SECRET


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 8), st.integers())
def test_share_and_combine_are_inverse(secret: bytes, t: int, more: int, seed: int) -> None:
    shares = split(secret, t=t, places=range(0, 2 * (t + more), 2), entropy=seeded(seed))
    assert combine(shares, t) == secret


def test_a_known_polynomial() -> None:
    """Secret + 5x + 7x^2, with the coefficients drawn lowest degree first; Horner by hand."""
    fed = iter([(5).to_bytes(33, "big"), (7).to_bytes(33, "big")])
    shares = split(SECRET, t=3, places=[0, 4, 9], entropy=lambda _: next(fed))
    for place, share in shares.items():
        x = place + 1
        assert int.from_bytes(share, "big") == (int.from_bytes(SECRET, "big") + 5 * x + 7 * x * x) % P


def test_coefficients_drop_seven_bits_and_are_drawn_again() -> None:
    fed = iter([b"\xff" * 33, b"\xfe" + bytes(31) + b"\x05"])
    shares = split(bytes(32), t=2, places=[0, 1], entropy=lambda _: next(fed))
    assert int.from_bytes(shares[0], "big") == 5  # 2^257 - 1 is not below p and was drawn again


def test_fewer_shares_open_nothing() -> None:
    shares = split(SECRET, t=3, places=range(5), entropy=seeded("b"))
    with pytest.raises(RemoteProtocolError, match="do not open"):
        combine({0: shares[0], 1: shares[1]}, 3)
    with pytest.raises(RemoteProtocolError):
        combine({}, 0)


def test_a_share_plus_p_is_refused() -> None:
    shares = split(bytes(32), t=2, places=range(3), entropy=lambda _: bytes(32) + b"\x01")
    twin = (int.from_bytes(shares[0], "big") + P).to_bytes(33, "big")
    with pytest.raises(RemoteProtocolError, match="encoding"):
        combine({**shares, 0: twin}, 2)
    for bad in (b"", bytes(32), bytes(34), P.to_bytes(33, "big")):
        with pytest.raises(RemoteProtocolError):
            check_share(bad)
    assert check_share((P - 1).to_bytes(33, "big")) == P - 1


@pytest.mark.parametrize("place", range(5))
def test_a_surplus_share_off_the_polynomial_is_refused(place: int) -> None:
    shares = split(SECRET, t=3, places=range(5), entropy=seeded("c"))
    wrong = {**shares, place: ((int.from_bytes(shares[place], "big") + 1) % P).to_bytes(33, "big")}
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        combine(wrong, 3)


def test_a_constant_term_beyond_32_bytes_is_refused() -> None:
    share = (2**256).to_bytes(33, "big")
    with pytest.raises(RemoteProtocolError, match="32-byte"):
        combine({0: share, 1: share}, 1)


def test_our_own_mistakes_are_bugs() -> None:
    for secret, t, places in (
        (b"short", 2, [0, 1]),
        (SECRET, 3, [0, 1]),
        (SECRET, 0, [0]),
        (SECRET, 1, [0, 0]),
        (SECRET, 1, [-1]),
    ):
        with pytest.raises(LocalProtocolError):
            split(secret, t=t, places=places, entropy=seeded("d"))
    with pytest.raises(LocalProtocolError):
        split(SECRET, t=2, places=[0, 1], entropy=lambda size: bytes(size - 1))


def test_two_shares_of_three_fit_every_secret() -> None:
    """Perfect secrecy, by counting: whatever two shares are, each secret is explained by one third share."""
    shares = split(SECRET, t=3, places=range(3), entropy=seeded("e"))
    for guess in (bytes(32), SECRET, b"\xff" * 32):
        y = [int.from_bytes(shares[p], "big") for p in (0, 1)]
        s = int.from_bytes(guess, "big")
        # Through (0, s), (1, y0), (2, y1) goes exactly one parabola; its value at 3 is the third share.
        third = (s - 3 * y[0] + 3 * y[1]) % P
        assert combine({0: shares[0], 1: shares[1], 2: third.to_bytes(33, "big")}, 3) == guess
