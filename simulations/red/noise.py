"""Members whose release paths are broken: noise, keys, clipping, sampling, denominators."""

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clients.records import Records
from clients.training import private_gradient
from privacy.dp.mechanism import ClippedSum, RoundedGaussianSum
from privacy.dp.noise import Entropy, poisson_mask
from privacy.dp.plan import RecordPlan
from privacy.errors import SensitivityError
from simulations.red.member import BrokenRun
from simulations.red.patching import swapped, wrapped

Units = npt.NDArray[np.int64]
Patch = Callable[[], AbstractContextManager[None]]

_SEED = 42
_POISSON = {"settings": {"batch": "32"}}


def _noise(change: Callable[[Units], Units]) -> Patch:
    return lambda: wrapped(
        RoundedGaussianSum, "noise", lambda noise: lambda self, size, entropy: change(noise(self, size, entropy))
    )


def _keys(other: Callable[[Entropy], Entropy]) -> Patch:
    return lambda: wrapped(
        RoundedGaussianSum, "noise", lambda noise: lambda self, size, entropy: noise(self, size, other(entropy))
    )


def _from_seed() -> AbstractContextManager[None]:
    generator = np.random.default_rng(_SEED)
    return _keys(lambda _entropy: generator.bytes)()


def _equal_at_sites() -> AbstractContextManager[None]:
    drawn: Counter[int] = Counter()

    def around(noise: Any) -> Callable[..., Units]:
        def equal(self: RoundedGaussianSum, size: int, _entropy: Entropy) -> Units:
            drawn[id(self)] += 1
            key = hashlib.sha256(f"{size} {drawn[id(self)]}".encode()).digest()
            return np.asarray(noise(self, size, lambda n: key[:n]))

        return equal

    return wrapped(RoundedGaussianSum, "noise", around)


def _unclipped(self: ClippedSum, per_record: npt.NDArray[np.float64]) -> Units:
    whole = np.asarray(np.isfinite(per_record).all(axis=1))
    finite = np.where(whole[:, None], per_record, 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.trunc(finite * (self.grid / self.clip)).astype(np.int64).sum(axis=0))


def _clipping(around: Callable[[Any], Callable[..., Units]]) -> Patch:
    return lambda: wrapped(ClippedSum, "constrain", around)


def _by_batch(constrain: Any) -> Callable[..., Units]:
    return lambda self, per_record: np.asarray(constrain(self, per_record.sum(axis=0, keepdims=True)))


def _aborting(constrain: Any) -> Callable[..., Units]:
    def abort(self: ClippedSum, per_record: npt.NDArray[np.float64]) -> Units:
        if not np.isfinite(per_record).all():
            raise SensitivityError("a gradient is not finite")
        return np.asarray(constrain(self, per_record))

    return abort


def _tenth_short(drawn: Units) -> Units:
    return np.asarray(np.rint(0.9 * drawn).astype(np.int64))


def _fixed() -> AbstractContextManager[None]:
    def chosen(rate: float, n_records: int, entropy: Entropy) -> npt.NDArray[np.bool_]:
        order = np.random.default_rng(list(entropy(32))).permutation(n_records)
        return np.asarray(order < round(rate * n_records))

    return swapped(poisson_mask, chosen)


def _predictable() -> AbstractContextManager[None]:
    generator = np.random.default_rng(_SEED)
    return swapped(poisson_mask, lambda rate, n_records, _entropy: poisson_mask(rate, n_records, generator.bytes))


def _actual_batch() -> AbstractContextManager[None]:
    def divided(records: Records, plan: RecordPlan, *, entropy: Entropy) -> Callable[[nn.Module, int], None]:
        sizes: list[int] = []

        class Counted(Records):
            def of_units(self, chosen: npt.NDArray[np.bool_]) -> tuple[Records, list[int] | None]:
                sizes.append(max(1, int(chosen.sum())))
                return super().of_units(chosen)

        gradient = private_gradient(Counted(records.x, records.y, records.patient), plan, entropy=entropy)

        def per_batch(model: nn.Module, step: int) -> None:
            gradient(model, step)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(plan.expected_batch / sizes[-1])

        return per_batch

    return swapped(private_gradient, divided)


_OFF, _HALVED = _noise(lambda drawn: 0 * drawn), _noise(lambda drawn: drawn // 2)
_REUSED = _keys(lambda _entropy: bytes)
_UNCLIPPED = _clipping(lambda _constrain: _unclipped)

MEMBERS: tuple[BrokenRun, ...] = (
    BrokenRun("noise off", "no noise is added", _OFF),
    BrokenRun("noise halved", "noise has half the standard deviation", _HALVED),
    BrokenRun("noise a tenth short", "noise has nine tenths of it", _noise(_tenth_short)),
    BrokenRun("key reused", "all noise comes from one key", _REUSED),
    BrokenRun("noise from the seed", "keys come from a generator under --seed", _from_seed),
    BrokenRun("keys of 32 bits", "keys have four random bytes", _keys(lambda e: lambda n: e(4).ljust(n, b"\0"))),
    BrokenRun("equal noise at all sites", "sites draw the same keys, round by round", _equal_at_sites),
    BrokenRun("clipping off", "gradients enter the sum as long as they are", _UNCLIPPED),
    BrokenRun("clipping by batch", "the sum is clipped instead of each record", _clipping(_by_batch)),
    BrokenRun("abort on NaN", "a gradient that is no number stops the site", _clipping(_aborting)),
    BrokenRun(
        "fixed batches",
        "batches of one size, claimed as Poisson",
        _fixed,
        _POISSON,
    ),
    BrokenRun("predictable batches", "coins of the batches come from --seed", _predictable, _POISSON),
    BrokenRun("denominator of the batch", "sums are divided by how many records came up", _actual_batch, _POISSON),
    BrokenRun("noise off, tests silenced", "no noise, and the sites lie about their tests", _OFF, silenced=True),
    BrokenRun("noise halved, tests silenced", "half the noise, and the sites lie", _HALVED, silenced=True),
    BrokenRun("key reused, tests silenced", "one key, and the sites lie", _REUSED, silenced=True),
    BrokenRun("clipping off, tests silenced", "no clipping, and the sites lie", _UNCLIPPED, silenced=True),
)
