"""Reads a charter's draft: TOML that people write, with the structure of the format and nothing beyond it.

Numbers are decimals there, moments have a time zone, sites and officers stand in any order; version and the version
before are not in it, because they are computed.
"""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from privacy.audit import canonical
from privacy.charter.document import SCHEMA, Charter, parse, refuse_unless
from privacy.errors import ConfigError

_HINT = "The keys and what they mean: docs/how-to-federation.md."
_COMPUTED = ("schema", "version", "previous")
_DECIMALS = frozenset({"assets", "privacy", "strategies"})
_OPTIONAL = ("flower", "dns", "uri")


def from_draft(text: str, previous: Charter | None = None) -> Charter:
    """Returns the charter that a draft describes.

    Args:
      text: The TOML.
      previous: The version that it replaces, if there is one.

    Raises: ConfigError: No TOML, an unknown or missing key, a wrong value, or a charter weaker than any may be.
    """
    try:
        draft = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"the draft is not TOML: {str(error)[:120]}", hint=_HINT) from None
    for key in _COMPUTED:
        refuse_unless(key not in draft, f"{key} does not belong into a draft", "It is computed.")
    try:
        body = {key: _spelt(value, decimals=key in _DECIMALS) for key, value in draft.items()}
        for place, name in (("sites", "id"), ("officers", "name")):
            body[place] = _listed(body.get(place), place, name)
        body |= {
            "schema": SCHEMA,
            "version": 1 if previous is None else previous.version + 1,
            "previous": None if previous is None else previous.digest,
        }
        charter = parse(canonical.dumps(body))
    except ConfigError as error:
        raise ConfigError(f"the draft is no charter: {error}", hint=error.hint or _HINT) from None
    if previous is not None and charter.federation != previous.federation:
        raise ConfigError(f"the draft is of {charter.federation}, the version before of {previous.federation}")
    return charter


def _spelt(value: Any, *, decimals: bool) -> Any:
    """Spells TOML's values as the format does; whatever does not fit is left for the schema to refuse."""
    if isinstance(value, Mapping):
        return {key: _spelt(child, decimals=decimals) for key, child in value.items()}
    if isinstance(value, list):
        return [_spelt(child, decimals=decimals) for child in value]
    if isinstance(value, datetime):
        refuse_unless(value.tzinfo is not None, f"{value.isoformat()} has no time zone", "Add Z for UTC, or +01:00.")
        refuse_unless(value.microsecond == 0, f"{value.isoformat()} is not a whole second")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Decimal) or (decimals and isinstance(value, int) and not isinstance(value, bool)):
        return _decimal(Decimal(value))
    return value if isinstance(value, str | int) else str(value)


def _decimal(value: Decimal) -> str:
    # 1e999999 would be a million digits when written out
    refuse_unless(value.is_finite() and abs(value.adjusted()) < 20, f"{value:.3e} is not a usable number")
    return f"{value:f}"


def _listed(entries: Any, place: str, name: str) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{place} must be a list of tables", hint=f"Write [[{place}]] above each.")
    if place == "sites":
        entries = [{**dict.fromkeys(_OPTIONAL), **entry} for entry in entries]
    names = [str(entry.get(name)) for entry in entries]
    for one in names:
        refuse_unless(names.count(one) == 1, f"{place}: {one} is listed twice")
    return sorted(entries, key=lambda entry: str(entry.get(name)))
