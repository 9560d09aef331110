"""The scikit-learn agent against torch (one layer more) and against the rule of SGD by hand (one row at a time)."""

import sys
from typing import Any

import numpy as np
import pytest
import threadpoolctl  # type: ignore[import-untyped]  # it ships none
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier

from clients.agent import LocalWork, TorchAgent
from clients.batches import batch_at
from clients.records import Records
from clients.scikit_agent import ScikitAgent
from clients.work import contribute
from privacy.errors import ConfigError
from strategies.algorithm import LocalRule
from strategies.contribution import Vector
from strategies.fed_avg import FedProx
from strategies.models import build, to_vector
from strategies.parts import AgentSpec
from strategies.scaffold import Scaffold
from strategies.task import ModelSpec, SiteId
from tests.clients.example import N_INPUTS, START, VA, Keys, logistic_gradients, records, site, task

LOGISTIC = ModelSpec("logistic")
MLP = ModelSpec("mlp", hidden=(8,), init="torch")
EXIT = ModelSpec("mlp", hidden=(8, 4), init="torch", exits=True).part(depth=1)
"""The first layer of a deeper model, with its exit."""


def agent(
    spec: ModelSpec, *, data: Records | None = None, seed: int = 1, name: str = VA, **settings: Any
) -> ScikitAgent:
    return ScikitAgent(SiteId(name), spec, N_INPUTS, task(**settings).training, data or records(), seed)


def work(round_number: int = 1, rule: LocalRule | None = None) -> LocalWork:
    return LocalWork(round_number, rule or LocalRule(), None, Keys())


def initial(spec: ModelSpec) -> Vector:
    return to_vector(build(spec, N_INPUTS, seed=3))


class TestMlp:
    @pytest.mark.parametrize("spec", [MLP, EXIT], ids=["mlp", "depth prefix"])
    @pytest.mark.parametrize(
        ("settings", "round_number"),
        [({"steps": 1}, 1), ({"steps": 4}, 1), ({"steps": 3, "batch": 5}, 1), ({"steps": 3, "batch": 5}, 2)],
        ids=["one full-batch step", "four", "batches", "second round"],
    )
    def test_its_steps_are_torchs(self, spec: ModelSpec, settings: dict[str, Any], round_number: int) -> None:
        start = initial(spec)
        torchs = TorchAgent(VA, spec, N_INPUTS, task(**settings).training, records(), 1)
        expected = torchs.train(start, work(round_number))
        assert np.abs(expected - start).max() > 0.01
        found = agent(spec, **settings).train(start, work(round_number))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)

    def test_a_batch_of_one_class_is_a_step_too(self) -> None:
        data = Records(records().x, np.ones(12, np.float32))
        torchs = TorchAgent(VA, MLP, N_INPUTS, task().training, data, 1)
        start = initial(MLP)
        np.testing.assert_allclose(agent(MLP, data=data).train(start, work()), torchs.train(start, work()), atol=1e-6)

    def test_one_thread_gives_the_same_sums_in_every_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        original = MLPClassifier.partial_fit

        def watched(self: Any, *arguments: Any, **named: Any) -> Any:
            seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
            return original(self, *arguments, **named)

        monkeypatch.setattr(MLPClassifier, "partial_fit", watched)
        with threadpoolctl.threadpool_limits(limits=2):
            agent(MLP).train(initial(MLP), work())
        assert set(seen) == {1}


def by_hand(one: ScikitAgent, start: Vector, round_number: int) -> NDArray[np.float64]:
    """Logistic SGD, a row at a time: ``w <- w - lr (sigmoid(w x + b) - y) (x, 1)``."""
    y, settings, data = start.astype(np.float64), one.training, one.records
    for step in range((round_number - 1) * settings.local_steps, round_number * settings.local_steps):
        rows = batch_at(seed=one.seed, site=one.site, step=step, n_records=len(data), batch=settings.batch)
        for row in rows[one._order(step, len(rows))]:
            y = y - settings.learning_rate * logistic_gradients(data.take(np.array([row])), y)[0]
    return y


