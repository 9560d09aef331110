from typing import Any

import pytest

from privacy.errors import ConfigError
from strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from strategies.algorithm import Algorithm
from strategies.fed_avg import FedAvg, FedProx
from strategies.registry import ALGORITHMS, build
from strategies.scaffold import Scaffold


def test_names_are_the_documented_ones() -> None:
    assert list(ALGORITHMS) == ["fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "scaffold"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_name_builds_the_algorithm_of_that_name(name: str) -> None:
    assert build(name).name == name


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("fedavg", {}, FedAvg()),
        ("fedprox", {"mu": 1}, FedProx(mu=1.0)),
        ("fedadam", {"server_learning_rate": 0.01, "beta2": 0.999}, FedAdam(server_learning_rate=0.01, beta2=0.999)),
        ("fedyogi", {"tau": 1e-8, "beta1": 0.0}, FedYogi(tau=1e-8, beta1=0.0)),
        ("fedadagrad", {"server_learning_rate": 0.316228}, FedAdagrad(server_learning_rate=0.316228)),
        ("scaffold", {"server_learning_rate": 0.5}, Scaffold(server_learning_rate=0.5)),
    ],
)
def test_settings_arrive(name: str, settings: dict[str, float], expected: Algorithm[Any]) -> None:
    assert build(name, settings) == expected


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match="unknown strategy 'fedsgd'") as refusal:
        build("fedsgd")
    assert refusal.value.hint == "Choose one of: fedavg, fedprox, fedadam, fedyogi, fedadagrad, scaffold."


def test_unknown_setting_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match="strategy 'fedadagrad' has no setting 'beta2'") as refusal:
        build("fedadagrad", {"beta2": 0.9})
    assert (
        refusal.value.hint == "Its settings and their defaults: server_learning_rate (0.01), beta1 (0.9), tau (0.001)."
    )
    with pytest.raises(ConfigError, match="strategy 'fedavg' has no setting 'mu'") as refusal:
        build("fedavg", {"mu": 0.1})
    assert refusal.value.hint == "It has no settings."


def test_fixed_parts_are_not_settings() -> None:
    for name in ("name", "declared", "local", "is_sum"):
        with pytest.raises(ConfigError, match="has no setting"):
            build("scaffold", {name: 1.0})


@pytest.mark.parametrize("value", ["0.1", True, None, [0.1], 10**400], ids=["text", "boolean", "none", "list", "huge"])
def test_a_setting_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="mu is not a usable number"):
        build("fedprox", {"mu": value})


def test_a_number_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(ConfigError, match="beta1 cannot be 1") as refusal:
        build("fedadam", {"beta1": 1.0})
    assert refusal.value.hint == "It must be at least 0 and less than 1."
    with pytest.raises(ConfigError, match="tau cannot be 0") as refusal:
        build("fedyogi", {"tau": 0})
    assert refusal.value.hint == "It must be greater than 0."
