"""What a person asks for: the same keys on the command line and in Flower's run configuration, checked once."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Self

from privacy.dp.combinations import COMBINATIONS
from privacy.errors import ConfigError
from strategies.task_file import LARGEST_WHOLE

PRIVACY = tuple("+".join(names) or "none" for names in COMBINATIONS)
_DECIMALS = ("epsilon", "delta", "budget")


@dataclass(frozen=True)
class Options:
    """The options of ``collegium simulate``. Zero or empty means: as the scenario says.

    Attributes:
      sites: Take part only the first that many sites of the scenario.
      privacy: One of ``PRIVACY``.
      ledgers: Folder of budget ledgers that outlast the run; empty for new ones in the run folder.
      budget: Most epsilon that a site's records may cost over all runs; 0 for no limit.
      settings: ``--set key=value`` pairs, values still as text.
      out: Run folder; empty for one under ``runs/``.
    """

    scenario: str = "hospitals"
    rounds: int = 0
    seed: int = 42
    sites: int = 0
    strategy: str = ""
    privacy: str = "record"
    epsilon: Decimal = Decimal(1)
    delta: Decimal = Decimal("0.001")
    secagg: bool = True
    ledgers: str = ""
    budget: Decimal = Decimal(0)
    settings: Mapping[str, str] = field(default_factory=dict)
    out: str = ""

    def __post_init__(self) -> None:
        if self.privacy not in PRIVACY:
            raise ConfigError(
                f"--privacy {self.privacy.replace('+', ' --privacy ')} is not offered",
                hint=f"There are: {', '.join(PRIVACY[:-1])}, and record together with distributed.",
            )
        for name, most in (("rounds", LARGEST_WHOLE), ("seed", 2**32 - 1), ("sites", LARGEST_WHOLE)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"--{name} is a whole number from 0 to {most}")
        if not (self.epsilon.is_finite() and self.epsilon > 0):
            raise ConfigError(f"--epsilon must be a positive number, not {self.epsilon}")
        if not (self.delta.is_finite() and 0 < self.delta < 1):
            raise ConfigError(f"--delta must be between 0 and 1, not {self.delta}")
        if not (self.budget.is_finite() and self.budget >= 0):
            raise ConfigError(f"--budget must be a positive number, not {self.budget}")
        if self.budget and self.privacy == "none":
            raise ConfigError(
                "--budget without privacy would be spent at once", hint="Leave it out, or choose --privacy."
            )
        if self.budget and not self.ledgers:
            raise ConfigError(
                "--budget holds over all runs, so the ledgers must outlast this one", hint="Add --ledgers FOLDER."
            )

    @classmethod
    def from_run_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads Flower's run configuration (``flwr run --run-config``).

        Raises: ConfigError: An unknown key, a value of another type, or one out of range.
        """
        known = {each.name for each in fields(cls)} - {"settings"} | {"set"}
        for key in config:
            if key not in known:
                raise ConfigError(f"unknown run configuration key {key!r}", hint=f"Known: {', '.join(sorted(known))}.")
        values: dict[str, Any] = {}
        for key, value in config.items():
            if key == "set":
                values["settings"] = parse_settings(_words(str(value)))
            elif key in _DECIMALS:
                values[key] = to_decimal(key, str(value))
            else:
                values[key] = _typed(key, value, type(getattr(cls, key)))
        return cls(**values)

    def to_run_config(self) -> dict[str, str | int | float | bool]:
        """Returns the run configuration that ``from_run_config`` reads back to an equal value."""
        plain = {key: getattr(self, key) for key in ("scenario", "rounds", "seed", "sites", "strategy", "privacy")}
        pairs = shlex.join(f"{key}={value}" for key, value in self.settings.items())
        return {
            **plain,
            **{key: str(getattr(self, key)) for key in _DECIMALS},
            "secagg": self.secagg,
            "ledgers": self.ledgers,
            "set": pairs,
            "out": self.out,
        }


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"the run configuration key 'set' is not a list of key=value: {error}") from None


def parse_settings(pairs: list[str]) -> Mapping[str, str]:
    """Reads ``key=value`` pairs. Raises: ConfigError: A pair without ``=``, an empty key, or a key given twice."""
    settings: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set takes key=value, not {pair!r}")
        if key.strip() in settings:
            raise ConfigError(f"--set gives {key.strip()} twice")
        settings[key.strip()] = value.strip()
    return MappingProxyType(settings)


def to_decimal(name: str, text: str) -> Decimal:
    """Reads an exact decimal. Raises: ConfigError: It is not a finite number."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ConfigError(f"--{name} must be a number, not {text!r}") from None
    if not value.is_finite():
        raise ConfigError(f"--{name} must be a finite number, not {text}")
    return value


def to_number(name: str, text: str) -> float:
    """Reads a finite float. Raises: ConfigError: It is not one."""
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"--set {name} must be a number, not {text!r}") from None
    if not math.isfinite(value):
        raise ConfigError(f"--set {name} must be a finite number, not {text}")
    return value


def to_whole(name: str, text: str, *, low: int) -> int:
    """Reads a whole number of at least ``low``. Raises: ConfigError: It is not one, or beyond what JSON holds."""
    value = to_number(name, text)
    if value != int(value) or not low <= value <= LARGEST_WHOLE:
        raise ConfigError(f"--set {name} must be a whole number from {low} to {LARGEST_WHOLE}, not {text}")
    return int(value)


def _typed(key: str, value: object, expected: type) -> Any:
    if type(value) is not expected:
        raise ConfigError(f"the run configuration key {key!r} must be {expected.__name__}, not {value!r}")
    return value
