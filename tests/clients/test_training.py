"""Local training against closed forms: logistic regression by hand, per-record gradients one by one."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clients import clipping
from clients.batches import batch_at
from clients.clipping import INTEGER_PARAMETERS, Clipping, on_integer_path
from clients.float_noise import add_gaussian
from clients.records import Records
from clients.training import (
    Steps,
    arithmetic_of,
    check_private_model,
    integer_sum,
    plain_gradient,
    private_gradient,
    train,
)
from privacy.dp.events import Arithmetic, Sampling, SamplingType
from privacy.dp.mechanism import GRID
from privacy.dp.noise import poisson_mask, rounded_gaussian_exact
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.losses import record_losses
from strategies.models import build, load_vector, to_vector
from strategies.task import ModelSpec, Training
from tests.clients.example import (
    N_INPUTS,
    N_PARAMETERS,
    START,
    VA,
    Keys,
    clipped_sum,
    logistic_gradients,
    plan,
    records,
    task,
    vector,
)

ROOT = Path(__file__).parent.parent.parent
SETTINGS = task().training


def logistic() -> nn.Module:
    return build(ModelSpec("logistic"), N_INPUTS, seed=0)


def mlp() -> nn.Module:
    return build(ModelSpec("mlp", hidden=(4,), init="torch"), N_INPUTS, seed=3)


def wide() -> nn.Module:
    """One that is too large for the integer path."""
    return build(ModelSpec("mlp", hidden=(1100,), init="torch"), N_INPUTS, seed=3)


MODELS = pytest.mark.parametrize("model", [logistic, mlp, wide])


def trained(settings: Training = SETTINGS, *, proximal: float = 0.0, drift: Vector | None = None) -> Vector:
    steps = Steps(settings, 0, settings.local_steps, proximal, drift)
    return train(logistic(), START, steps, plain_gradient(records(), settings, site=VA, seed=1))


def by_hand(correction: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Full-batch gradient descent on logistic regression in float64; ``correction`` joins the gradient."""
    y = START.astype(np.float64)
    for _ in range(SETTINGS.local_steps):
        y = y - SETTINGS.learning_rate * (logistic_gradients(records(), y).mean(axis=0) + correction(y))
    return y


class TestSteps:
    def test_plain_steps_are_gradient_descent(self) -> None:
        np.testing.assert_allclose(trained(), by_hand(lambda y: 0.0 * y), rtol=1e-5)

    def test_the_proximal_term_pulls_back_to_the_start(self) -> None:
        # Large enough to matter; the first step is at the anchor, where the term is zero.
        expected = by_hand(lambda y: 0.8 * (y - START))
        assert np.abs(expected - by_hand(lambda y: 0.0 * y)).max() > 0.01
        np.testing.assert_allclose(trained(proximal=0.8), expected, rtol=1e-5)

    def test_the_drift_is_added_to_every_step(self) -> None:
        drift = vector(0.5, -1.0, 0.25, 2.0)
        np.testing.assert_allclose(trained(drift=drift), by_hand(lambda _: drift.astype(np.float64)), rtol=1e-5)

    def test_adam_is_kingma_and_bas(self) -> None:
        settings = replace(SETTINGS, optimizer="adam", learning_rate=0.05)
        y, first, second = START.astype(np.float64), np.zeros(N_PARAMETERS), np.zeros(N_PARAMETERS)
        for t in range(1, settings.local_steps + 1):
            gradient = logistic_gradients(records(), y).mean(axis=0)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            y = y - 0.05 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(trained(settings), y, rtol=1e-4)

    def test_batches_go_on_where_the_last_round_stopped(self) -> None:
        settings = replace(SETTINGS, batch=5)
        source = plain_gradient(records(), settings, site=VA, seed=1)
        y = START
        for first in (0, 3):
            y = train(logistic(), y, Steps(settings, first, 3), source)
        np.testing.assert_array_equal(y, train(logistic(), START, Steps(settings, 0, 6), source))

    def test_a_step_uses_exactly_the_batch_of_its_number(self) -> None:
        settings = replace(SETTINGS, batch=5)
        end = train(logistic(), START, Steps(settings, 4, 1), plain_gradient(records(), settings, site=VA, seed=9))
        chosen = records().take(batch_at(seed=9, site=VA, step=4, n_records=12, batch=5))
        gradient = logistic_gradients(chosen, START).mean(axis=0)
        np.testing.assert_allclose(end, START - settings.learning_rate * gradient, rtol=1e-5)

    def test_a_parameter_without_a_gradient_is_refused(self) -> None:
        class Idle(nn.Linear):
            def __init__(self) -> None:
                super().__init__(N_INPUTS, 1)
                self.idle = nn.Parameter(torch.zeros(2))

        steps = Steps(SETTINGS, 0, 1)
        with pytest.raises(ConfigError, match="takes no part"):
            train(Idle(), np.zeros(6, dtype=np.float32), steps, plain_gradient(records(), SETTINGS, site=VA, seed=1))

    def test_one_thread_gives_the_same_sums_in_every_engine(self) -> None:
        seen: list[int] = []

        def run() -> None:
            torch.set_num_threads(2)
            trained()
            seen.append(torch.get_num_threads())

        worker = threading.Thread(target=run)
        worker.start()
        worker.join()
        assert seen == [1]


