from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ConfigError
from simulations.options import Options, parse_settings, to_whole

names = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1, max_size=12)
values = st.text(st.characters(exclude_categories=["C"]), max_size=12).map(str.strip)
options = st.builds(
    Options,
    scenario=names,
    rounds=st.integers(0, 99),
    seed=st.integers(0, 2**32 - 1),
    privacy=st.sampled_from(["none", "record"]),
    epsilon=st.decimals("0.001", "100", places=3),
    delta=st.decimals("0.0000001", "0.5", places=7),
    settings=st.dictionaries(names, values, max_size=3),
    out=values,
)


@given(options)
def test_the_run_configuration_is_the_same_options(given_options: Options) -> None:
    """`flwr run --run-config` and `collegium simulate` must mean the same run."""
    assert Options.from_run_config(given_options.to_run_config()) == given_options


@pytest.mark.parametrize(
    "bad",
    [
        {"unknown": 1},
        {"rounds": "3"},
        {"rounds": True},
        {"epsilon": "many"},
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"delta": 1.0},
        {"seed": -1},
        {"seed": 2**32},
        {"privacy": "record+site"},
        {"privacy": "local"},
        {"budget": "3"},
        {"privacy": "recrod"},
        {"set": "learning_rate"},
        {"set": "a=1 a=2"},
        {"set": "'"},
        {"rounds": 2**53},
        {"rounds": 9223372036854775807},
        {"sites": 2**53},
    ],
)
def test_bad_run_configurations_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Options.from_run_config(bad)
    assert 1 <= len(caught.value.lines()) <= 2


@pytest.mark.parametrize("text", ["-1", "1.5", "9007199254740992", "1e300", "inf", "many"])
def test_a_whole_number_is_one_that_a_job_can_hold(text: str) -> None:
    with pytest.raises(ConfigError):
        to_whole("local_steps", text, low=0)
    assert to_whole("local_steps", "9007199254740991", low=0) == 2**53 - 1


def test_flowers_numbers_become_exact_decimals() -> None:
    assert Options.from_run_config({"epsilon": 0.1}).epsilon == Decimal("0.1")


def test_settings_keep_what_follows_the_first_equals_sign() -> None:
    assert dict(parse_settings(["a=b=c"])) == {"a": "b=c"}
