"""Attacks on what crosses a cut: areas and ridge regression against scikit-learn, and both ends of the scale."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import roc_auc_score

from privacy.attacks.cut import cosine_auc, inverted, norm_auc, recognised

Array = npt.NDArray[np.float32]


def gradients(n_classes: int, *, apart: float) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    labels = rng.integers(n_classes, size=60).astype(np.float32)
    ways = rng.standard_normal((n_classes, 5))
    values = rng.standard_normal((60, 5)) + apart * ways[labels.astype(np.int64)] * (1 + labels[:, None])
    return values.astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 4])
def test_areas_are_scikit_learns(n_classes: int) -> None:
    values, labels = gradients(n_classes, apart=0.5)
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    one_against_all = [roc_auc_score(labels == each, lengths) for each in range(n_classes)]
    assert norm_auc(values, labels) == pytest.approx(np.mean([max(area, 1 - area) for area in one_against_all]))

    unit = values.astype(np.float64) / lengths[:, None]
    found: dict[float, list[float]] = {}
    for known in range(len(labels)):
        others = np.arange(len(labels)) != known
        cosines = (unit @ unit[known])[others]
        found.setdefault(labels[known], []).append(roc_auc_score(labels[others] == labels[known], cosines))
    expected = np.mean([np.mean(areas) for areas in found.values()])
    assert cosine_auc(values, labels) == pytest.approx(expected, abs=1e-6)


def test_labels_in_plain_sight_are_found_and_labels_that_are_not_there_are_not() -> None:
    values, labels = gradients(3, apart=50.0)
    assert cosine_auc(values, labels) > 0.99
    hidden, _ = gradients(3, apart=0.0)
    assert cosine_auc(hidden, labels) == pytest.approx(0.5, abs=0.05)
    assert norm_auc(hidden, labels) < 0.65
    nothing = np.zeros_like(hidden)
    assert (norm_auc(nothing, labels), cosine_auc(nothing, labels)) == (0.5, 0.5)


def test_a_class_of_one_record_is_ranked_and_is_no_hint() -> None:
    values, labels = gradients(2, apart=1.0)
    labels[:] = 0
    labels[7] = 1
    values[7] = 100.0
    assert norm_auc(values, labels) == 1.0
    assert 0 <= cosine_auc(values, labels) <= 1
    with pytest.raises(ValueError, match="one class"):
        norm_auc(values, np.zeros_like(labels))
    with pytest.raises(ValueError, match="no class has two records"):
        cosine_auc(values[:2], np.array([0, 1], np.float32))


def crossing(kind: str) -> tuple[Array, Array, Array, Array]:
    """Returns activations and inputs of the attacker, then activations and inputs of others."""
    rng = np.random.default_rng(4)
    inputs = rng.uniform(-1, 1, (130, 6)).astype(np.float32)
    seen = {
        "inputs": inputs,
        "mixed": inputs @ rng.standard_normal((6, 9)).astype(np.float32),
        "bent": np.concatenate([np.sin(4 * inputs), np.cos(4 * inputs)], axis=1),
        "random": rng.standard_normal((130, 9)).astype(np.float32),
        "constant": np.ones((130, 9), np.float32),
    }[kind]
    return seen[:80], inputs[:80], seen[80:], inputs[80:]


@pytest.mark.parametrize("kind", ["mixed", "bent"])
def test_the_inverter_is_the_best_of_scikit_learns_kernel_ridges(kind: str) -> None:
    own, inputs, seen, _ = crossing(kind)
    middle, guess = own.mean(axis=0), inputs.mean(axis=0, dtype=np.float64)
    x, y = (own - middle).astype(np.float64), inputs - guess
    apart = np.square(x[:, None] - x[None]).sum(axis=2)
    width = np.median(apart[np.triu_indices(80, 1)])
    kinds = {"linear": np.trace(x @ x.T) / 80, "rbf": 1.0}
    tried = []
    for kernel, scale in kinds.items():
        for ridge in (1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0):
            one = KernelRidge(kernel=kernel, gamma=1 / width, alpha=ridge * scale)
            error = np.square(one.fit(x[:64], y[:64]).predict(x[64:]) - y[64:]).mean()
            tried.append((error, one))
    best = min(tried, key=lambda each: each[0])[1]
    expected = best.fit(x, y).predict((seen - middle).astype(np.float64)) + guess
    np.testing.assert_allclose(inverted(own, inputs, seen), expected, atol=2e-3)


def test_both_ends_of_the_scale() -> None:
    for kind in ("inputs", "mixed"):
        own, inputs, seen, secret = crossing(kind)
        rebuilt = inverted(own, inputs, seen)
        assert np.square(rebuilt - secret).mean() < 1e-4
        assert recognised(rebuilt, secret) == 1.0
    for kind in ("random", "constant"):
        own, inputs, seen, secret = crossing(kind)
        rebuilt = inverted(own, inputs, seen)
        guess = np.square(inputs.mean(axis=0) - secret).mean()
        assert np.square(rebuilt - secret).mean() > 0.95 * guess
        assert recognised(rebuilt, secret) <= 3 / 50
    assert recognised(rebuilt, secret) == pytest.approx(1 / 50), "a constant recognises one of all"


def test_what_bends_needs_the_gaussian_kernel() -> None:
    inputs = np.random.default_rng(6).uniform(-2.5, 2.5, (200, 2)).astype(np.float32)
    seen = np.concatenate([np.sin(inputs), np.cos(inputs)], axis=1)
    own, known, secret = seen[:150], inputs[:150], inputs[150:]
    straight, *_ = np.linalg.lstsq(own, known, rcond=None)
    error = np.square(inverted(own, known, seen[150:]) - secret).mean()
    assert error < 0.05 * np.square(seen[150:] @ straight - secret).mean()


def test_recognition_is_brute_forces_and_ties_are_shared() -> None:
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((40, 3)).astype(np.float32)
    rebuilt = (inputs + rng.standard_normal((40, 3))).astype(np.float32)
    away = np.square(rebuilt[:, None].astype(np.float64) - inputs[None]).sum(axis=2)
    assert recognised(rebuilt, inputs) == pytest.approx(float((away.argmin(axis=1) == np.arange(40)).mean()))
    twins = np.repeat(inputs[:20], 2, axis=0)
    assert recognised(twins, twins) == 0.5


def test_a_handful_of_records_teaches_nothing() -> None:
    few = np.zeros((9, 2), np.float32)
    with pytest.raises(ValueError, match="9 records are too few"):
        inverted(few, few, few)