def noisy_gradient(
    model: nn.Module, data: Records, private: RecordPlan, keys: Keys, start: Vector | None = None
) -> NDArray[np.float64]:
    """Takes one noisy gradient and returns it flat."""
    if start is not None:
        load_vector(model, start)
    private_gradient(data, private, entropy=keys)(model, 0)
    gradients = [parameter.grad for parameter in model.parameters()]
    return np.concatenate([gradient.numpy().ravel() for gradient in gradients if gradient is not None]).astype(float)


def noise_of(key: bytes, private: RecordPlan, size: int) -> NDArray[np.float64]:
    """The noise that a key gives, in gradient units: exact on the integer path, floating-point beyond it."""
    if size > INTEGER_PARAMETERS:
        entries = torch.zeros(size, dtype=torch.float64)
        add_gaussian(entries, float(private.noise_multiplier * private.clip), lambda _: key)
        return np.asarray(entries)
    units = rounded_gaussian_exact(private.noise_multiplier * GRID, size, lambda _: key)
    return units.astype(float) * (float(private.clip) / GRID)


def rounding(private: RecordPlan, data: Records) -> float:
    """Two grid units a record: torch's float32 gradients and our float64 ones may round to different ones."""
    return 2.0 * len(data) * float(private.clip) / GRID


