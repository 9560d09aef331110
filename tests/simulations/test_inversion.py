"""Gradient inversion: exact in the clear, no better than a guess behind what protects, and again exact without that."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients.records import encode
from privacy.audit import schemas
from privacy.dp.mechanism import RoundedGaussianSum
from privacy.dp.plan import DistributedPlan
from privacy.errors import ConfigError
from privacy.secagg import client
from simulations.audit import inversion as attack
from simulations.audit.inversion import Inversion, inversion, inverted
from simulations.audit.made_up_record import Scale, Values, drawn, glyph, picture_of
from simulations.job import Job, resolve
from simulations.options import Options, parse_settings
from strategies.parts import Division
from strategies.task import Feature, ModelSpec, SiteId

EXACT = 1e-6
MARGIN = 10**-0.1  # 1 dB
SIZES = {SiteId(site): size for site, size in {"cleveland": 199, "hungarian": 172, "switzerland": 30, "va": 85}.items()}


@cache
def job(scenario: str = "hospitals", privacy: str = "none", *settings: str, secagg: bool = True) -> Job:
    return resolve(Options(scenario=scenario, privacy=privacy, secagg=secagg, settings=parse_settings(list(settings))))


def attacked(found: Job, seed: int = 1) -> Inversion:
    result = inversion(found, {site: SIZES.get(site, 100) for site in found.sites}, seed=seed)
    assert result is not None
    return result


def errors(found: Inversion) -> dict[str, float]:
    """Mean squared error of each view."""
    return {view: float(np.mean((values - found.record) ** 2)) for view, values in found.views.items()}


def nearest(found: Inversion) -> float:
    """Smallest error of a protected view, over that of the guess."""
    guessed = float(np.mean((found.guess - found.record) ** 2))
    return min(error for view, error in errors(found).items() if view != "clear") / guessed


def verdict(found: Inversion) -> str:
    schemas.check("privacy-audit-v1", found.claim, definition="audit_inversion")
    return str(found.claim["verdict"])


def dense(spec: ModelSpec) -> Job:
    return replace(job(), task=replace(job().task, model=spec))


@pytest.mark.parametrize(
    "found",
    [
        job(),
        job("hospitals", "distributed"),
        job("hospitals", "distributed", "unit=site"),
        job("hospitals-flamby"),
        dense(ModelSpec("mlp", (16,), "torch")),
        dense(ModelSpec("mlp", (8, 8), "torch", exits=True)),
    ],
    ids=["table", "distributed-record", "distributed-site", "own-scaling", "mlp", "exits"],
)
def test_a_record_is_read_in_the_clear_and_not_behind_masks_or_noise(found: Job) -> None:
    result = attacked(found)
    assert result.views.keys() == {"clear", "masked"} | ({"noised"} if found.privacy else set())
    assert errors(result)["clear"] < EXACT
    assert nearest(result) > MARGIN
    assert verdict(result) == "no violation"
    assert result.fields == Scale.of(found.task).names
    assert (result.form, result.width) == ("table", 1)
    assert result.record.size == result.guess.size == len(result.fields)


def test_pictures_are_shown_as_pictures() -> None:
    result = attacked(job("digits-depth"))
    assert (result.form, result.fields, result.width, result.record.size) == ("image", (), 8, 64)
    assert errors(result)["clear"] < EXACT
    assert verdict(result) == "no violation"


def test_noise_in_every_step_hides_a_record_and_its_absence_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = job("hospitals", "record", secagg=False)
    assert nearest(attacked(found)) > MARGIN

    def silent(_self: object, size: int, _entropy: object) -> Any:
        return np.zeros(size, np.int64)

    monkeypatch.setattr(RoundedGaussianSum, "noise", silent)
    broken = attacked(found)
    assert errors(broken)["noised"] < EXACT
    assert verdict(broken) == "violation"


def test_shares_of_noise_hide_a_record_and_their_absence_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "_masked", lambda one, *_: np.random.default_rng(0).normal(0, 2**40, one.initial.size))
    monkeypatch.setattr(DistributedPlan, "share", lambda _self, size, *_: np.zeros(size, np.int64))
    for found in (job("hospitals", "distributed"), job("hospitals", "distributed", "unit=site")):
        assert verdict(attacked(found)) == "violation"


def test_masks_hide_a_record_and_their_absence_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(*_: object) -> None:
        """Adds no mask."""

    monkeypatch.setattr(client, "apply_streams", bare)
    assert verdict(attacked(job())) == "violation"


def test_an_attack_that_reads_nothing_in_the_clear_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "_in_the_clear", lambda one, *_: np.zeros(one.initial.size))
    assert verdict(attacked(job())) == "inconclusive"


def test_the_noise_is_that_of_the_site_with_least(monkeypatch: pytest.MonkeyPatch) -> None:
    found = job("hospitals", "record")
    plan = found.record_plan(found.sites[0], 100)
    assert plan is not None
    monkeypatch.setattr(Job, "record_plan", lambda _self, _site, n: replace(plan, noise_multiplier=Decimal(n)))
    least = attack._least_noise(found, SIZES)
    assert least is not None
    assert least.noise_multiplier == min(SIZES.values())


def test_what_cannot_be_attacked_or_compared_says_so() -> None:
    with pytest.raises(ConfigError, match="convolution"):
        attacked(job("digits"))
    assert inversion(job(secagg=False), SIZES, seed=1) is None
    assert inversion(job("hospitals", "site"), SIZES, seed=1) is not None


def test_who_holds_which_part_does_not_matter() -> None:
    found = job("hospitals-parts")
    assert found.division != Division()
    assert verdict(attacked(found)) == "no violation"


# The attack alone


def read(gradient: Values, h: int, n: int, bound: float) -> Values:
    return inverted(gradient, (h, n), bound, mean=np.full(n, 0.25), variance=np.full(n, 1 / 3))


def test_without_noise_it_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    weights, biases = rng.normal(size=(6, 9)), rng.normal(size=6)
    expected = np.linalg.lstsq(biases[:, None], weights, rcond=None)[0][0]
    gradient = np.concatenate([weights.ravel(), biases, rng.normal(size=20)])
    np.testing.assert_allclose(read(gradient, 6, 9, bound=100.0), expected)


def test_with_noise_it_fits_what_the_biases_leave_possible() -> None:
    """Against least squares over many δ drawn from what a bias says about each, the prior as one more row."""
    rng = np.random.default_rng(0)
    h, n, bound = 4, 3, 2.0
    gradient = rng.normal(size=h * n + h)
    gradient *= 3.0 / np.linalg.norm(gradient)
    noise, prior = (3.0**2 - bound**2) / gradient.size, bound**2 / gradient.size
    posterior = 1 / (1 / noise + 1 / prior)
    back = gradient[h * n :] * posterior / noise + np.sqrt(posterior) * rng.normal(size=(100_000, h))
    weight = 1 / np.sqrt(noise * len(back))
    design = np.append(back.ravel() * weight, 1 / np.sqrt(1 / 3))
    rows = np.tile(gradient[: h * n].reshape(h, n), (len(back), 1)) * weight
    expected = np.linalg.lstsq(design[:, None], np.vstack([rows, np.full(n, 0.25 / np.sqrt(1 / 3))]), rcond=None)[0][0]
    np.testing.assert_allclose(read(gradient, h, n, bound), expected, atol=2e-3)


def test_it_comes_nearer_to_the_guess_the_more_noise_there_is() -> None:
    rng = np.random.default_rng(0)
    n, h = 400, 4
    x, back, noise = rng.uniform(-1, 1, n), rng.normal(size=h), rng.normal(size=h * n + h)
    gradient = np.concatenate([np.outer(back, x).ravel(), back])
    bound = float(np.linalg.norm(gradient))
    found = [read(gradient + scale * noise, h, n, bound) for scale in (0.0, 0.1, 1.0, 10.0, 1000.0)]
    from_truth = [float(np.mean((each - x) ** 2)) for each in found]
    from_guess = [float(np.mean((each - 0.25) ** 2)) for each in found]
    assert from_truth[0] < 1e-25
    assert from_truth[0] < from_truth[1] < float(np.var(x)) / 10  # weak noise does not protect
    assert from_guess == sorted(from_guess, reverse=True)
    assert from_guess[-1] < 1e-6


@pytest.mark.parametrize("scale", [2.0, 15.0, 2.0**43])
@pytest.mark.parametrize("h", [1, 16])
def test_noise_alone_is_never_read_as_a_record(scale: float, h: int) -> None:
    """A correct run must not be told that it leaks: 1,000 draws, none nearer than the guess by the margin."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        x, noise = rng.uniform(-1, 1, 13), rng.normal(0, scale, h * 13 + h)
        found = np.clip(read(noise, h, 13, bound=1.0), -1, 1)
        assert np.sum((found - x) ** 2) > MARGIN * np.sum((0.25 - x) ** 2)


