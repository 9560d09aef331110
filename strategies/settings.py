"""The bounds of an algorithm's settings: one check, one message."""

import math

from privacy.errors import ConfigError


def require(name: str, value: float, *, low: float, above: bool = False, below: float = math.inf) -> None:
    """Checks that a setting is a number with ``low <= value < below``, or ``low < value < below`` if ``above``.

    Raises: ConfigError: It is not.
    """
    # Infinity is never less than ``below``, and not-a-number fails every comparison.
    if (value > low or (value == low and not above)) and value < below:
        return
    floor = f"greater than {low:g}" if above else f"at least {low:g}"
    raise ConfigError(
        f"{name} cannot be {value:g}",
        hint=f"It must be {floor}" + (f" and less than {below:g}." if math.isfinite(below) else "."),
    )
