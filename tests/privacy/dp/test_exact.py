"""The bounds that exactness rests on, and the boundaries between integers, where a mere guess would be wrong."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.special import ndtri

from privacy.dp import exact
from privacy.dp.exact import Law, RoundedGaussian, Skellam, cumulative, draws

KEY = bytes(range(32))
SIGMAS = [Fraction(1, 5), Fraction(1), Fraction(37, 3), Fraction(4096), Fraction(9.7 * 2**20), Fraction(2**40) / 3]
VARIANCES = [Fraction(1, 10), Fraction(7, 3), Fraction(2500), Fraction(2**24)]


def context(bits: int) -> mpmath.MPContext:
    made = mpmath.MPContext()
    made.prec = bits
    return made


def number(c: mpmath.MPContext, x: Fraction) -> mpmath.mpf:
    return c.mpf(x.numerator) / x.denominator


def gaussian_boundary(sigma: Fraction, k: int, bits: int) -> int:
    """F(k) = 2 Phi((k + 1/2) / sigma) - 1 by mpmath's ``ncdf``, in units of 2^-bits, rounded down."""
    c = context(bits + 200)
    return int(c.floor(c.ldexp(2 * c.ncdf((k + c.mpf("0.5")) / number(c, sigma)) - 1, bits)))


def skellam_boundary(variance: Fraction, k: int, bits: int) -> int:
    """P(|X| <= k) by mpmath's Bessel function, in units of 2^-bits, rounded down."""
    c = context(bits + 200)
    v = number(c, variance)
    inside = sum((c.besseli(j, v) * (1 if j == 0 else 2) for j in range(k + 1)), c.mpf(0))
    return int(c.floor(c.ldexp(c.exp(-v) * inside, bits)))


BOUNDARIES = [
    *((RoundedGaussian(s), k, gaussian_boundary) for s in SIGMAS for k in {0, 1, int(s / 2), int(3 * s)}),
    *((Skellam(v), k, skellam_boundary) for v in VARIANCES[:3] for k in (0, 1, 3)),
    (Skellam(Fraction(2500)), 150, skellam_boundary),
]


def parameter(law: RoundedGaussian | Skellam) -> Fraction:
    return law.sigma if isinstance(law, RoundedGaussian) else law.variance


class TestBounds:
    def test_ndtri_is_as_near_as_the_proof_needs(self) -> None:
        """Bound 1, with the place where Cephes changes formula; 2^-51 is found, 2^-47 is needed."""
        rng = np.random.default_rng(3)
        tails = np.concatenate([2.0 ** -rng.uniform(1, 20, 4000), rng.uniform(2.0**-20, 0.5, 4000), [2.0**-20, 0.5]])
        tails = np.concatenate([tails, np.exp(-2.0) + np.arange(-50, 50) * 2.0**-55])
        c = context(160)
        for tail, z in zip(tails, -ndtri(tails), strict=True):
            slack = 2.0**-48 * (1 + z)
            assert c.ncdf(-c.mpf(z) - slack) < tail < c.ncdf(-c.mpf(z) + slack)

    @pytest.mark.parametrize("bits", [63, 127, 319])
    def test_mpmaths_erf_is_as_near_as_the_proof_needs(self, bits: int) -> None:
        """Bound 2, by the alternating series in exact fractions: a sum and the next lie on both sides of the value."""
        c = context(2 * bits + 400)
        for x in (Fraction(1, 3), Fraction(7, 5), Fraction(5, 2), Fraction(17, 4)):
            low = high = total = term = x
            for n in itertools.count(1):
                term *= -x * x / n
                total += term / (2 * n + 1)
                low, high = (total, high) if n % 2 else (low, total)
                if n > x * x and abs(term) < Fraction(1, 2 ** (bits + 100)):
                    break
            found = context(bits + 96)
            value = found.erf(number(found, x))
            scale = 2 / c.sqrt(c.pi)
            allowed = c.ldexp(1, -bits - 32)
            assert number(c, low) * scale - allowed < value < number(c, high) * scale + allowed

    @pytest.mark.parametrize("variance", [*VARIANCES[:3], Fraction(10) ** -9])
    @pytest.mark.parametrize("bits", [63, 127])
    def test_skellams_sums_are_within_a_unit(self, variance: Fraction, bits: int) -> None:
        """Bound 3."""
        sums = cumulative(variance, bits)
        for k in {0, 1, 2, 5, 20, 100} & set(range(len(sums))):
            assert abs(sums[k] - skellam_boundary(variance, k, bits)) <= 1
        assert sums[-1] >= 2**bits - 1

    @pytest.mark.parametrize("variance", [Fraction(2**24), Fraction(2**23 + 1, 2)])
    def test_so_they_are_for_the_largest_tables(self, variance: Fraction) -> None:
        sums, c = cumulative(variance, 127), context(400)
        v = number(c, variance)
        for k in (1, 2, 1000, 4096, 20_000):
            step = c.ldexp(2 * c.exp(-v) * c.besseli(k, v), 127)
            assert abs(sums[k] - sums[k - 1] - step) <= 2
        table = exact._table(variance)
        assert (np.diff(table) >= 0).all()
        assert all(
            abs((entry << 64) - total) <= 2**64 for entry, total in zip(table[1:-1].tolist(), sums, strict=False)
        )


