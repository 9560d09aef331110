"""Floating-point normals: the formula by hand on the same keystream, the distribution, and where the bits come from."""

import math

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats
from torch import Tensor

from clients import float_noise
from clients.float_noise import add_gaussian
from privacy.dp.noise import Entropy
from tests.clients.example import Keys


def gaussian(sigma: float, size: int, entropy: Entropy) -> Tensor:
    entries = torch.zeros(size, dtype=torch.float64)
    add_gaussian(entries, sigma, entropy)
    return entries


PIECE = float_noise._PIECE


@pytest.mark.parametrize("size", [1, 7, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3])
def test_are_quantiles_of_uniforms_from_the_keystream(size: int) -> None:
    keys = Keys()
    found = gaussian(2.5, size, keys).numpy()
    assert [len(key) for key in keys.drawn] == [16]
    n_pieces = -(-size // PIECE)
    stream = Cipher(algorithms.AES(keys.drawn[0]), modes.CTR(bytes(16))).encryptor().update(bytes(8 * PIECE * n_pieces))
    numbers = np.frombuffer(stream, dtype="<u8")[:size] % 2**52 // 2
    uniforms = (numbers.astype(np.float64) + 0.5) / 2**51
    np.testing.assert_allclose(found, 2.5 * stats.norm.ppf(uniforms), rtol=1e-9, atol=1e-9)


def test_joins_float32_with_one_rounding() -> None:
    exact, single = torch.full((999,), 1e3, dtype=torch.float64), torch.full((999,), 1e3)
    add_gaussian(exact, 2.0, Keys())
    add_gaussian(single, 2.0, Keys())
    assert torch.equal(exact.float(), single)


def test_are_normal_and_independent() -> None:
    drawn = gaussian(3.0, 400_000, Keys()).numpy() / 3.0
    assert stats.kstest(drawn, "norm").pvalue > 1e-4
    assert stats.kstest(drawn**2, stats.chi2(1).cdf).pvalue > 1e-4
    far = np.abs(drawn) > 4.0
    assert stats.binomtest(int(far.sum()), len(drawn), 2 * stats.norm.sf(4.0)).pvalue > 1e-4
    cosines, sines = drawn[:200_000], drawn[200_000:]
    for one, other in ((cosines, sines), (cosines**2, sines**2), (drawn[1:], drawn[:-1])):
        assert stats.pearsonr(one, other).pvalue > 1e-4


def test_the_same_key_gives_the_same_and_another_key_others() -> None:
    first, same, other = (gaussian(1.0, 1000, Keys(salt)) for salt in ("a", "a", "b"))
    assert torch.equal(first, same)
    assert not (first == other).any()
    assert first.dtype == torch.float64


def test_no_bits_make_an_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 2**64 - 1):
        monkeypatch.setattr(float_noise, "Cipher", lambda *_, word=word: Constant(word))
        drawn = gaussian(1.0, 4, Keys())
        assert drawn.isfinite().all()
        assert drawn.abs().max() < 8.7


class Constant:
    """A cipher whose keystream is one word for ever."""

    def __init__(self, word: int) -> None:
        self._word = word

    def encryptor(self) -> "Constant":
        return self

    def update_into(self, data: bytes, buffer: bytearray) -> None:
        buffer[: len(data)] = self._word.to_bytes(8, "little") * (len(data) // 8)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_no_deviation_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="range"):
        add_gaussian(torch.zeros(3), sigma, Keys())
