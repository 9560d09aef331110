import numpy as np
import pytest

from privacy.errors import ConfigError
from strategies.algorithm import LocalRule
from strategies.fed_avg import FedAvg, FedProx
from tests.strategies.contract import ROUNDS, START, WEIGHTS, AlgorithmContract, vector


class TestFedAvg(AlgorithmContract):
    algorithm = FedAvg()
    rests = True

    def test_two_rounds_by_hand(self) -> None:
        # Weights 1 and 3, start (1, -1, 0).
        # Round 1: a (8, 4, 8), b (0, 4, 8): mean (8+0, 4+12, 8+24) / 4 = (2, 4, 8), model (3, 3, 8).
        # Round 2: a (4, 0, -4), b (0, 8, 4): mean (4+0, 0+24, -4+12) / 4 = (1, 6, 2), model (4, 9, 10).
        np.testing.assert_array_equal(self.algorithm.parameters(self.run()), vector(4.0, 9.0, 10.0))

    def test_sites_take_plain_steps(self) -> None:
        assert self.algorithm.local == LocalRule()

    def test_is_the_weighted_mean_of_the_sites_models(self) -> None:
        models = [START + update for update in ROUNDS[0].values()]
        expected = np.average(models, axis=0, weights=list(WEIGHTS.values()))
        np.testing.assert_allclose(self.algorithm.parameters(self.run(rounds=ROUNDS[:1])), expected, rtol=1e-6)

    def test_steps_far_below_float32_add_up(self) -> None:
        # 1 + 1e-9 is 1 in float32; a thousand such updates must still arrive.
        small = dict.fromkeys(WEIGHTS, vector(1e-9, 0.0, 0.0))
        assert self.run(rounds=[small] * 1000).model[0] == pytest.approx(1.0 + 1e-6, rel=1e-9)


class TestFedProx(AlgorithmContract):
    algorithm = FedProx(mu=0.5)
    rests = True

    def test_two_rounds_by_hand(self) -> None:
        # The server is that of federated averaging: see there.
        np.testing.assert_array_equal(self.algorithm.parameters(self.run()), vector(4.0, 9.0, 10.0))

    def test_sites_are_told_the_proximal_term(self) -> None:
        assert self.algorithm.local == LocalRule(proximal=0.5, control=False)

    @pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
    def test_refuses_a_mu_that_is_no_penalty(self, mu: float) -> None:
        with pytest.raises(ConfigError, match="mu cannot be"):
            FedProx(mu=mu)
