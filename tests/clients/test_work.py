"""What a site makes of a task: declared arrays, control variates by hand, and noise that nothing repeats."""

import secrets
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pytest

from clients.agent import LocalWork
from clients.records import Records
from clients.work import Site, contribute
from privacy.dp.mechanism import GRID
from privacy.dp.plan import DistributedPlan, RecordPlan, SitePlan, Unit
from privacy.errors import ConfigError, LocalProtocolError
from strategies.contribution import Vector
from strategies.fed_avg import FedProx
from strategies.models import build, layout_of, to_vector
from strategies.parts import AgentSpec
from strategies.scaffold import Scaffold
from strategies.sub_models import adapter, by_shape
from strategies.task import Training
from tests.clients.example import (
    HEAD,
    LAYOUT,
    MLP,
    N_INPUTS,
    N_PARAMETERS,
    START,
    Keys,
    clipped_sum,
    logistic_gradients,
    mlp_gradients,
    plan,
    records,
    site,
    task,
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
    assert work.kept == {}


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

    kept = {} if own is None else {"control": own}
    work = contribute(site(algorithm=Scaffold()), {**MODEL, "control": common}, round_number=1, kept=kept)
    # Option II, (x - y)/(K lr) - c + c_i, is the mean gradient of the walk.
    after = np.mean(gradients, axis=0)
    assert set(work.kept) == {"control"}
    np.testing.assert_allclose(work.kept["control"], after, rtol=1e-4, atol=1e-6)
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


def test_a_result_that_is_not_finite_is_no_error_but_is_nowhere_kept() -> None:
    """An error would be a free answer to what the server asks of the records with the model that it sends."""
    data = Records(np.full((4, N_INPUTS), 3e38, dtype=np.float32), np.ones(4, dtype=np.float32))
    arrays = {"model": np.zeros_like(START), "control": np.zeros_like(START)}
    work = contribute(site(data=data, learning_rate=1e3, algorithm=Scaffold()), arrays, round_number=1)
    assert np.isnan(work.contribution.arrays["update"]).all()
    assert not work.kept


def test_under_noise_in_the_sum_a_result_that_is_not_finite_counts_as_zero() -> None:
    data = Records(np.full((4, N_INPUTS), 3e38, dtype=np.float32), np.ones(4, dtype=np.float32))
    noise = SitePlan.calibrated(target=Decimal(1), delta=Decimal("0.001"), clip=Decimal("0.05"), max_attempts=5)
    one = site(data=data, learning_rate=1e3, sum_plan=noise)
    work = contribute(one, {"model": np.zeros_like(START)}, round_number=1)
    assert work.units is not None
    assert work.units.shape == START.shape
    assert not work.units.any()


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
        one = site(name=name, private=plan(steps=1), data=self.silent, seed=seed, steps=1)
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


def whole_model(seed: int = 8) -> Vector:
    return (np.random.default_rng(seed).normal(size=LAYOUT.size) * 0.3).astype(np.float32)


class TestPrivateHead:
    def with_head(self, **settings: Any) -> Site:
        return site(model=MLP, part=HEAD, **settings)

    def test_it_starts_at_its_initial_values_and_never_leaves(self) -> None:
        one, shared = self.with_head(), whole_model()[HEAD.held]
        head = to_vector(build(MLP, N_INPUTS, 1))[16:]
        assert one.initial[16:].tolist() == head.tolist()
        work = contribute(one, {"model": shared}, round_number=1)
        trained = contribute(site(model=MLP), {"model": np.concatenate([shared, head])}, round_number=1)
        both = trained.contribution.arrays["update"]
        assert set(work.contribution.arrays) == {"update"}
        np.testing.assert_array_equal(work.contribution.arrays["update"], both[:16])
        assert set(work.kept) == {"private"}
        np.testing.assert_allclose(work.kept["private"], head + both[16:], rtol=1e-6)
        assert (work.kept["private"] != head).all()

    def test_it_goes_on_from_what_was_kept(self) -> None:
        one, shared = self.with_head(batch=5), whole_model()[HEAD.held]
        first = contribute(one, {"model": shared}, round_number=1)
        middle = shared + first.contribution.arrays["update"]
        second = contribute(one, {"model": middle}, round_number=2, kept=first.kept)
        start = np.concatenate([middle, first.kept["private"]])
        update = contribute(site(model=MLP, batch=5), {"model": start}, round_number=2).contribution.arrays["update"]
        np.testing.assert_array_equal(second.contribution.arrays["update"], update[:16])
        np.testing.assert_allclose(second.kept["private"], (start + update)[16:], rtol=1e-6)
        forgotten = contribute(one, {"model": middle}, round_number=2)
        assert (forgotten.kept["private"] != second.kept["private"]).any()

    def test_under_a_record_plan_head_and_body_share_one_clip(self) -> None:
        """Or the body's gradients would tell what a head without noise had learnt of a record."""
        one = self.with_head(private=plan(clip="0.3", noise="0.000001", steps=1), steps=1)
        shared = whole_model()[HEAD.held]
        work = contribute(one, {"model": shared}, round_number=1, entropy=Keys())
        step = np.concatenate([work.contribution.arrays["update"], work.kept["private"] - one.initial[16:]])

        gradients = mlp_gradients(records(), np.concatenate([shared, one.initial[16:]]))
        assert (np.linalg.norm(gradients, axis=1) > 0.3).all(), "every record is clipped"
        together = clipped_sum(gradients, 0.3)
        apart = np.concatenate([clipped_sum(gradients[:, :16], 0.3), clipped_sum(gradients[:, 16:], 0.3)])
        assert np.abs(together - apart).max() > 0.1, "or the test would prove nothing"
        np.testing.assert_allclose(step, -0.5 * together / 12, atol=1e-6)

    def test_under_a_record_plan_the_head_is_noised(self) -> None:
        silent = Records(np.zeros((12, N_INPUTS), np.float32), np.full(12, 0.5, np.float32))
        one = replace(self.with_head(private=plan(steps=1), data=silent, steps=1), initial=np.zeros(21, np.float32))
        start = {"model": np.zeros(16, np.float32)}
        drawn = [contribute(one, start, round_number=1, entropy=Keys(str(salt))) for salt in range(200)]
        heads = np.array([work.kept["private"] for work in drawn])
        assert heads.std() == pytest.approx(0.5 * 1.4 / 12, rel=0.08)

    def test_scaffold_steers_what_is_shared_alone(self) -> None:
        one, shared = self.with_head(algorithm=Scaffold(), steps=1), whole_model()[HEAD.held]
        common, own = np.full(16, 0.25, np.float32), np.linspace(-1, 1, 16, dtype=np.float32)
        kept = {"control": own}
        work = contribute(one, {"model": shared, "control": common}, round_number=1, kept=kept)
        gradient = mlp_gradients(records(), np.concatenate([shared, one.initial[16:]])).mean(axis=0)
        np.testing.assert_allclose(
            work.contribution.arrays["update"], -0.5 * (gradient[:16] + common - own), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(work.kept["private"] - one.initial[16:], -0.5 * gradient[16:], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(work.kept["control"], gradient[:16], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(work.contribution.arrays["control"], gradient[:16] - own, rtol=1e-4, atol=1e-6)


class TestParts:
    def test_a_narrow_site_trains_its_slice_of_the_model(self) -> None:
        narrow = MLP.part(width=0.5)
        part = by_shape(LAYOUT, layout_of(build(narrow, N_INPUTS, 0)))
        model = whole_model()
        work = contribute(site(model=MLP, piece=narrow, part=part), {"model": model[part.held]}, round_number=1)
        alone = contribute(site(model=narrow), {"model": model[part.held]}, round_number=1)
        np.testing.assert_array_equal(work.contribution.arrays["update"], alone.contribution.arrays["update"])
        assert work.contribution.arrays["update"].shape == (2 * N_INPUTS + 2 + 2 + 1,)

    def test_a_window_that_wraps_around_is_trained_in_the_pieces_own_order(self) -> None:
        narrow = MLP.part(width=0.5)
        start = {"0.weight": (3, 0), "0.bias": (3,), "2.weight": (0, 3)}
        part = by_shape(LAYOUT, layout_of(build(narrow, N_INPUTS, 0)), start=start)
        model = whole_model()
        w1, b1, w2, b2 = LAYOUT.unflatten(model).values()
        units = [3, 0]
        piece = np.concatenate([w1[units].ravel(), b1[units], w2[:, units].ravel(), b2])
        work = contribute(site(model=MLP, piece=narrow, part=part), {"model": model[part.held]}, round_number=1)
        expected = contribute(site(model=narrow), {"model": piece}, round_number=1).contribution.arrays["update"]
        d1, e1, d2, e2 = layout_of(build(narrow, N_INPUTS, 0)).unflatten(expected).values()
        # Held coordinates ascend: unit 0 before unit 3.
        ascending = np.concatenate([d1[[1, 0]].ravel(), e1[[1, 0]], d2[:, [1, 0]].ravel(), e2])
        np.testing.assert_array_equal(work.contribution.arrays["update"], ascending)

    def test_what_is_frozen_stays_where_everybody_has_it(self) -> None:
        part = adapter(LAYOUT, ["2.*"])
        one = site(model=MLP, part=part)
        shared = whole_model()[part.held]
        work = contribute(one, {"model": shared}, round_number=1)
        step = mlp_gradients(records(), np.concatenate([one.initial[:16], shared])).mean(axis=0)[16:]
        assert work.kept == {}
        single = contribute(site(model=MLP, part=part, steps=1), {"model": shared}, round_number=1)
        np.testing.assert_allclose(single.contribution.arrays["update"], -0.5 * step, rtol=1e-4, atol=1e-6)

    def test_a_site_is_clipped_over_all_that_it_shares_and_nothing_else(self) -> None:
        noise = SitePlan.calibrated(target=Decimal(1), delta=Decimal("0.001"), clip=Decimal("0.05"), max_attempts=5)
        work = contribute(site(model=MLP, part=HEAD, sum_plan=noise), {"model": whole_model()[:16]}, round_number=1)
        update = work.contribution.arrays["update"].astype(np.float64)
        assert np.linalg.norm(update) > 0.05
        assert work.units is not None
        expected = clipped_sum(update[None], 0.05) * GRID / 0.05
        np.testing.assert_allclose(work.units, expected, atol=1)

    def test_a_sites_own_settings_are_the_ones_it_steps_by(self) -> None:
        own = AgentSpec(settings={"local_steps": 2, "learning_rate": 0.125, "batch": 0})
        arrays = {**MODEL, "control": np.zeros_like(START)}
        work = contribute(site(algorithm=Scaffold(), agent=own, batch=5), arrays, round_number=1)
        y, gradients = START.astype(np.float64), []
        for _ in range(2):
            gradients.append(logistic_gradients(records(), y).mean(axis=0))
            y = y - 0.125 * gradients[-1]
        np.testing.assert_allclose(work.contribution.arrays["update"], y - START, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(work.kept["control"], np.mean(gradients, axis=0), rtol=1e-4, atol=1e-6)
        noisy = site(private=plan(steps=2), agent=AgentSpec(settings={"local_steps": 2}))
        assert contribute(noisy, MODEL, round_number=1).executions == 2


def sum_over_records() -> DistributedPlan:
    return DistributedPlan.calibrated(
        target=Decimal(4), delta=Decimal("0.001"), clip=Decimal("0.7"), unit=Unit.RECORD,
        survivors=4, colluders=0, dimension=N_PARAMETERS, max_attempts=2,
    )  # fmt: skip


class TestSumOverRecords:
    def test_every_record_is_clipped_and_summed(self) -> None:
        noise = sum_over_records()
        work = contribute(site(sum_plan=noise), MODEL, round_number=1)
        assert work.units is not None
        scale = 0.7 / noise.mechanism.grid
        per_record = logistic_gradients(records(), START)
        expected = per_record * np.minimum(1.0, 0.7 / np.linalg.norm(per_record, axis=1, keepdims=True))
        np.testing.assert_allclose(work.units * scale, expected.sum(axis=0), atol=12 * 2 * scale)
        assert (dict(work.contribution.arrays), work.kept) == ({}, {})

    @pytest.mark.parametrize(
        "changes",
        [{"part": HEAD}, {"part": adapter(LAYOUT, ["2.*"])}, {"agent": AgentSpec("scikit-learn")}],
        ids=["private head", "adapter", "scikit-learn"],
    )
    def test_a_part_or_a_strangers_agent_is_refused(self, changes: dict[str, Any]) -> None:
        one = site(model=MLP, sum_plan=sum_over_records(), **changes)
        with pytest.raises(ConfigError, match="va cannot sum records one by one"):
            contribute(one, {"model": whole_model()[one.part.held]}, round_number=1)


@dataclass
class Stranger:
    """Training code that returns what it likes."""

    result: Any
    offers: ClassVar[frozenset[str]] = frozenset({"none"})
    plan: RecordPlan | None = None
    training: Training = field(default_factory=lambda: task().training)

    def train(self, start: Vector, _work: LocalWork) -> Vector:
        result: Vector = self.result(start)
        return result


class TestStrangersCode:
    @pytest.mark.parametrize(
        "result",
        [
            lambda start: start[:-1],
            lambda start: np.append(start, np.float32(1)),
            lambda start: start[None],
            lambda start: start.astype(np.float64),
        ],
        ids=["short", "long", "of two dimensions", "float64"],
    )
    def test_what_is_not_a_piece_is_neither_sent_nor_kept(self, result: Any) -> None:
        one = replace(site(model=MLP, part=HEAD), agent=Stranger(result))
        with pytest.raises(LocalProtocolError, match="nothing was sent: the agent did not return float32"):
            contribute(one, {"model": whole_model()[:16]}, round_number=1)

    def test_what_is_infinite_where_it_is_private_spoils_all_of_it(self) -> None:
        def infinite(start: Vector) -> Vector:
            return np.where(np.arange(start.size) == 20, np.float32(np.inf), start)

        one = replace(site(model=MLP, part=HEAD), agent=Stranger(infinite))
        work = contribute(one, {"model": whole_model()[:16]}, round_number=1)
        assert np.isnan(work.contribution.arrays["update"]).all()
        assert not work.kept

    def test_what_it_does_to_its_start_changes_nothing_here(self) -> None:
        def overwrite(start: Vector) -> Vector:
            start += 1
            return start

        one, shared = replace(site(model=MLP, part=HEAD), agent=Stranger(overwrite)), whole_model()[:16]
        before, kept = shared.copy(), {"private": np.zeros(5, np.float32)}
        work = contribute(one, {"model": shared}, round_number=1, kept=kept)
        np.testing.assert_array_equal(shared, before)
        assert not kept["private"].any()
        np.testing.assert_allclose(work.contribution.arrays["update"], 1.0, rtol=1e-6)

    @pytest.mark.parametrize("noise", [None, plan(noise="1")], ids=["none", "less"])
    def test_a_site_is_not_debited_for_noise_that_its_agent_does_not_add(self, noise: RecordPlan | None) -> None:
        agent = site(private=noise).agent
        with pytest.raises(ValueError, match="must train by the plan that the site is debited for"):
            replace(site(private=plan(noise="2")), agent=agent)
