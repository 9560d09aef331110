"""Reads a charter's draft: TOML that people write, with the structure of the format and nothing beyond it.

Numbers are decimals there, moments have a time zone, sites and officers stand in any order; version and the version
before are not in it, because they are computed.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from privacy.audit import canonical
from privacy.charter.document import SCHEMA, Charter, parse, refuse_unless
from privacy.enrolment.bundle import read_bundle
from privacy.enrolment.certificates import Role
from privacy.errors import ConfigError, FederationError
from privacy.toml_document import parse_toml

_HINT = "The keys and what they mean: docs/how-to-federation.md."
_COMPUTED = ("schema", "version", "previous")
_DECIMALS = frozenset({"assets", "privacy", "strategies"})
_OPTIONAL = ("flower", "dns", "uri")
_ALONE = "The file says id, identity, flower, dns and uri; remove the other keys."

Read = Callable[[str], bytes]
"""Returns the bytes of a file by the name that a draft gives it, or raises ConfigError."""


def from_draft(text: str, previous: Charter | None = None, *, read: Read | None = None) -> Charter:
    """Returns the charter that a draft describes.

    Args:
      text: The TOML.
      previous: The version that it replaces, if there is one; what it revoked stays revoked.
      read: Returns the enrolment file that an entry names; without it no entry may name one.

    Raises: ConfigError: No TOML, an unknown or missing key, a wrong value, or a charter weaker than any may be.
    """
    draft = parse_toml(text, "the draft", decimals=True, hint=_HINT)
    for key in _COMPUTED:
        refuse_unless(key not in draft, f"{key} does not belong into a draft", "It is computed.")
    try:
        charter = parse(canonical.dumps(_body(draft, previous, read or _nothing)))
    except RecursionError:
        raise ConfigError("the draft is nested too deeply", hint=_HINT) from None
    except ConfigError as error:
        raise ConfigError(f"the draft is no charter: {error}", hint=error.hint or _HINT) from None
    if previous is not None and charter.federation != previous.federation:
        raise ConfigError(f"the draft is of {charter.federation}, the version before of {previous.federation}")
    return charter


def _body(draft: Mapping[str, Any], previous: Charter | None, read: Read) -> dict[str, Any]:
    body = {key: _spelt(value, decimals=key in _DECIMALS) for key, value in draft.items()}
    if isinstance(body.get("server"), dict):
        body["server"] = _enrolled(body["server"], Role.SERVER, body.get("federation"), read)
    if isinstance(body.get("sites"), list):
        body["sites"] = [_enrolled(entry, Role.SITE, body.get("federation"), read) for entry in body["sites"]]
    if isinstance(body.get("inference"), dict):
        body["inference"] = _answers(body["inference"], draft["inference"])
    for place, name in (("sites", "id"), ("officers", "name")):
        body[place] = _listed(body.get(place), place, name)
    return body | {
        "schema": SCHEMA,
        "version": 1 if previous is None else previous.version + 1,
        "previous": None if previous is None else previous.digest,
        "revoked": _revoked(body.get("revoked", []), previous),
    }


def _enrolled(entry: Any, role: Role, federation: Any, read: Read) -> Any:
    """Takes everything about a holder from the file that it enrolled with, where the entry names one."""
    if not isinstance(entry, dict) or "enrolment" not in entry:
        return {**dict.fromkeys(_OPTIONAL), **entry} if isinstance(entry, dict) else entry
    name = entry["enrolment"]
    refuse_unless(set(entry) == {"enrolment"}, f"enrolment stands alone in a {role}", _ALONE)
    refuse_unless(isinstance(name, str) and name.isprintable(), "enrolment is not the name of a file")
    try:
        told = read_bundle(read(name))
    except FederationError as error:
        raise ConfigError(f"{name}: {error}", hint=error.hint or "It is made by `collegium site enroll`.") from None
    refuse_unless(
        (told.holder.federation, told.holder.role) == (federation, role),
        f"{name} is the enrolment of {told.holder.uri}, which is no {role} of {federation}",
    )
    return {
        "id": told.holder.id,
        "identity": base64.b64encode(told.identity).decode(),
        "flower": told.flower,
        "dns": told.holder.dns,
        "uri": told.holder.uri,
    }


def _answers(spelt: dict[str, Any], draft: Mapping[str, Any]) -> dict[str, Any]:
    """Sorts the lists; every agent weighs 1 and no noise is added, unless the draft says so."""
    lists = {key: sorted(value, key=str) for key, value in spelt.items() if isinstance(value, list)}
    weights = {str(agent): 1 for agent in lists.get("agents", [])}
    noise = _spelt(draft["noise"], decimals=True) if "noise" in draft else None
    return {"weights": weights, **spelt, **lists, "noise": noise}


def _nothing(_: str) -> bytes:
    raise ConfigError("no enrolment can be read here")


def _spelt(value: Any, *, decimals: bool) -> Any:
    """Spells TOML's values as the format does; whatever does not fit is left for the schema to refuse."""
    if isinstance(value, Mapping):
        return {key: _spelt(child, decimals=decimals) for key, child in value.items()}
    if isinstance(value, list):
        return [_spelt(child, decimals=decimals) for child in value]
    if isinstance(value, datetime):
        refuse_unless(value.tzinfo is not None, f"{value.isoformat()} has no time zone", "Add Z for UTC, or +01:00.")
        refuse_unless(value.microsecond == 0, f"{value.isoformat()} is not a whole second")
        refuse_unless(2000 <= value.year < 9999, f"{value.isoformat()} is not of this age")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Decimal) or (decimals and isinstance(value, int) and not isinstance(value, bool)):
        return _decimal(Decimal(value))
    return value if isinstance(value, str | int) else str(value)


def _decimal(value: Decimal) -> str:
    # 1e999999 would be a million digits when written out
    refuse_unless(value.is_finite() and abs(value.adjusted()) < 20, f"{value:.3e} is not a usable number")
    return f"{value:f}"


def _revoked(serials: Any, previous: Charter | None) -> Any:
    """What was revoked once stays so, whether the draft repeats it or not."""
    if not isinstance(serials, list) or not all(isinstance(serial, str) for serial in serials):
        return serials
    return sorted({*serials, *(() if previous is None else previous.revoked)})


def _listed(entries: Any, place: str, name: str) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{place} must be a list of tables", hint=f"Write [[{place}]] above each.")
    names = [str(entry.get(name)) for entry in entries]
    for one in names:
        refuse_unless(names.count(one) == 1, f"{place}: {one} is listed twice")
    return sorted(entries, key=lambda entry: str(entry.get(name)))