# The record


def test_a_drawn_record_lies_where_the_encoding_can_put_one() -> None:
    """Against the code that encodes real tables, at both ends of every range."""
    task = job().task
    scale, raw = Scale.of(task), task.features
    low = {each.name: each.categories[0] if each.categories else each.low for each in raw}
    high = {each.name: each.categories[-1] if each.categories else each.high for each in raw}
    ends = encode(pd.DataFrame([low, high]).assign(num=0), task, where="ends").x
    plain = [k for k, name in enumerate(scale.names) if "=" not in name]
    np.testing.assert_allclose(ends[:, plain], np.stack([scale.low, scale.high])[:, plain], rtol=1e-6)
    records = np.stack([drawn(task, np.random.default_rng(seed)) for seed in range(4000)])
    encoded = scale.low + (scale.high - scale.low) * records
    np.testing.assert_allclose(encoded.mean(axis=0), scale.mean, atol=0.15)
    np.testing.assert_allclose(encoded.var(axis=0), scale.variance, rtol=0.15)
    of_pain = records[:, [name.startswith("cp =") for name in scale.names]]
    assert set(of_pain.sum(axis=1)) == {0.0, 1.0}  # one category of four, the first of which has no input


def test_values_are_fractions_of_the_range() -> None:
    scale = Scale.of(job().task)
    values = np.linspace(0, 1, scale.low.size)
    np.testing.assert_allclose(scale.values(scale.encoded(values).x[0].astype(np.float64)), values, atol=1e-6)
    np.testing.assert_array_equal(scale.values(scale.high + 1), 1.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda task: task, (8, 8)),
        (lambda task: replace(task, features=task.features[:-1]), None),
        (lambda task: replace(task, features=(*task.features[:-1], Feature("other", "continuous"))), None),
        (lambda task: replace(task, features=tuple(Feature(str(k), "binary") for k in range(64))), None),
        (lambda task: replace(task, model=ModelSpec("cnn", (4,), "torch", image=(4, 4, 4))), (16, 4)),
    ],
)
def test_what_counts_as_a_picture(change: Callable[[Any], Any], expected: tuple[int, int] | None) -> None:
    assert picture_of(change(job("digits-depth").task)) == expected


def test_a_drawn_picture_has_light_and_dark() -> None:
    drawing = glyph(28, 28, np.random.default_rng(0)).reshape(28, 28)
    assert drawing.min() == 0
    assert drawing.max() > 0.9
    assert 0.05 < drawing.mean() < 0.5
