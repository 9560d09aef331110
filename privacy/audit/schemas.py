"""The versioned formats of this project, as JSON Schemas (2020-12) that travel in the package."""

import json
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from privacy.errors import ConfigError

NAMES = (
    "privacy-audit-v1",
    "verify-v1",
    "simulate-v1",
    "metrics-v1",
    "plan-v1",
    "transcript-v1",
    "charter-v1",
    "site-statement-v1",
)

# A hostile document can hold millions of errors; the best of the first few is what a person can use.
_MOST_ERRORS = 20


@cache
def _validator(name: str, definition: str) -> Draft202012Validator:
    text = resources.files("privacy.audit").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]} if definition else schema)


def check(name: str, value: Any, *, definition: str = "") -> None:
    """Checks a decoded JSON value against one of ``NAMES``; returns nothing.

    Args:
      name: Which format.
      value: What was decoded.
      definition: Name of a part under ``$defs`` that the value should be; empty for the whole.

    Raises: ConfigError: It does not fit; the message says where.
    """
    error = best_match(islice(_validator(name, definition).iter_errors(value), _MOST_ERRORS))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise ConfigError(f"not a valid {name}: at {where[:120]}: {error.message[:160]}")
