"""The algorithms by name, with their settings checked."""

import contextlib
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from privacy.errors import ConfigError
from strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from strategies.algorithm import Algorithm
from strategies.fed_avg import FedAvg, FedProx
from strategies.scaffold import Scaffold

ALGORITHMS: Mapping[str, type[FedAvg | FedAdam | FedYogi | FedAdagrad | Scaffold]] = MappingProxyType(
    {
        "fedavg": FedAvg,
        "fedprox": FedProx,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
        "fedadagrad": FedAdagrad,
        "scaffold": Scaffold,
    }
)
"""Every algorithm there is; its dataclass fields are its settings."""


def build(name: str, settings: Mapping[str, float] = MappingProxyType({})) -> Algorithm[Any]:
    """Returns the algorithm of that name.

    Args:
      name: One of `ALGORITHMS`.
      settings: Values for some of its settings; the others keep their defaults.

    Raises: ConfigError: No such algorithm, no such setting, or a value out of range; the hint lists what exists.
    """
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown strategy {name!r}", hint=f"Choose one of: {', '.join(ALGORITHMS)}.")
    known = {field.name: field.default for field in fields(ALGORITHMS[name])}
    for setting in settings:
        if setting not in known:
            listed = ", ".join(f"{key} ({default:g})" for key, default in known.items())
            raise ConfigError(
                f"strategy {name!r} has no setting {setting!r}",
                hint=f"Its settings and their defaults: {listed}." if known else "It has no settings.",
            )
    numbers = {setting: _number(setting, value) for setting, value in settings.items()}
    algorithm: Algorithm[Any] = ALGORITHMS[name](**numbers)
    return algorithm


def _number(setting: str, value: object) -> float:
    """Converts what a TOML file or ``--set`` delivered, which may be of any type; True must not pass for 1."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer beyond the range of floats
            return float(value)
    raise ConfigError(f"{setting} is not a usable number", hint="Write it as a decimal number.")
