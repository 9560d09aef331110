from dataclasses import replace
from decimal import Decimal

import pytest

from privacy.errors import ConfigError
from simulations.job import resolve
from simulations.options import Options


def test_the_hospitals_run_prices_its_retries_too() -> None:
    job = resolve(Options())
    assert job.sites == ("cleveland", "hungarian", "switzerland", "va")
    assert job.max_attempts == 17


def test_a_strategys_own_settings_come_from_the_scenario_and_yield_to_the_person() -> None:
    options = Options(scenario="hospitals-flamby", strategy="fedadam", privacy="none")
    assert resolve(options).task.training.learning_rate == 0.01
    changed = resolve(replace(options, settings={"learning_rate": "0.5", "server_learning_rate": "0.25"}))
    assert changed.task.training.learning_rate == 0.5
    assert changed.algorithm.server_learning_rate == 0.25  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"rounds": 3},
        {"sites": 3},
        {"strategy": "fedprox"},
        {"privacy": "none"},
        {"secagg": False},
        {"epsilon": Decimal(2)},
        {"delta": Decimal("0.01")},
        {"settings": {"clip": "2"}},
        {"settings": {"rows": "20"}},
    ],
)
def test_whatever_decides_a_run_is_in_its_digest(change: dict[str, object]) -> None:
    assert resolve(replace(Options(), **change)).digest != resolve(Options()).digest  # type: ignore[arg-type]


def test_where_a_run_writes_is_not_part_of_what_was_agreed() -> None:
    assert resolve(replace(Options(), out="elsewhere")).digest == resolve(Options()).digest


@pytest.mark.parametrize(
    "bad",
    [
        {"scenario": "nowhere"},
        {"strategy": "fedsgd"},
        {"sites": 5},
        {"sites": 2},
        {"scenario": "hospitals-flamby"},
        {"settings": {"local_steps": "0"}},
        {"settings": {"local_steps": "1.5"}},
        {"settings": {"learning_rate": "0"}},
        {"settings": {"clip": "nan"}},
        {"settings": {"deadline": "0"}},
        {"settings": {"mu": "1"}},
        {"settings": {"fault.nobody": "silent"}},
        {"settings": {"fault.va": "explodes"}},
    ],
)
def test_what_cannot_run_is_refused_in_words(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(replace(Options(), **bad))  # type: ignore[arg-type]
    assert 1 <= len(caught.value.lines()) <= 2
