"""Adaptive servers: by hand, against torch's optimisers, and against the paper's formulas one number at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from privacy.errors import ConfigError
from strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from strategies.contribution import Aggregate
from tests.strategies.contract import START, AlgorithmContract

UPDATES: list[NDArray[np.float64]] = list(np.random.default_rng(7).normal(size=(20, 3)))


def run(algorithm: FedAdam | FedYogi | FedAdagrad, updates: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    state = algorithm.init(START)
    for update in updates:
        state = algorithm.apply(state, Aggregate({"update": update}, 1.0), 1.0)
    return state.model


class TestFedAdam(AlgorithmContract):
    algorithm = FedAdam(server_learning_rate=1.0, beta1=0.5, beta2=0.75, tau=1.0)

    def test_two_rounds_by_hand(self) -> None:
        # Weights 1 and 3, start (1, -1, 0); the means of the updates are (2, 4, 8) and (1, 6, 2), as for FedAvg.
        # Round 1: m = Δ/2 = (1, 2, 4); v = Δ²/4 = (1, 4, 16); step m / (√v + 1) = (1/2, 2/3, 4/5).
        # Round 2: m = (1/2+1/2, 1+3, 2+1) = (1, 4, 3); v = 3v/4 + Δ²/4 = (3/4+1/4, 3+9, 12+1) = (1, 12, 13);
        #   step = (1/2, 4/4.4641016, 3/4.6055513) = (0.5, 0.8960370, 0.6513879).
        # Model: (1+.5+.5, -1+.6666667+.8960370, 0+.8+.6513879).
        state = self.run()
        np.testing.assert_allclose(state.model, [2.0, 0.5627036, 1.4513879], atol=1e-7)
        np.testing.assert_allclose(state.momentum, [1.0, 4.0, 3.0])
        np.testing.assert_allclose(state.second_moment, [1.0, 12.0, 13.0])

    def test_equals_torch_up_to_bias_correction(self) -> None:
        # torch steps by lr/(1-β1^t) m / (√v/√(1-β2^t) + eps). With lr and eps set for each step to undo the two
        # corrections, it is the paper's step.
        eta, tau, beta1, beta2 = 0.3, 1e-2, 0.9, 0.99
        model = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([model], betas=(beta1, beta2))
        for t, update in enumerate(UPDATES, start=1):
            root = math.sqrt(1.0 - beta2**t)
            optimizer.param_groups[0].update(lr=eta * (1.0 - beta1**t) / root, eps=tau / root)
            model.grad = -torch.tensor(update)
            optimizer.step()
        ours = run(FedAdam(server_learning_rate=eta, beta1=beta1, beta2=beta2, tau=tau), UPDATES)
        np.testing.assert_allclose(ours, model.detach().numpy(), rtol=1e-12)


class TestFedYogi(AlgorithmContract):
    algorithm = FedYogi(server_learning_rate=1.0, beta1=0.5, beta2=0.75, tau=1.0)

    def test_two_rounds_by_hand(self) -> None:
        # Round 1: v = 0 < Δ², so v = Δ²/4, as in FedAdam: model (1.5, -1/3, .8), m = (1, 2, 4), v = (1, 4, 16).
        # Round 2: Δ² = (1, 36, 4) against v: equal, greater, smaller, so v = (1, 4 + 36/4, 16 - 4/4) = (1, 13, 15);
        #   step m / (√v + 1) = (1/2, 4/4.6055513, 3/4.8729833) = (0.5, 0.8685171, 0.6156393).
        state = self.run()
        np.testing.assert_allclose(state.model, [2.0, 0.5351838, 1.4156393], atol=1e-7)
        np.testing.assert_allclose(state.second_moment, [1.0, 13.0, 15.0])

    def test_equals_the_paper_one_number_at_a_time(self) -> None:
        expected = []
        for index, start in enumerate(START):
            x, m, v = float(start), 0.0, 0.0
            for update in UPDATES:
                delta = float(update[index])
                m = 0.9 * m + 0.1 * delta
                v -= 0.01 * delta**2 * ((v > delta**2) - (v < delta**2))
                x += 0.3 * m / (v**0.5 + 1e-2)
            expected.append(x)
        ours = run(FedYogi(server_learning_rate=0.3, beta1=0.9, beta2=0.99, tau=1e-2), UPDATES)
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


class TestFedAdagrad(AlgorithmContract):
    algorithm = FedAdagrad(server_learning_rate=1.0, beta1=0.5, tau=1.0)

    def test_two_rounds_by_hand(self) -> None:
        # Round 1: m = (1, 2, 4); v = Δ² = (4, 16, 64); step m / (√v + 1) = (1/3, 2/5, 4/9).
        # Round 2: m = (1, 4, 3); v = (4+1, 16+36, 64+4) = (5, 52, 68);
        #   step = (1/3.2360680, 4/8.2111026, 3/9.2462113) = (0.3090170, 0.4871453, 0.3244572).
        # Model: (1+.3333333+.3090170, -1+.4+.4871453, .4444444+.3244572).
        state = self.run()
        np.testing.assert_allclose(state.model, [1.6423503, -0.1128547, 0.7689016], atol=1e-7)
        np.testing.assert_allclose(state.second_moment, [5.0, 52.0, 68.0])

    def test_equals_torch(self) -> None:
        model = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adagrad([model], lr=0.3, initial_accumulator_value=0.0, eps=1e-2)
        for update in UPDATES:
            model.grad = -torch.tensor(update)
            optimizer.step()
        ours = run(FedAdagrad(server_learning_rate=0.3, beta1=0.0, tau=1e-2), UPDATES)
        np.testing.assert_allclose(ours, model.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (FedAdam, {"server_learning_rate": 0.0}),
        (FedYogi, {"tau": 0.0}),
        (FedAdagrad, {"beta1": 1.0}),
        (FedAdagrad, {"beta1": -0.1}),
        (FedAdam, {"beta2": 1.0}),
        (FedYogi, {"beta2": float("nan")}),
        (FedAdagrad, {"tau": float("inf")}),
    ],
)
def test_settings_out_of_range_are_refused(
    algorithm: type[FedAdam | FedYogi | FedAdagrad], settings: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))) as refusal:
        algorithm(**settings)
    assert refusal.value.hint.startswith("It must be ")
