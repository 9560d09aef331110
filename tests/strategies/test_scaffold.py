"""Scaffold: by hand, against FLamby's equivalent form, and where plain averaging ends in the wrong place."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.errors import ConfigError
from strategies.algorithm import LocalRule
from strategies.contribution import Contribution, Vector, weighted_mean
from strategies.fed_avg import FedAvg
from strategies.scaffold import Scaffold, next_control
from strategies.task import SiteId
from tests.strategies.contract import WEIGHTS, A, AlgorithmContract, B, vector

# Two sites with losses |curvature · (y - centre)|²/2 by coordinate: gradients are linear and differ a lot.
CURVATURE = {A: np.array([4.0, 1.0]), B: np.array([1.0, 2.0])}
CENTRE = {A: np.array([0.0, 3.0]), B: np.array([2.0, -1.0])}
STEPS, LEARNING_RATE = 5, 0.1
# Where the weighted mean of the gradients is 0.
OPTIMUM = sum(WEIGHTS[s] * CURVATURE[s] * CENTRE[s] for s in WEIGHTS) / sum(WEIGHTS[s] * CURVATURE[s] for s in WEIGHTS)


def walk(site: SiteId, start: NDArray[np.float64], correction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Takes the local steps ``y ← y - lr (g + correction)``."""
    y = start.astype(np.float64)
    for _ in range(STEPS):
        y = y - LEARNING_RATE * (CURVATURE[site] * (y - CENTRE[site]) + correction)
    return y


def federate(rounds: int) -> tuple[list[Vector], dict[SiteId, Vector]]:
    """Trains with Scaffold; returns the models after each round and the sites' last control variates."""
    algorithm = Scaffold()
    state = algorithm.init(vector(1.0, 1.0))
    own = {site: vector(0.0, 0.0) for site in WEIGHTS}
    models = []
    for _ in range(rounds):
        received = algorithm.broadcast(state)
        contributions = []
        for site in WEIGHTS:
            end = walk(site, received["model"].astype(np.float64), received["control"].astype(np.float64) - own[site])
            update = (end - received["model"]).astype(np.float32)
            after = next_control(own[site], received["control"], update, steps=STEPS, learning_rate=LEARNING_RATE)
            contributions.append((site, Contribution({"update": update, "control": after - own[site]})))
            own[site] = after
        aggregate = weighted_mean(contributions, WEIGHTS)
        state = algorithm.apply(state, aggregate, aggregate.weight / math.fsum(WEIGHTS.values()))
        models.append(algorithm.parameters(state))
    return models, own


class TestScaffold(AlgorithmContract):
    algorithm = Scaffold(server_learning_rate=0.5)
    broadcasts = ("model", "control")
    rests = True

    def test_two_rounds_by_hand_the_second_with_one_site(self) -> None:
        # K = 2 steps with lr 1/2, so K lr = 1; weights 1 and 3; start (1, 2); all control variates 0.
        # Round 1: a moves by (4, 0), b by (0, 8). c_a = 0 - 0 - (4, 0) = (-4, 0), c_b = (0, -8).
        #   Δ = (1, 6), model (1, 2) + (1, 6)/2 = (1.5, 5). Mean change of control (-1, -6), share 1: c = (-1, -6).
        # Round 2: only b answers, share 3/4; it moves by (2, -2). c_b = (0, -8) - (-1, -6) - (2, -2) = (-1, 0),
        #   a change of (-1, 8). Model (1.5, 5) + (2, -2)/2 = (2.5, 4); c = (-1, -6) + 3/4 (-1, 8) = (-1.75, 0),
        #   which is the weighted mean of the control variates: ((-4, 0) + 3 (-1, 0)) / 4.
        state = self.algorithm.init(vector(1.0, 2.0))
        nothing = vector(0.0, 0.0)
        c_a = next_control(nothing, nothing, vector(4.0, 0.0), steps=2, learning_rate=0.5)
        c_b = next_control(nothing, nothing, vector(0.0, 8.0), steps=2, learning_rate=0.5)
        np.testing.assert_array_equal([c_a, c_b], [[-4.0, 0.0], [0.0, -8.0]])
        sent = [
            (A, Contribution({"update": vector(4.0, 0.0), "control": c_a})),
            (B, Contribution({"update": vector(0.0, 8.0), "control": c_b})),
        ]
        state = self.algorithm.apply(state, weighted_mean(sent, WEIGHTS), 1.0)
        np.testing.assert_array_equal([state.model, state.control], [[1.5, 5.0], [-1.0, -6.0]])

        common = self.algorithm.broadcast(state)["control"]
        after = next_control(c_b, common, vector(2.0, -2.0), steps=2, learning_rate=0.5)
        np.testing.assert_array_equal(after, [-1.0, 0.0])
        sent = [(B, Contribution({"update": vector(2.0, -2.0), "control": after - c_b}))]
        state = self.algorithm.apply(state, weighted_mean(sent, WEIGHTS), 3.0 / 4.0)
        np.testing.assert_array_equal([state.model, state.control], [[2.5, 4.0], [-1.75, 0.0]])

    def test_sites_are_told_to_use_control_variates(self) -> None:
        assert self.algorithm.local == LocalRule(proximal=0.0, control=True)

    def test_refuses_a_server_that_does_not_learn(self) -> None:
        with pytest.raises(ConfigError, match="server_learning_rate"):
            Scaffold(server_learning_rate=0.0)