class TestLogistic:
    @pytest.mark.parametrize("batch", [0, 5])
    @pytest.mark.parametrize("round_number", [1, 3])
    def test_it_is_sgd_one_row_at_a_time(self, batch: int, round_number: int) -> None:
        one = agent(LOGISTIC, batch=batch, learning_rate=0.1)
        found = one.train(START, work(round_number))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_hand(one, START, round_number), rtol=1e-6)
        assert np.abs(found - START).max() > 0.01

    def test_every_pass_has_an_order_of_its_own(self) -> None:
        one = agent(LOGISTIC)
        orders = [one._order(step, 40) for step in range(3)]
        orders += [agent(LOGISTIC, seed=2)._order(0, 40), agent(LOGISTIC, name="hungary")._order(0, 40)]
        assert len({order.tobytes() for order in orders}) == 5
        for order in orders:
            np.testing.assert_array_equal(np.sort(order), np.arange(40))

    def test_a_site_with_one_class_trains(self) -> None:
        data = Records(records().x, np.ones(12, np.float32))
        one = agent(LOGISTIC, data=data)
        np.testing.assert_allclose(one.train(START, work()), by_hand(one, START, 1), rtol=1e-6)


@pytest.mark.parametrize("spec", [LOGISTIC, MLP], ids=["logistic", "mlp"])
class TestBoth:
    def test_the_same_seed_site_and_round_give_the_same_bits(self, spec: ModelSpec) -> None:
        start, one = initial(spec), agent(spec, batch=5)
        first = one.train(start, work(2))
        np.random.seed(4)  # noqa: NPY002 - the generator that must not matter
        np.testing.assert_array_equal(one.train(start, work(2)), first, "nothing is left over from the round before")
        np.testing.assert_array_equal(agent(spec, batch=5).train(start, work(2)), first)
        others = (agent(spec, batch=5, seed=2), agent(spec, batch=5, name="hungary"))
        for changed in (*(other.train(start, work(2)) for other in others), one.train(start, work(1))):
            assert (changed != first).any()

    def test_the_start_is_left_as_it_was(self, spec: ModelSpec) -> None:
        start = initial(spec)
        start.setflags(write=False)
        agent(spec).train(start, work())
        np.testing.assert_array_equal(start, initial(spec))

    def test_numbers_that_run_away_are_said_plainly_and_at_home(
        self, spec: ModelSpec, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = Records(np.full((4, N_INPUTS), np.nan, np.float32), np.ones(4, np.float32))
        assert np.isnan(agent(spec, data=data).train(initial(spec), work())).all()
        assert "scikit-learn stopped at va: records or parameters are not finite" in caplog.text

    @pytest.mark.parametrize("rule", [LocalRule(proximal=0.1), LocalRule(control=True)])
    def test_a_rule_that_corrects_steps_is_refused(self, spec: ModelSpec, rule: LocalRule) -> None:
        with pytest.raises(ConfigError, match="takes plain steps only"):
            agent(spec).train(initial(spec), work(rule=rule))

    def test_it_contributes_like_anybody(self, spec: ModelSpec) -> None:
        start = initial(spec)
        own = AgentSpec("scikit-learn", {"local_steps": 2})
        done = contribute(site(model=spec, agent=own, batch=5), {"model": start}, round_number=2)
        expected = agent(spec, steps=2, batch=5).train(start, work(2)) - start
        np.testing.assert_array_equal(done.contribution.arrays["update"], expected)
        assert (done.kept, done.executions) == ({}, 0)
        for algorithm in (FedProx(mu=0.3), Scaffold()):
            one = site(model=spec, agent=own, algorithm=algorithm)
            with pytest.raises(ConfigError, match="takes plain steps only"):
                contribute(one, {"model": start, "control": start}, round_number=1)

    def test_without_scikit_learn_it_says_so(self, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ConfigError, match="needs scikit-learn, which is not installed") as caught:
            agent(spec)
        assert "torch agent" in caught.value.hint


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("mlp", hidden=(4, 4), init="torch"),
        ModelSpec("mlp", hidden=(4, 4), init="torch", exits=True),
        ModelSpec("mlp", hidden=(4,), init="torch", outputs=3),
        ModelSpec("logistic", outputs=3),
        ModelSpec("cnn", hidden=(4,), init="torch", image=(1, 1, N_INPUTS)),
    ],
    ids=["two layers", "two exits", "three classes", "three classes, logistic", "cnn"],
)
def test_other_models_are_refused(spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match="trains logistic models and an mlp of one hidden layer"):
        agent(spec)


def test_other_optimizers_are_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer sgd only"):
        agent(MLP, optimizer="adam")


def test_showing_an_agent_shows_no_record() -> None:
    data = Records(np.full((1, N_INPUTS), 0.123, dtype=np.float32), np.ones(1, dtype=np.float32))
    assert "0.123" not in repr(agent(LOGISTIC, data=data))
