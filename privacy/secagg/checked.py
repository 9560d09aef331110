"""What decoded CBOR must be: every function returns the value, typed, or raises RemoteProtocolError (§1.4, §1.5)."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from privacy.errors import RemoteProtocolError
from privacy.secagg.encoding import in_order, is_site_id

_Entry = TypeVar("_Entry")


def refuse_unless(condition: bool, why: str) -> None:
    """Raises RemoteProtocolError with ``why`` unless the condition holds."""
    if not condition:
        raise RemoteProtocolError(why)


def exactly(value: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """Returns a map with exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(names):
        raise RemoteProtocolError("a message does not have the fields of its kind")
    return value


def number(value: Any, low: int, high: int) -> int:
    """Returns an integer with ``low <= value <= high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RemoteProtocolError("a number is missing or out of its range")
    return value


def flag(value: Any) -> bool:
    """Returns a boolean."""
    if not isinstance(value, bool):
        raise RemoteProtocolError("a boolean is missing")
    return value


def octets(value: Any, size: int | None = None) -> bytes:
    """Returns bytes, of that size if one is given."""
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise RemoteProtocolError("a byte string is missing or has the wrong length")
    return value


def text(value: Any, most: int) -> str:
    """Returns text of at most ``most`` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise RemoteProtocolError("a text is missing or too long")
    return value


def listing(value: Any, size: int | None = None) -> list[Any]:
    """Returns a list, of that size if one is given."""
    if not isinstance(value, list) or (size is not None and len(value) != size):
        raise RemoteProtocolError("a list is missing or has the wrong length")
    return value


def site(value: Any) -> str:
    """Returns a site id (§1.5)."""
    if not isinstance(value, str) or not is_site_id(value):
        raise RemoteProtocolError("a site id is missing or malformed")
    return value


def sites(value: Any) -> tuple[str, ...]:
    """Returns a list of site ids in order, without repetition (§1.5)."""
    listed = tuple(site(item) for item in listing(value))
    refuse_unless(in_order(listed), "a list of sites is not sorted, or repeats one")
    return listed


def by_site(value: Any, entry: Callable[[Any], _Entry]) -> dict[str, _Entry]:
    """Returns a map from site ids, in the order of their bytes, to what ``entry`` makes of each value."""
    if not isinstance(value, dict):
        raise RemoteProtocolError("a map of sites is missing")
    return {site(key): entry(value[key]) for key in sorted(value)}


def by_region(value: Any, size: int | None = None) -> dict[int, bytes]:
    """Returns a map from region numbers, written in decimal, to bytes, in ascending order."""
    if not isinstance(value, dict) or not all(re.fullmatch(r"0|[1-9][0-9]{0,5}", key) for key in value):
        raise RemoteProtocolError("a map of regions is missing or malformed")
    return {int(key): octets(value[key], size) for key in sorted(value, key=int)}