def one_by_one(model: nn.Module, data: Records) -> NDArray[np.float64]:
    """Gradients of each record on its own, by plain autograd; shape ``(n, d)``."""
    rows = []
    for x, y in zip(torch.from_numpy(data.x), torch.from_numpy(data.y), strict=True):
        loss = binary_cross_entropy_with_logits(model(x[None]).squeeze(), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(np.concatenate([gradient.numpy().ravel() for gradient in gradients]))
    return np.array(rows, dtype=np.float64)


class TestPrivateGradient:
    @pytest.mark.parametrize("rate", ["1", "0.4"])
    @pytest.mark.parametrize("clip", ["0.7", "50"])
    def test_is_clipped_summed_noised_and_divided_by_the_expected_batch(self, rate: str, clip: str) -> None:
        data, private, keys = records(30), plan(30, rate=rate, clip=clip), Keys()
        released = noisy_gradient(logistic(), data, private, keys, START)

        chosen = poisson_mask(float(rate), 30, lambda _: keys.drawn[0])
        per_record = logistic_gradients(data, START)[chosen]
        norms = np.linalg.norm(per_record, axis=1)
        assert (norms > 0.7).any()
        assert (norms < 0.7).any()
        total = clipped_sum(per_record, float(clip)) + noise_of(keys.drawn[1], private, N_PARAMETERS)
        expected_batch = 30 * float(rate)
        np.testing.assert_allclose(released, total / expected_batch, rtol=1e-6, atol=rounding(private, data))

    @MODELS
    def test_equals_autograd_record_by_record(self, model: Callable[[], nn.Module]) -> None:
        data, private, keys = records(30), plan(30, rate="0.4", clip="0.3"), Keys()
        released = noisy_gradient(model(), data, private, keys)
        chosen = poisson_mask(0.4, 30, lambda _: keys.drawn[0])
        total = clipped_sum(one_by_one(model(), data)[chosen], 0.3)
        total = total + noise_of(keys.drawn[1], private, total.size)
        np.testing.assert_allclose(released, total / 12.0, rtol=1e-6, atol=rounding(private, data))

    def test_the_denominator_is_the_expected_batch_never_the_actual_one(self) -> None:
        # Hardly any noise, so that the sum of those that came up shows.
        for salt in "abc":
            data, private, keys = records(30), plan(30, rate="0.4", noise="0.000001"), Keys(salt)
            released = noisy_gradient(logistic(), data, private, keys, START)
            chosen = poisson_mask(0.4, 30, Keys(salt))
            assert chosen.sum() != 12
            total = clipped_sum(logistic_gradients(data, START)[chosen], 0.7)
            np.testing.assert_allclose(released * 12.0, total, atol=12.0 * rounding(private, data))

    @MODELS
    def test_an_empty_batch_still_releases_noise(self, model: Callable[[], nn.Module]) -> None:
        data, private = records(5), plan(5, rate="0.000001")
        keys = Keys()
        released = noisy_gradient(model(), data, private, keys)
        assert not poisson_mask(1e-6, 5, lambda _: keys.drawn[0]).any()
        expected = noise_of(keys.drawn[1], private, released.size) / private.expected_batch
        np.testing.assert_allclose(released, expected, rtol=1e-6)
        assert (released != 0.0).all()

    @pytest.mark.parametrize(("model", "start"), [(logistic, START), (mlp, None), (wide, None)])
    def test_a_record_that_is_no_number_contributes_zero(
        self, model: Callable[[], nn.Module], start: Vector | None
    ) -> None:
        data = records(30)
        x, y = data.x.copy(), data.y.copy()
        # Under the logistic model the first one's gradient is infinite in one coordinate and ordinary in the others.
        x[4, 1], y[4] = -np.inf, 0.0
        x[11, 2], y[17] = np.nan, np.nan
        spoilt = noisy_gradient(model(), Records(x, y), plan(30, noise="0.000001"), Keys(), start)
        others = data.take(np.delete(np.arange(30), [4, 11, 17]))
        without = noisy_gradient(model(), others, plan(27, noise="0.000001"), Keys(), start)
        np.testing.assert_allclose(spoilt * 30, without * 27, atol=1e-4)

    @MODELS
    def test_a_step_draws_a_key_for_the_batch_and_a_fresh_one_for_the_noise(
        self, model: Callable[[], nn.Module]
    ) -> None:
        keys, settings = Keys(), replace(SETTINGS, local_steps=4)
        start = to_vector(model())
        train(model(), start, Steps(settings, 0, 4), private_gradient(records(), plan(), entropy=keys))
        assert len(keys.drawn) == 2 * 4
        assert len(set(keys.drawn)) == 2 * 4
        assert {len(key) for key in keys.drawn} <= {16, 32}

    @MODELS
    @pytest.mark.parametrize("most", [1, 7, 29, 30, 31])
    def test_pieces_do_not_change_the_sum(
        self, model: Callable[[], nn.Module], most: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Batched matrix products may differ in the last bit of float32; the grid may then round by a unit a record.
        data, private = records(30), plan(30)
        whole = noisy_gradient(model(), data, private, Keys())
        monkeypatch.setattr(clipping, "_MOST_ROWS", most)
        keys = Keys()
        found = noisy_gradient(model(), data, private, keys)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=rounding(private, data) / 30)
        assert len(keys.drawn) == 2

    def test_every_record_of_a_large_site_is_summed_once(self) -> None:
        # More records than a chunk holds; each is the same, so the sum is a multiple.
        one = records(1)
        n_records = 2 * clipping._MOST_ROWS + 3
        data = Records(np.repeat(one.x, n_records, axis=0), np.repeat(one.y, n_records))
        private, keys = plan(n_records), Keys()
        released = noisy_gradient(logistic(), data, private, keys, START)
        total = n_records * clipped_sum(logistic_gradients(one, START), 0.7)
        total += noise_of(keys.drawn[1], private, N_PARAMETERS)
        np.testing.assert_allclose(released, total / n_records, rtol=1e-5)

    def test_proximal_term_and_drift_come_after_the_noise(self) -> None:
        data, private, settings = records(), plan(), replace(SETTINGS, local_steps=2)
        drift = vector(100.0, 0.0, -100.0, 50.0)
        end = train(
            logistic(), START, Steps(settings, 0, 2, 0.8, drift), private_gradient(data, private, entropy=Keys())
        )
        y, keys = START, Keys()
        for _ in range(2):
            gradient = noisy_gradient(logistic(), data, private, keys, y)
            y = (y - settings.learning_rate * (gradient + 0.8 * (y - START) + drift)).astype(np.float32)
        np.testing.assert_allclose(end, y, rtol=1e-5)

    def test_the_model_is_left_as_an_ordinary_one(self) -> None:
        model = logistic()
        noisy_gradient(model, records(), plan(), Keys(), START)
        np.testing.assert_array_equal(to_vector(model), START)
        assert not any(hasattr(parameter, "grad_sample") for parameter in model.parameters())
        # Hooks that stayed would wrap, and clip, twice.
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        again = noisy_gradient(model, records(), plan(), Keys(), START)
        np.testing.assert_array_equal(again, noisy_gradient(logistic(), records(), plan(), Keys(), START))

    def test_the_path_and_its_noise_follow_from_public_sizes(self) -> None:
        assert on_integer_path(mlp())
        assert not on_integer_path(wide())
        assert arithmetic_of(mlp(), plan()) is Arithmetic.INTEGER_EXACT
        assert arithmetic_of(wide(), plan()) is Arithmetic.FLOAT

    def test_exact_noise_is_not_claimed_where_it_is_not_drawn(self) -> None:
        claim = replace(plan(), arithmetic=Arithmetic.INTEGER_EXACT)
        private_gradient(records(), claim, entropy=Keys())(mlp(), 0)
        with pytest.raises(ConfigError, match="exact noise"):
            private_gradient(records(), claim, entropy=Keys())(wide(), 0)

    def test_batches_that_nobody_draws_are_refused(self) -> None:
        sampling = Sampling(SamplingType.TRUNCATED, Decimal("0.5"), cap=6, n_records=12)
        with pytest.raises(ConfigError, match="truncated_poisson"):
            private_gradient(records(), replace(plan(), sampling=sampling), entropy=Keys())

    def test_a_wrapped_model_is_refused(self) -> None:
        from opacus.grad_sample import GradSampleModule  # noqa: PLC0415 - imported first, it would set up logging

        with pytest.raises(ConfigError, match="already wrapped"):
            private_gradient(records(), plan(), entropy=Keys())(GradSampleModule(logistic()), 0)

    def test_a_plan_for_another_number_of_records_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="made for 13 records, the site has 12"):
            private_gradient(records(12), plan(13), entropy=Keys())

    @MODELS
    def test_torch_and_numpy_seeds_neither_matter_nor_move(self, model: Callable[[], nn.Module]) -> None:
        def after_seeding(seed: int) -> tuple[list[float], float]:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - the generator that must not matter
            return noisy_gradient(model(), records(), plan(rate="0.5"), Keys()).tolist(), float(torch.rand(1))

        (first, draw), (second, _) = after_seeding(0), after_seeding(1)
        torch.manual_seed(0)
        assert draw == float(torch.rand(1))
        assert first == second


