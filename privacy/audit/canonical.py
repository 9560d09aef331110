"""JSON with exactly one spelling: RFC 8785 out, and in only what RFC 8785 would have written.

Whatever a stranger sends ends in a value or a ``ConfigError``. Signed numbers are integers or decimal *strings*, so
fractions are refused outright; control characters, those that set the direction of text and those that nobody sees are
refused, because names from a report are printed to terminals and compared by eye.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from privacy.errors import ConfigError

MAX_BYTES = 16 * 2**20
"""Largest report, envelope or page that is read at all."""
MAX_DEPTH = 16
"""Deepest nesting; a report has 8."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def is_plain(text: str) -> bool:
    """Whether people see all of ``text`` and in its order, so that a report may hold it."""
    return _UNPRINTABLE.search(text) is None


def dumps(value: Any) -> bytes:
    """Returns the RFC 8785 encoding of ``value``.

    Raises: ConfigError: Something that JSON cannot say: NaN, an integer beyond 2^53 - 1, half a surrogate pair.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ConfigError(f"not representable in canonical JSON: {str(error)[:120]}") from None


def loads(data: bytes, *, what: str) -> Any:
    """Reads canonical JSON from a stranger.

    Args:
      data: Untrusted bytes.
      what: What they should be, for the message ("the envelope").

    Returns: Values of dict, list, str, int, bool and None, at most ``MAX_DEPTH`` deep.
    Raises: ConfigError: Anything but the one canonical encoding of such a value.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{what} is larger than {MAX_BYTES // 2**20} MB")
    try:
        # A duplicate key, NaN or another spelling is lost or refused by encoding again, below; a fraction is not.
        value = json.loads(data.decode("utf-8"), parse_float=_refuse_fraction)
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{what} is not canonical JSON: {str(error)[:120]}") from None
    _check_content(value, what)
    try:
        same = rfc8785.dumps(value) == data
    except rfc8785.CanonicalizationError as error:
        raise ConfigError(f"{what} is not canonical JSON: {str(error)[:120]}") from None
    if not same:
        raise ConfigError(f"{what} is not in canonical form (RFC 8785): it was edited or re-saved")
    return value


def _refuse_fraction(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:40]} is neither an integer nor a decimal string")


def _check_content(value: Any, what: str) -> None:
    """Walks without recursion, so that depth is an answer and not a crash."""
    open_values: list[tuple[Any, int]] = [(value, 0)]
    while open_values:
        item, depth = open_values.pop()
        if depth > MAX_DEPTH:
            raise ConfigError(f"{what} is nested too deeply")
        if isinstance(item, str) and _UNPRINTABLE.search(item):
            raise ConfigError(f"{what} holds a control character, or one that nobody sees")
        if isinstance(item, Mapping):
            open_values.extend((key, depth) for key in item)
            open_values.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            open_values.extend((child, depth + 1) for child in item)
