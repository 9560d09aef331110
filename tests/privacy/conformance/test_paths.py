"""Paths that are wrong in ways that a patch of production would not reach."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.conformance import defects
from privacy.conformance.defects import ALTERED, Defect, Defective, fires
from privacy.conformance.noise import key_test, noise_tests, repetition_test
from privacy.conformance.path import ReleasePath, Replayed
from privacy.conformance.sensitivity import influence_test
from privacy.conformance.sums import NoisedSum
from privacy.dp.noise import Entropy
from privacy.errors import SensitivityError
from tests.clients.test_release_path import SITE
from tests.privacy.conformance.test_statements import Keys

Vectors = NDArray[np.float64]


def broken(release: Callable[[ReleasePath, Vectors, Entropy], Vectors], dimension: int = 16) -> Defective:
    return Defective(NoisedSum(SITE, dimension, 16), release)


def test_a_path_that_passes_on_what_is_no_number_fails() -> None:
    def release(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
        return np.asarray(path.release(vectors, entropy) + 0.0 * vectors.sum(axis=0))

    found = influence_test(broken(release), Keys())
    assert (found.passed, found.statistic) == (False, 1e9)


def test_a_path_that_stops_because_of_one_record_fails() -> None:
    def release(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
        if not np.isfinite(vectors).all():
            raise SensitivityError("a record is no number")
        return path.release(vectors, entropy)

    assert not influence_test(broken(release), Keys()).passed


def test_the_influence_of_a_correct_path_is_the_clip() -> None:
    found = influence_test(NoisedSum(SITE, 16, 16), Keys())
    assert found.passed
    assert 0.9999 < found.statistic <= 1.0


@pytest.mark.parametrize("cycle", [[0, 0, 1], [0, 1, 0, 2], [0, 1, 1, 2]])
def test_noise_that_comes_again_is_found(cycle: list[int]) -> None:
    noise = np.random.default_rng(1).normal(size=(3, 100))
    assert repetition_test(noise).passed
    assert not repetition_test(noise[cycle]).passed
    noise[1, :50] = noise[0, :50]
    assert not repetition_test(noise).passed


def test_a_release_without_noise_is_found_among_others_that_have_it() -> None:
    calls = list[int]()

    def release(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
        calls.append(1)
        noisy = path.release(vectors, entropy)
        return noisy if len(calls) != 7 else 0.0 * noisy

    failed = {each.name for each in noise_tests(broken(release, 4096), Keys(), 1e-5) if not each.passed}
    assert "empty batch" in failed


def test_a_key_that_is_drawn_and_not_used_does_not_count() -> None:
    def release(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
        entropy(32)
        return path.release(vectors, Replayed([]))

    found = key_test(lambda dimension, _n_units: broken(release, dimension), 16, Keys())
    assert (found.passed, found.statistic, found.n) == (False, 1.0, 32)


@pytest.mark.parametrize("defect", ALTERED)
def test_a_control_is_silent_where_the_defect_is_not(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fires(defect, lambda dimension, n_units: NoisedSum(SITE, dimension, n_units), 16, Keys(), 1e-5)
    monkeypatch.setattr(defects, "ALTERED", {defect: lambda path, vectors, entropy: path.release(vectors, entropy)})
    assert not fires(defect, lambda dimension, n_units: NoisedSum(SITE, dimension, n_units), 16, Keys(), 1e-5)