class TestIntegerSum:
    """Clipping on the integer path: whatever a record holds, its integers are no longer than the grid says, exactly."""

    @pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-40, 1e-20, 1.0, 1e20, 1e30, 3e38])
    @pytest.mark.parametrize("clip", ["0.000001", "1", "1000000"])
    def test_one_record_is_no_longer_than_the_clip(self, scale: float, clip: str) -> None:
        for seed in range(4):
            data, mechanism = records(1, seed=seed), plan(clip=clip).mechanism
            with np.errstate(over="ignore"):
                x = torch.from_numpy(data.x * np.float32(scale))
            units = integer_sum(mlp(), record_losses, (x, torch.from_numpy(data.y), None), mechanism)
            assert sum(int(unit) ** 2 for unit in units) <= GRID**2

    @pytest.mark.parametrize("sizes", [None, [4, 1, 7]])
    def test_is_the_float_paths_sum_to_the_grid(self, sizes: list[int] | None) -> None:
        data, mechanism = records(12), plan(clip="0.3").mechanism
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        units = integer_sum(mlp(), record_losses, (x, y, sizes), mechanism)
        floating = Clipping(mlp(), record_losses).sum(x, y, clip=0.3, sizes=sizes)
        np.testing.assert_allclose(units * (0.3 / GRID), floating.numpy(), atol=12 * 2 * 0.3 / GRID)