def test_equals_flambys_form_of_the_correction() -> None:
    # With all sites in every round, FLamby adds (x_new - y_i) / (K lr) to a site's correction and subtracts the
    # correction from its gradient: control variates by another name, without any that travel.
    model = np.array([1.0, 1.0])
    corrections = {site: np.zeros(2) for site in WEIGHTS}
    models, _ = federate(8)
    for ours in models:
        ends = {site: walk(site, model, -corrections[site]) for site in WEIGHTS}
        model = np.average(list(ends.values()), axis=0, weights=list(WEIGHTS.values()))
        corrections = {s: corrections[s] + (model - ends[s]) / (STEPS * LEARNING_RATE) for s in WEIGHTS}
        np.testing.assert_allclose(ours, model, rtol=1e-5)


def test_finds_the_optimum_that_averaging_misses() -> None:
    state = FedAvg().init(vector(1.0, 1.0))
    for _ in range(100):
        model = FedAvg().broadcast(state)["model"]
        ends = {site: walk(site, model.astype(np.float64), np.zeros(2)) for site in WEIGHTS}
        sent = [(site, Contribution({"update": (ends[site] - model).astype(np.float32)})) for site in WEIGHTS]
        state = FedAvg().apply(state, weighted_mean(sent, WEIGHTS), 1.0)
    assert np.abs(state.model - OPTIMUM).max() > 0.05

    models, own = federate(100)
    np.testing.assert_allclose(models[-1], OPTIMUM, atol=1e-4)
    # There, every control variate is the site's own gradient.
    for site in WEIGHTS:
        np.testing.assert_allclose(own[site], CURVATURE[site] * (OPTIMUM - CENTRE[site]), atol=1e-3)


def test_control_variate_is_the_mean_gradient_of_the_walk() -> None:
    # One step from x with gradient g and correction c - c_i moves by -lr (g - c_i + c); option II returns g.
    own, common, gradient = vector(0.5, -1.0), vector(0.25, 2.0), vector(3.0, -4.0)
    update = -np.float32(0.5) * (gradient - own + common)
    np.testing.assert_array_equal(next_control(own, common, update, steps=1, learning_rate=0.5), gradient)


@pytest.mark.parametrize(("steps", "learning_rate"), [(0, 0.1), (1, 0.0), (1, float("nan"))])
def test_control_variate_needs_steps_and_a_rate(steps: int, learning_rate: float) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        next_control(vector(0.0), vector(0.0), vector(0.0), steps=steps, learning_rate=learning_rate)


def test_control_variate_needs_vectors_of_one_shape() -> None:
    with pytest.raises(ValueError, match="differ"):
        next_control(vector(0.0), vector(0.0), vector(0.0, 1.0), steps=1, learning_rate=0.1)
