"""Reading TOML that somebody else wrote: whatever the text is, a document comes out or one plain error."""

import tomllib
from decimal import Decimal
from typing import Any

from privacy.errors import ConfigError

_SHOWN = 120  # characters of what the parser says


def parse_toml(text: str, what: str, *, decimals: bool = False, hint: str = "") -> dict[str, Any]:
    """Returns the document.

    Args:
      text: Untrusted.
      what: It is, for the message.
      decimals: Whether fractions become ``Decimal``, exactly as they stand, in place of floats.
      hint: For whoever wrote it.

    Raises: ConfigError: It is no TOML, nested too deeply, or has a number that Python does not read.
    """
    try:
        return tomllib.loads(text, parse_float=Decimal) if decimals else tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{what}: not valid TOML: nested too deeply", hint=hint) from None
    except (ValueError, ArithmeticError) as error:  # not TOML, or a number of thousands of digits
        raise ConfigError(f"{what}: not valid TOML: {str(error)[:_SHOWN]}", hint=hint) from None