PATIENTS = np.array([7, 3, 7, 0, 3, 7, 9, 9, 2, 7, 3, 0], dtype=np.int64)
"""Of twelve records; five patients."""


class TestPatients:
    def data(self) -> Records:
        plain = records(12)
        return Records(plain.x, plain.y, PATIENTS)

    def plan(self, rate: str = "1", noise: str = "2") -> RecordPlan:
        return replace(plan(5, rate=rate, noise=noise, clip="0.8"), unit=Unit.PATIENT)

    @MODELS
    @pytest.mark.parametrize("rate", ["1", "0.6"])
    def test_are_drawn_whole_added_up_and_clipped_once(self, model: Callable[[], nn.Module], rate: str) -> None:
        data, private, keys = self.data(), self.plan(rate), Keys("b")
        released = noisy_gradient(model(), data, private, keys)
        mask = poisson_mask(float(rate), 5, lambda _: keys.drawn[0])
        assert rate == "1" or 0 < mask.sum() < 5
        rows = one_by_one(model(), data)
        sums = np.array([rows[number == PATIENTS].sum(axis=0) for number in np.unique(PATIENTS)[mask]])
        assert np.linalg.norm(sums, axis=1).max() > 0.8
        total = clipped_sum(sums, 0.8) + noise_of(keys.drawn[1], private, rows.shape[1])
        np.testing.assert_allclose(released, total / private.expected_batch, rtol=1e-5, atol=rounding(private, data))

    @MODELS
    @pytest.mark.parametrize("number", [7, 9])
    def test_one_patient_moves_the_sum_by_no_more_than_the_clip(
        self, model: Callable[[], nn.Module], number: int
    ) -> None:
        data, private = self.data(), self.plan(noise="0.000001")
        x = data.x.copy()
        x[number == PATIENTS] = np.nan  # contributes zero
        with_patient = noisy_gradient(model(), data, private, Keys())
        without = noisy_gradient(model(), Records(x, data.y, PATIENTS), private, Keys())
        moved = np.linalg.norm(with_patient - without) * private.expected_batch
        assert 0.1 < moved <= 0.8 * (1 + 1e-5)

    @MODELS
    def test_one_record_each_is_the_same_as_records(self, model: Callable[[], nn.Module]) -> None:
        plain = records(12)
        named = Records(plain.x, plain.y, np.arange(12, dtype=np.int64))
        as_patients = replace(plan(12, rate="0.5"), unit=Unit.PATIENT)
        np.testing.assert_allclose(
            noisy_gradient(model(), named, as_patients, Keys()),
            noisy_gradient(model(), plain, plan(12, rate="0.5"), Keys()),
            rtol=1e-5,
            atol=rounding(as_patients, plain) / 6,
        )

    def test_a_plan_for_records_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="made for 12 patients, the site has 5"):
            private_gradient(self.data(), plan(12), entropy=Keys())
        with pytest.raises(ConfigError, match="protects a record, and this site can only count patients"):
            private_gradient(self.data(), plan(5), entropy=Keys())
        with pytest.raises(ConfigError, match="protects a patient, and this site can only count records"):
            private_gradient(records(5), self.plan(), entropy=Keys())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.SyncBatchNorm(4)), nn.Linear(4, 1)),
    ],
    ids=["BatchNorm", "SyncBatchNorm, nested"],
)
def test_a_layer_that_mixes_records_is_refused_with_the_way_out(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="mixes records") as caught:
        check_private_model(model)
    assert "GroupNorm" in caught.value.hint
    assert "--privacy none" in caught.value.hint


@pytest.mark.parametrize(
    "model", [logistic(), mlp(), nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1))]
)
def test_layers_that_keep_records_apart_are_fine(model: nn.Module) -> None:
    check_private_model(model)


def test_importing_it_leaves_the_applications_logging_alone() -> None:
    program = """
        import logging
        root = logging.getLogger()
        found = list(root.handlers), root.level
        import clients.training, opacus
        assert (root.handlers, root.level) == found, (root.handlers, root.level)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=True)
