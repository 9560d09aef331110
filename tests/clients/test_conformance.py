"""Conformance of a site: correct code passes, and every defect that production is patched with is found."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import clients.agent
import clients.clipping
import clients.release_path
import clients.training
import privacy.dp.mechanism
import privacy.dp.plan
from clients.conformance import check_release_paths, conform
from clients.float_noise import add_gaussian
from clients.training import GradientSource, Steps, private_gradient, train
from clients.work import Site
from privacy.conformance import sampling, statements
from privacy.conformance.tests import expected
from privacy.dp.events import Arithmetic, Sampling, SamplingType
from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy, poisson_mask, rounded_gaussian_exact
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import PrivacyError
from strategies.contribution import Vector
from strategies.task import ModelSpec
from tests.clients.example import Keys, plan, records, site
from tests.clients.test_release_path import DISTRIBUTED, SITE, SUMMED_RECORDS

FULL = replace(plan(), arithmetic=Arithmetic.INTEGER_EXACT)
POISSON = replace(plan(rate="0.3"), arithmetic=Arithmetic.INTEGER_EXACT)
WIDE = ModelSpec("mlp", hidden=(1000,), init="torch")
Patch = Callable[[pytest.MonkeyPatch], None]
Noise = Callable[[Any, int, Entropy], NDArray[np.int64]]


def patients() -> Site:
    data = replace(records(24), patient=np.repeat(np.arange(12), 2))
    return site(private=replace(POISSON, unit=Unit.PATIENT), data=data)


SITES: dict[str, Callable[[], Site]] = {
    "full": lambda: site(private=FULL),
    "poisson": lambda: site(private=POISSON),
    "float": lambda: site(private=replace(POISSON, arithmetic=Arithmetic.FLOAT), model=WIDE),
    "patients": patients,
    "site": lambda: site(sum_plan=SITE),
    "distributed": lambda: site(sum_plan=DISTRIBUTED),
    "distributed records": lambda: site(sum_plan=SUMMED_RECORDS),
    "both": lambda: site(private=POISSON, sum_plan=DISTRIBUTED),
}


@pytest.mark.parametrize("kind", SITES)
def test_correct_code_makes_exactly_the_tests_that_belong_to_it_and_passes(kind: str) -> None:
    found = conform(SITES[kind](), Keys(kind))
    assert [entry.placement for entry in found] == {
        "site": ["central"],
        "distributed": ["distributed"],
        "distributed records": ["distributed"],
        "both": ["local", "distributed"],
    }.get(kind, ["local"])
    for entry in found:
        assert entry.failed == ()
        assert all(fired for _, fired in entry.controls)
        poisson, noised = entry.placement == "local" and kind != "full", entry.placement != "central"
        names = [(each.test, each.name) for each in entry.tests]
        assert len(names) == len(set(names))
        assert set(names) == expected(entry.placement, entry.path, poisson=poisson, noised=noised)
        assert entry.path == ("float" if kind == "float" else "integer")


def test_a_site_without_noise_of_its_own_has_nothing_to_say() -> None:
    assert check_release_paths(site(), Keys()) == b""


@pytest.mark.parametrize(
    ("rate", "tested"), [("0.000001", "0.02"), ("0.02", "0.02"), ("0.5", "0.5"), ("0.999", "0.98")]
)
def test_rates_out_of_reach_are_tested_at_the_nearest_that_is_not(rate: str, tested: str) -> None:
    assert sampling.within_reach(Decimal(rate)) == Decimal(tested)
    assert sampling.n_units(float(tested)) <= 1232
    one = replace(POISSON, sampling=Sampling(SamplingType.POISSON, Decimal(rate)))
    (found,) = conform(site(private=one), Keys(rate))
    assert found.failed == ()


def test_no_record_of_the_site_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_arguments: object) -> None:
        pytest.fail("a record was read")

    one = site(private=POISSON)
    monkeypatch.setattr(
        type(one.records), "take", lambda self, rows: read() if self is one.records else TAKE(self, rows)
    )
    conform(one, Keys())


TAKE = type(records()).take

# Defects, as patches of the code that trains


def noise(instead: Noise, *, gaussian: Callable[..., None] | None = None) -> Patch:
    def patch(to: pytest.MonkeyPatch) -> None:
        for module in (privacy.dp.mechanism, privacy.dp.plan):  # at a site, and on an opened sum
            to.setattr(module, "rounded_gaussian_exact", instead)
        to.setattr(privacy.dp.plan, "skellam_exact", lambda v, n, e: _skellam(instead, v, n, e))
        if gaussian is not None:
            to.setattr(clients.clipping, "add_gaussian", gaussian)

    return patch


def _skellam(instead: Noise, variance: int, size: int, entropy: Entropy) -> NDArray[np.int64]:
    return instead(float(variance) ** 0.5, size, entropy)


def clipping(constrain: Callable[[ClippedSum, NDArray[np.float64]], NDArray[np.int64]], **floating: Any) -> Patch:
    def patch(to: pytest.MonkeyPatch) -> None:
        to.setattr(ClippedSum, "constrain", constrain)
        for name, value in floating.items():
            to.setattr(clients.clipping, name, value)

    return patch


def unclipped(mechanism: ClippedSum, rows: NDArray[np.float64]) -> NDArray[np.int64]:
    finite = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    sums = np.trunc(finite * (mechanism.grid / mechanism.clip)).sum(axis=0)
    return np.asarray(np.clip(sums, -(2.0**62), 2.0**62).astype(np.int64))


def batch_clipped(mechanism: ClippedSum, rows: NDArray[np.float64]) -> NDArray[np.int64]:
    total = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0).sum(axis=0)
    factor = min(1.0, mechanism.clip / max(float(np.linalg.norm(total)), 1e-300))
    return np.asarray(np.trunc(total * factor * (mechanism.grid / mechanism.clip)).astype(np.int64))


def propagated(mechanism: ClippedSum, rows: NDArray[np.float64]) -> NDArray[np.int64]:
    with np.errstate(all="ignore"):
        norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        clipped = rows * np.minimum(1.0, mechanism.clip * (1 - 1e-9) / np.maximum(norms, 1e-300))
        return np.asarray(np.trunc(clipped * (mechanism.grid / mechanism.clip)).astype(np.int64).sum(axis=0))


def no_norms(parts: Sequence[Any]) -> torch.Tensor:
    return torch.full((len(parts[0].norms()),), 1e-300, dtype=torch.float64)


def masks(mask: Callable[[float, int, Entropy], NDArray[np.bool_]]) -> Patch:
    return lambda to: to.setattr(clients.training, "poisson_mask", mask)


def fixed_size(rate: float, size: int, entropy: Entropy) -> NDArray[np.bool_]:
    places = np.random.default_rng(int.from_bytes(entropy(16), "big")).permutation(size)
    return np.asarray(places < round(rate * size))


def seeded(rate: float, size: int, entropy: Entropy) -> NDArray[np.bool_]:
    entropy(16)
    return np.asarray(np.random.default_rng(42).random(size) < rate)


def batch_denominator(to: pytest.MonkeyPatch) -> None:
    taken = list[int]()

    def mask(rate: float, size: int, entropy: Entropy) -> NDArray[np.bool_]:
        found = poisson_mask(rate, size, entropy)
        taken.append(int(found.sum()))
        return found

    def of_batch(data: Any, of: RecordPlan, *, entropy: Entropy) -> GradientSource:
        gradient = private_gradient(data, of, entropy=entropy)

        def divided(model: torch.nn.Module, step: int) -> None:
            gradient(model, step)
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= of.expected_batch / max(taken[-1], 1)

        return divided

    to.setattr(clients.training, "poisson_mask", mask)
    to.setattr(clients.release_path, "private_gradient", of_batch)


def twice(to: pytest.MonkeyPatch) -> None:
    def trained(model: torch.nn.Module, start: Vector, steps: Steps, gradient: GradientSource) -> Vector:
        def again(inner: torch.nn.Module, step: int) -> None:
            gradient(inner, step)
            if step == steps.first:
                gradient(inner, step)

        return train(model, start, steps, again)

    to.setattr(clients.agent, "train", trained)


def short_key(entropy: Entropy) -> Entropy:
    return lambda n_bytes: (entropy(n_bytes)[:4] * n_bytes)[:n_bytes]


def gaussian_of(share: float) -> Callable[..., None]:
    return lambda total, sigma, entropy: add_gaussian(total, max(share * sigma, 1e-30), entropy)


DEFECTS: dict[str, tuple[Patch, str, tuple[str, ...]]] = {
    "noise off": (
        noise(lambda _s, n, e: np.zeros(n, np.int64) * len(e(32)), gaussian=gaussian_of(0.0)),
        "A1",
        ("full", "poisson", "float", "distributed"),
    ),
    "noise halved": (
        noise(lambda s, n, e: rounded_gaussian_exact(s / 2, n, e), gaussian=gaussian_of(0.5)),
        "A1",
        ("distributed", "full", "poisson", "float"),
    ),
    "noise 5 % less": (
        noise(lambda s, n, e: rounded_gaussian_exact(float(s) * 0.95, n, e), gaussian=gaussian_of(0.95)),
        "A1",
        ("poisson", "full", "float", "distributed"),
    ),
    "noise 5 % more": (
        noise(lambda s, n, e: rounded_gaussian_exact(float(s) * 1.05, n, e), gaussian=gaussian_of(1.05)),
        "A1",
        ("float", "full", "distributed"),
    ),
    "uniform noise of the same scale": (noise(lambda s, n, e: _uniform(float(s), n, e)), "A2", ("full", "distributed")),
    "seed fixed": (
        noise(
            lambda s, n, _entropy: rounded_gaussian_exact(s, n, bytes),
            gaussian=lambda total, sigma, _entropy: add_gaussian(total, sigma, bytes),
        ),
        "A3",
        ("distributed", "full", "poisson", "float"),
    ),
    "key of 32 bits": (
        noise(
            lambda s, n, e: rounded_gaussian_exact(s, n, short_key(e)),
            gaussian=lambda total, sigma, entropy: add_gaussian(total, sigma, short_key(entropy)),
        ),
        "A3",
        ("float", "full", "poisson", "distributed"),
    ),
    "clipping off": (
        clipping(unclipped, norms_over=no_norms),
        "A4",
        ("float", "full", "poisson", "site", "distributed", "distributed records"),
    ),
    "clipping of the batch": (clipping(batch_clipped), "A4", ("distributed records", "full", "poisson")),
    "a record that is no number": (clipping(propagated), "A4", ("site", "full", "poisson", "distributed")),
    "batches of a fixed size": (masks(fixed_size), "A6", ("poisson", "float")),
    "a mask from the seed": (masks(seeded), "A3", ("poisson", "float")),
    "the denominator is the batch": (batch_denominator, "A5", ("poisson", "float")),
    "an execution that nobody counts": (twice, "A8", ("full", "poisson", "float")),
}
"""The patch, the test that is there for it, and the sites where it can be made; the first in every run of the tests."""


def _uniform(sigma: float, size: int, entropy: Entropy) -> NDArray[np.int64]:
    generator = np.random.default_rng(int.from_bytes(entropy(32), "big"))
    return np.asarray(np.rint(generator.uniform(-1, 1, size) * sigma * 3**0.5).astype(np.int64))


CASES = [(defect, kind) for defect, (_, _, kinds) in DEFECTS.items() for kind in kinds]


def is_found(defect: str, kind: str, to: pytest.MonkeyPatch, salt: str) -> bool:
    one, (patch, test, _) = SITES[kind](), DEFECTS[defect]
    with to.context() as patched:
        patch(patched)
        return test in {each.test for entry in conform(one, Keys(salt)) for each in entry.failed}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_found(defect, DEFECTS[defect][2][0], monkeypatch, "one seed")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("defect", "kind"), CASES)
def test_a_defect_is_found_20_times_of_20(defect: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(is_found(defect, kind, monkeypatch, f"seed {number}") for number in range(20))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["full", "poisson", "float", "site", "distributed"])
def test_correct_code_passes_998_times_of_1000(kind: str) -> None:
    one = SITES[kind]()
    passed = [not any(entry.failed for entry in conform(one, Keys(f"{kind} {number}"))) for number in range(1000)]
    assert sum(passed) >= 998


def test_what_is_wrong_is_said_and_nothing_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    twice(monkeypatch)
    with pytest.raises(PrivacyError, match="va takes no part: its local noise fails A8, events and noise calls"):
        statements.stated(conform(site(private=FULL), Keys()), who="va")


def test_a_control_that_finds_nothing_is_said() -> None:
    (found,) = conform(site(private=FULL), Keys())
    blind = replace(found, controls=(("noise off", False),))
    with pytest.raises(PrivacyError, match="its tests of local noise do not find noise off"):
        statements.stated([blind], who="va")


class Unasked:
    """Somebody else's agent, without noise of its own, which must not see its records before a run begins."""

    offers: ClassVar[frozenset[str]] = frozenset({"distributed"})
    plan: RecordPlan | None = None

    def __init__(self, training: Any) -> None:
        self.training = training

    def train(self, _start: Vector, _work: Any) -> Vector:
        raise AssertionError("a test on made-up data trained on the site's records")


def test_somebody_elses_agent_is_not_trained_for_a_test() -> None:
    one = site(sum_plan=DISTRIBUTED)
    (found,) = conform(replace(one, agent=Unasked(one.agent.training)), Keys("foreign"))
    assert not found.failed