class TestBoundaries:
    @pytest.mark.parametrize(("law", "k", "boundary"), BOUNDARIES)
    def test_a_cell_that_holds_one_is_not_guessed_but_settled_by_further_bits(
        self, law: RoundedGaussian | Skellam, k: int, boundary: Callable[[Fraction, int, int], int]
    ) -> None:
        inside = boundary(parameter(law), k, 63)
        if inside < 2**63 - 1:
            _, sure = law.guess(np.array([inside]))
            assert not sure[0]
        assert law.settle(inside, 63) is None
        finer = boundary(parameter(law), k, 127)
        assert law.settle(finer, 127) is None
        assert law.settle(finer - 1, 127) == k
        assert law.settle(finer + 1, 127) == k + 1

    @pytest.mark.parametrize("law", [*map(RoundedGaussian, SIGMAS), *map(Skellam, VARIANCES[:3])])
    def test_what_is_guessed_is_what_is_settled(self, law: RoundedGaussian | Skellam) -> None:
        """At random places, and in the cells round the boundaries, where an optimistic guess would show."""
        rng = np.random.default_rng(5)
        u = rng.integers(0, 2**63 - 2**20, 150)
        magnitudes, _ = law.guess(u)
        near = [
            gaussian_boundary(law.sigma, int(k), 63)
            if isinstance(law, RoundedGaussian)
            else cumulative(parameter(law), 63)[k]
            for k in np.unique(magnitudes)[:12]
        ]
        round_them = (place + step for place in near for step in (-3, -2, -1, 1, 2, 3))
        u = np.array([*u.tolist(), *(x for x in round_them if 0 <= x < 2**63), 0, 1, 2**63 - 2])
        guesses, sure = law.guess(u)
        settled = [law.settle(int(x), 63) for x in u]
        assert all(k == s for k, s, ok in zip(guesses, settled, sure, strict=True) if ok)
        assert sure[:150].mean() > (0.99 if parameter(law) < 2**30 else 0.7)

    @pytest.mark.parametrize("law", [*map(RoundedGaussian, SIGMAS[1:3]), *map(Skellam, VARIANCES[:2])])
    def test_the_last_cell_has_no_end_but_its_parts_have(self, law: Law) -> None:
        """Nothing is cut off: the outermost cell holds infinitely many integers, each with its own share."""
        top = 2**63 - 1
        _, sure = law.guess(np.array([top]))
        assert not sure[0]
        assert law.settle(top, 63) is None
        assert law.settle(2**127 - 1, 127) is None
        inner, outer = (law.settle((top << 64) + part, 127) for part in (2**62, 2**64 - 2**40))
        assert inner is not None
        assert outer is not None
        assert 0 < inner < outer

    def test_a_table_is_trusted_to_a_unit_and_no_further(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An entry that falls on the edge of a cell may belong to either side of it."""
        monkeypatch.setattr(exact, "cumulative", lambda _, bits: [7 << 64, (1 << bits) - 1])
        law = Skellam(Fraction(1))
        assert [law.settle(u, 63) for u in (5, 6, 7, 8)] == [0, None, None, 1]


def words_of(key: bytes, n: int) -> list[int]:
    """AES-CTR by hand: the cipher applied to 0, 1, 2, ...; two little-endian words a block."""
    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - a block cipher on counters is CTR
    stream = b"".join(blocks.update(i.to_bytes(16, "big")) for i in range(-(-n // 2)))
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(n)]


@dataclass(frozen=True)
class Hesitant:
    """A law that never guesses, and wants at least ``bits``."""

    law: Law
    bits: int

    def guess(self, u: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return np.zeros(len(u), dtype=np.int64), np.zeros(len(u), dtype=np.bool_)

    def settle(self, u: int, bits: int) -> int | None:
        return None if bits < self.bits else self.law.settle(u, bits)


class TestDraws:
    @pytest.mark.parametrize("sigma", SIGMAS)
    def test_known_answers_from_known_bits(self, sigma: Fraction) -> None:
        """Inversion of the same bits at 300 bits of precision, by ``erfinv``; the sign is the lowest bit."""
        c, wanted = context(300), []
        for word in words_of(KEY, 300):
            z = c.sqrt(2) * c.erfinv(c.ldexp(2 * (word >> 1) + 1, -64))
            wanted.append(int(c.nint(number(c, sigma) * z)) * (-1) ** (word & 1))
        assert draws(RoundedGaussian(sigma), 300, KEY).tolist() == wanted

    @pytest.mark.parametrize("variance", VARIANCES)
    def test_known_answers_for_skellam(self, variance: Fraction) -> None:
        sums = cumulative(variance, 300)
        wanted = [
            sum(total <= (word >> 1) << 237 for total in sums) * (-1) ** (word & 1) for word in words_of(KEY, 100)
        ]
        assert draws(Skellam(variance), 100, KEY).tolist() == wanted

    @pytest.mark.parametrize("bits", [63, 127, 191])
    def test_further_bits_follow_in_the_stream_and_change_no_answer(self, bits: int) -> None:
        law = RoundedGaussian(SIGMAS[2])
        assert draws(Hesitant(law, bits), 50, KEY).tolist() == draws(law, 50, KEY).tolist()

    def test_further_bits_are_the_streams_next_and_are_used_once(self) -> None:
        seen: list[int] = []

        class Listening(Hesitant):
            def settle(self, u: int, bits: int) -> int | None:
                if bits == 127:
                    seen.append(u)
                return super().settle(u, bits)

        draws(Listening(RoundedGaussian(SIGMAS[2]), 127), 4, KEY)
        words = words_of(KEY, 8)
        assert seen == [(words[i] >> 1) << 64 | words[4 + i] for i in range(4)]

    def test_pieces_join_into_one_stream(self) -> None:
        law, size = RoundedGaussian(SIGMAS[3]), 2 * exact._PIECE + 5
        words = np.array(words_of(KEY, size), dtype=np.uint64)
        guesses, sure = law.guess((words >> np.uint64(1)).astype(np.int64))
        signed = np.where(words & np.uint64(1), -guesses, guesses)
        assert sure.mean() > 0.9999
        early = slice(0, exact._PIECE)  # the rest is shifted by a word for each draw settled with more bits: none here
        np.testing.assert_array_equal(draws(law, size, KEY)[early][sure[early]], signed[early][sure[early]])
        np.testing.assert_array_equal(draws(law, size, KEY)[sure], signed[sure])

    @pytest.mark.parametrize("size", [0, 1])
    def test_sizes_at_the_edge(self, size: int) -> None:
        assert draws(Skellam(VARIANCES[0]), size, KEY).shape == (size,)


class TestTables:
    def test_are_few_public_and_read_only(self) -> None:
        for v in range(1, 30):
            draws(Skellam(Fraction(v)), 1, KEY)
        assert exact._table.cache_info().currsize <= 8
        with pytest.raises(ValueError, match="read-only"):
            exact._table(Fraction(29))[1] = 0

    def test_mpmaths_global_precision_is_left_alone(self) -> None:
        """Another thread may be computing with it."""
        with mpmath.workprec(71):
            RoundedGaussian(SIGMAS[1]).settle(12345, 63)
            assert mpmath.mp.prec == 71

    def test_threads_do_not_disturb_each_other(self) -> None:
        laws: list[Law] = [
            *(Skellam(Fraction(v)) for v in range(3, 7)),
            *(Hesitant(RoundedGaussian(s), 127) for s in SIGMAS[1:5]),
        ]
        alone = [draws(law, 60, KEY).tolist() for law in laws]
        exact._table.cache_clear()
        found: dict[int, list[int]] = {}

        def work(i: int) -> None:
            found[i] = draws(laws[i], 60, KEY).tolist()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(laws))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[i] for i in range(len(laws))] == alone
