"""What a party reads off the values that cross a cut: labels from gradients, inputs from activations.

Attacks, so what they find is a lower bound: a better attack finds more, and silence proves nothing.

The label attacks are those of split learning with one label a record: a record's gradient at the cut is larger for the
rarer class, and points one way for one class and another way for another. The inverter is kernel ridge regression from
activations to inputs, linear or with a Gaussian kernel, whichever does better on a fifth of the attacker's own records:
it has no steps or rates to choose, and one solution.

Symbols: ``n`` records whose owner is attacked, ``k`` of the attacker's own, ``d`` numbers that cross, ``m`` inputs.

See: Li et al., ICLR 2022, "Label Leakage and Protection in Two-party Split Learning", sections 3.2 and 3.3; Saunders et
al., ICML 1998 (kernel ridge regression).
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Array: TypeAlias = npt.NDArray[np.float32]
_Doubles: TypeAlias = npt.NDArray[np.float64]

_RIDGES = np.array([1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0])  # times the mean of the kernel's diagonal
_LEAST = 1e-12  # where all records look alike
_KEPT_BACK = 5  # one of so many of the attacker's records chooses kernel and ridge


def norm_auc(gradients: Array, labels: Array) -> float:
    """Returns how well the lengths of gradients tell a class from all others.

    Args:
      gradients: Of each record's own loss, shape ``(n, d)``. Secret.
      labels: Shape ``(n,)``. Secret.

    Returns: The area under the ROC curve, mean over the classes. The attacker knows which side is the longer one, so it
      lies from 0.5, which is guessing, to 1.
    Raises: ValueError: Fewer than two classes.
    """
    classes = _classes(labels)
    lengths = np.linalg.norm(gradients.astype(np.float64), axis=1)
    areas = _areas(np.tile(lengths, (classes.size, 1)), labels == classes[:, None])
    return float(np.maximum(areas, 1 - areas).mean())


def cosine_auc(gradients: Array, labels: Array) -> float:
    """Returns how well directions tell a class from all others, for an attacker who knows one record's label.

    Each record in turn is the known one, and all others are ranked by the cosine of their gradients with its own.

    Args:
      gradients: Of each record's own loss, shape ``(n, d)``; a cosine with zero is zero. Secret.
      labels: Shape ``(n,)``. Secret.

    Returns: The area under the ROC curve, from 0 to 1, mean over the known records of a class, then over the classes of
      at least two records; 0.5 is guessing.
    Raises: ValueError: Fewer than two classes, or none with two records.
    """
    classes = _classes(labels)
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    unit = gradients / np.where(lengths > 0, lengths, 1)
    others = ~np.eye(len(labels), dtype=np.bool_)
    cosines = (unit @ unit.T)[others].reshape(len(labels), -1)
    same = (labels == labels[:, None])[others].reshape(cosines.shape)
    areas = _areas(cosines, same)
    means = [areas[labels == each].mean() for each in classes if np.count_nonzero(labels == each) > 1]
    if not means:
        raise ValueError("no class has two records")
    return float(np.mean(means))


def inverted(own: Array, inputs: Array, seen: Array) -> Array:
    """Rebuilds inputs from what crossed, by what the attacker learnt on records of its own.

    Args:
      own: What its own records give at the cut, shape ``(k, d)``.
      inputs: These records, shape ``(k, m)``.
      seen: What crossed, shape ``(n, d)``. Secret.

    Returns: Shape ``(n, m)``.
    Raises: ValueError: Fewer than ten records of its own.
    """
    k = len(own)
    if k < 10:
        raise ValueError(f"{k} records are too few to learn from")
    middle, guess = own.mean(axis=0), inputs.mean(axis=0, dtype=np.float64)
    kernels = _kernels(own - middle, seen - middle)
    targets, n_fit = inputs - guess, k - k // _KEPT_BACK
    choices: list[tuple[float, int, float]] = []
    for index, (among, _) in enumerate(kernels):
        for ridge in (_RIDGES * max(float(np.trace(among)) / k, _LEAST)).tolist():
            fit = _fitted(among[:n_fit, :n_fit], targets[:n_fit], ridge)
            choices.append((float(np.square(among[n_fit:, :n_fit] @ fit - targets[n_fit:]).mean()), index, ridge))
    _, index, ridge = min(choices)
    among, across = kernels[index]
    return np.asarray(across @ _fitted(among, targets, ridge) + guess, np.float32)


def recognised(rebuilt: Array, inputs: Array) -> float:
    """Returns how often a rebuilt record is nearer to its own inputs than to those of all others; ties count in part.

    Args:
      rebuilt: Shape ``(n, m)``.
      inputs: Shape ``(n, m)``. Secret.

    Returns: From 0 to 1; guessing gives ``1 / n``.
    """
    away = _squares(rebuilt.astype(np.float64), inputs.astype(np.float64))
    own = np.diagonal(away)[:, None]
    slack = 1e-9 * (own + 1e-12)  # rounding must not decide between equal records
    return float(np.where((away < own - slack).any(axis=1), 0.0, 1 / (away <= own + slack).sum(axis=1)).mean())


def _classes(labels: Array) -> Array:
    classes = np.unique(labels)
    if classes.size < 2:
        raise ValueError("labels of one class have nothing to tell apart")
    return classes


def _areas(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> _Doubles:
    """Returns the area under the ROC curve of each row of scores, by ranks; one half where a side is empty."""
    there = positive.sum(axis=1)
    pairs = there * (positive.shape[1] - there)
    won = (rankdata(scores, axis=1) * positive).sum(axis=1) - there * (there + 1) / 2
    return np.asarray(np.where(pairs > 0, won / np.maximum(pairs, 1), 0.5), np.float64)


def _kernels(own: Array, seen: Array) -> list[tuple[_Doubles, _Doubles]]:
    """Returns, linear and Gaussian, the kernel among one's own, ``(k, k)``, and across to what is seen, ``(n, k)``."""
    among, across = (own @ own.T).astype(np.float64), (seen @ own.T).astype(np.float64)
    lengths = np.diagonal(among)
    between = np.maximum(lengths[:, None] + lengths - 2 * among, 0)
    width = float(np.median(between[np.triu_indices(len(own), 1)])) or 1.0
    apart = np.maximum(np.square(seen).sum(axis=1, dtype=np.float64)[:, None] + lengths - 2 * across, 0)
    return [(among, across), (np.exp(-between / width), np.exp(-apart / width))]


def _fitted(kernel: _Doubles, targets: _Doubles, ridge: float) -> _Doubles:
    return np.asarray(np.linalg.solve(kernel + ridge * np.eye(len(kernel)), targets), np.float64)


def _squares(first: _Doubles, second: _Doubles) -> _Doubles:
    """Returns squared distances between rows."""
    lengths = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * first @ second.T, 0), np.float64)
