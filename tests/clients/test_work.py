"""What a site makes of a task: declared arrays, control variates by hand, and noise that nothing repeats."""

import secrets
from typing import ClassVar

import numpy as np
import pytest

from clients.records import Records
from clients.work import Site, contribute
from privacy.errors import LocalProtocolError
from strategies.contribution import Vector
from strategies.fed_avg import FedProx
from strategies.scaffold import Scaffold
from strategies.task import SiteId
from tests.clients.example import (
    N_INPUTS,
    N_PARAMETERS,
    START,
    Keys,
    logistic_gradients,
    plan,
    records,
    same_but,
    site,
    vector,
)

MODEL = {"model": START}


def update(one: Site, *, round_number: int = 1, keys: Keys | None = None) -> Vector:
    entropy = keys if keys is not None else secrets.token_bytes
    return contribute(one, MODEL, round_number=round_number, entropy=entropy).contribution.arrays["update"]


def test_the_update_is_the_end_of_training_minus_its_start() -> None:
    y = START.astype(np.float64)
    for _ in range(3):
        y = y - 0.5 * logistic_gradients(records(), y).mean(axis=0)
    work = contribute(site(), MODEL, round_number=1)
    np.testing.assert_allclose(work.contribution.arrays["update"], y - START, rtol=1e-4, atol=1e-7)
    assert set(work.contribution.arrays) == {"update"}
    assert work.contribution.scalars == {}
    assert work.control is None


def test_the_broadcast_is_left_as_it_was() -> None:
    sent = START.copy()
    sent.setflags(write=False)
    contribute(site(), {"model": sent}, round_number=1)
    np.testing.assert_array_equal(sent, START)


def test_fedprox_pulls_towards_what_was_broadcast() -> None:
    y = START.astype(np.float64)
    for _ in range(3):
        y = y - 0.5 * (logistic_gradients(records(), y).mean(axis=0) + 0.8 * (y - START))
    np.testing.assert_allclose(update(site(algorithm=FedProx(mu=0.8))), y - START, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("own", [None, vector(0.1, 0.2, -0.3, 0.4)])
def test_scaffold_corrects_its_steps_and_sends_the_change_of_its_control_variate(own: Vector | None) -> None:
    common = vector(-0.5, 0.25, 0.0, 1.0)
    before = np.zeros(N_PARAMETERS) if own is None else own.astype(np.float64)
    y, gradients = START.astype(np.float64), []
    for _ in range(3):
        gradients.append(logistic_gradients(records(), y).mean(axis=0))
        y = y - 0.5 * (gradients[-1] - before + common)

    work = contribute(site(algorithm=Scaffold()), {**MODEL, "control": common}, round_number=1, control=own)
    # Option II, (x - y)/(K lr) - c + c_i, is the mean gradient of the walk.
    after = np.mean(gradients, axis=0)
    assert work.control is not None
    np.testing.assert_allclose(work.control, after, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(work.contribution.arrays["control"], after - before, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(work.contribution.arrays["update"], y - START, rtol=1e-4, atol=1e-6)
    assert set(work.contribution.arrays) == {"update", "control"}


def test_batches_go_on_from_round_to_round() -> None:
    # Without memory between the rounds: round 2 of three steps is steps 4 to 6 of one long round.
    short, long = site(batch=5), site(batch=5, steps=6)
    middle = START + update(short)
    work = contribute(short, {"model": middle}, round_number=2)
    np.testing.assert_allclose(middle + work.contribution.arrays["update"], START + update(long), rtol=1e-5)
    assert (update(short) != update(short, round_number=2)).any()


def test_executions_are_counted_where_something_is_private() -> None:
    assert contribute(site(private=plan(steps=3)), MODEL, round_number=1).executions == 3
    assert contribute(site(), MODEL, round_number=1).executions == 0


def test_every_execution_is_a_noisy_step() -> None:
    keys = Keys()
    work = contribute(site(private=plan(steps=3)), MODEL, round_number=1, entropy=keys)
    assert len(keys.drawn) == 2 * work.executions


def test_a_result_that_is_not_finite_is_not_sent() -> None:
    data = Records(np.full((4, N_INPUTS), 3e38, dtype=np.float32), np.ones(4, dtype=np.float32))
    with pytest.raises(LocalProtocolError, match="nothing was sent: array 'update' has entries that are not finite"):
        contribute(site(data=data, learning_rate=1e3), {"model": np.zeros_like(START)}, round_number=1)


def test_showing_a_site_shows_no_record() -> None:
    data = Records(np.full((1, N_INPUTS), 0.123, dtype=np.float32), np.ones(1, dtype=np.float32))
    assert "0.123" in repr(data.x)
    shown = repr(site(data=data))
    assert "0.123" not in shown
    assert "Records" not in shown


class TestNoise:
    """A site whose gradients are zero at the zero model, so that what it sends is noise and nothing else."""

    silent = Records(np.zeros((12, N_INPUTS), dtype=np.float32), np.full(12, 0.5, dtype=np.float32))
    zero: ClassVar = {"model": np.zeros(N_PARAMETERS, dtype=np.float32)}

    def noise(self, name: str = "va", *, seed: int = 1, round_number: int = 1, keys: Keys | None = None) -> Vector:
        one = same_but(site(private=plan(steps=1), data=self.silent, seed=seed, steps=1), id=SiteId(name))
        entropy = keys or secrets.token_bytes
        return contribute(one, self.zero, round_number=round_number, entropy=entropy).contribution.arrays["update"]

    def test_without_privacy_such_a_site_sends_zeros(self) -> None:
        work = contribute(site(data=self.silent), self.zero, round_number=1)
        assert not work.contribution.arrays["update"].any()

    def test_sites_rounds_and_repetitions_never_get_equal_noise(self) -> None:
        drawn = [self.noise(name, round_number=r) for name in ("va", "hungary") for r in (1, 2) for _ in range(2)]
        assert len({np.abs(vector).tobytes() for vector in drawn}) == len(drawn) == 8

    def test_noise_comes_from_the_entropy_and_not_from_the_seed(self) -> None:
        np.testing.assert_array_equal(self.noise(seed=1, keys=Keys()), self.noise(seed=2, keys=Keys()))
        assert (self.noise(seed=1, keys=Keys("one")) != self.noise(seed=1, keys=Keys("other"))).all()

    def test_noise_has_the_scale_of_the_plan(self) -> None:
        # One step of rate 0.5: the update is 0.5 * noise / 12, of standard deviation 0.5 * (2 * 0.7) / 12.
        draws = np.concatenate([self.noise(keys=Keys(str(place))) for place in range(500)])
        assert draws.std() == pytest.approx(0.5 * 1.4 / 12, rel=0.08)


def test_poisson_batches_ignore_the_seed() -> None:
    private = plan(rate="0.4")
    one, other = site(private=private, seed=1, batch=5), site(private=private, seed=2, batch=5)
    np.testing.assert_array_equal(update(one, keys=Keys()), update(other, keys=Keys()))


def test_only_the_plan_decides_whether_seeds_matter() -> None:
    assert (update(site(batch=5, seed=1)) != update(site(batch=5, seed=2))).any()


def test_more_arrays_than_the_algorithm_wants_change_nothing() -> None:
    work = contribute(site(), {**MODEL, "control": START}, round_number=1)
    assert set(work.contribution.arrays) == {"update"}
    np.testing.assert_array_equal(work.contribution.arrays["update"], update(site()))
