"""``site.toml`` and ``server.toml``: what a site, or the coordinator, decides for itself.

A misspelt key must not fall back to a default in silence, so every key that nobody asked for is refused. Messages say
the place in the file. The keys are in docs/how-to-site.md.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from privacy.dp.filters import FilterKind
from privacy.errors import ConfigError
from privacy.toml_document import parse_toml

CLAIMS = ("record", "patient", "record-distributed", "patient-distributed", "site-distributed")
"""What a site itself pays for; noise of the claim ``site`` is the server's."""

_HINT = "The keys and what they mean: docs/how-to-site.md."
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class AssetSettings:
    """One ``[asset.NAME]`` of a site: where data is, and what may become of it.

    Attributes:
      name: As the charter calls it.
      path: The table, absolute.
      purposes: What the site lets it be used for.
      sensitivity: A word for the site's policy.
      columns: The study's name of a column -> the file's, where they differ.
      patient: The file's column that tells patients apart; empty: none.
      opt_out: List of those who do not take part: values of ``patient``, or numbers of rows; absolute.
      incomplete: What to do with a row that has a blank where the study expects a value.
      test: Share of the units that is kept back to score models here, in (0, 1).
      seed: Orders them before the cut.
      rows: At most this many records train; 0: all.
      claims: What the ledger keeps a budget for; a run is refused unless it is priced under each and no other.
      filter: The sum behind the budgets without ``-distributed``; ``None``: by the charter (see ``joining``).
      epsilon: Less than the charter's cap, or ``None`` for the cap.
    """

    name: str
    path: Path
    purposes: tuple[str, ...]
    sensitivity: str
    columns: Mapping[str, str]
    patient: str
    opt_out: Path | None
    incomplete: Literal["refuse", "drop"]
    test: float
    seed: int
    rows: int
    claims: tuple[str, ...]
    filter: FilterKind | None
    epsilon: Decimal | None


@dataclass(frozen=True)
class Settings:
    """What both files say.

    Attributes:
      timezone: In which the policy's time of day is meant.
      policy: Name of the policy's file in the folder.
      study: Name of the study's file in the folder.
    """

    timezone: ZoneInfo
    policy: str
    study: str


@dataclass(frozen=True)
class ChannelSettings:
    """``[channel]`` of a site: where agents talk to each other. Addresses are ``host:port``.

    Attributes:
      listen: Where this site's services listen, port 0 for any; empty: nowhere, it only dials.
      peers: Where others listen, by site id, or by name of a device of a plan.
    """

    listen: str
    peers: Mapping[str, str]


@dataclass(frozen=True)
class SiteSettings(Settings):
    """``site.toml``.

    Attributes:
      server: Where the coordinator listens: ``https://host:port``.
      assets: By name.
      channel: ``None`` without a ``[channel]``: this site neither dials nor answers agents.
    """

    server: str
    assets: Mapping[str, AssetSettings]
    channel: ChannelSettings | None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of ``server``."""
        return _address(self.server) or ("", 0)


@dataclass(frozen=True)
class ServerSettings(Settings):
    """``server.toml``.

    Attributes:
      listen: Host and port of the public listener, 0 for any port.
      roles: Accounts of this machine by the roles that they have in the policy.
    """

    listen: tuple[str, int]
    roles: Mapping[str, tuple[str, ...]]


def read_site_settings(text: str, folder: Path, *, where: str = "site.toml") -> SiteSettings:
    """Reads ``site.toml``.

    Args:
      text: The TOML.
      folder: What paths are relative to.
      where: Name of the file, for messages.

    Raises: ConfigError: Anything missing, misspelt, of a wrong type or out of range.
    """
    table = _document(text, where)
    server = table.text("server")
    if _address(server) is None:
        raise table.error("server", f"{server!r} is not an address such as https://coordinator.example:9443")
    assets = table.table("asset")
    listed = {name: _asset(name, assets.table(name), folder) for name in assets.names()}
    if not listed:
        raise table.error("asset", "lists no data", "Write an [asset.NAME] section for each asset of the charter.")
    common, channel = _common(table, "site.cedar"), _channel(table)
    settings = SiteSettings(*common, server=server, assets=MappingProxyType(listed), channel=channel)
    table.close()
    return settings


def read_server_settings(text: str, *, where: str = "server.toml") -> ServerSettings:
    """Reads ``server.toml``. Raises: ConfigError: As ``read_site_settings``."""
    table = _document(text, where)
    listen = table.text("listen")
    address = _address(f"https://{listen}")
    if address is None:
        raise table.error("listen", f"{listen!r} is not host:port")
    named = table.table("roles")
    roles = {role: named.texts(role) for role in named.names()}
    settings = ServerSettings(*_common(table, "server.cedar"), listen=address, roles=MappingProxyType(roles))
    table.close()
    return settings


def _common(table: "_Table", policy: str) -> tuple[ZoneInfo, str, str]:
    zone = table.text("timezone", "UTC")
    try:
        timezone = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise table.error("timezone", f"{zone!r} is unknown here", "Such as Europe/Berlin.") from None
    return timezone, _name(table, "policy", policy), _name(table, "study", "study.toml")


def _asset(name: str, table: "_Table", folder: Path) -> AssetSettings:
    opt_out, kind = table.text("opt_out", ""), table.choice("filter", ("", *FilterKind), "")
    test, epsilon = table.number("test", "0.34"), table.number("epsilon", "0")
    settings = AssetSettings(
        name=name,
        path=folder / table.text("path"),
        purposes=table.texts("purposes"),
        sensitivity=table.text("sensitivity"),
        columns=_columns(table.table("columns")),
        patient=table.text("patient", ""),
        opt_out=folder / opt_out if opt_out else None,
        incomplete="drop" if table.choice("incomplete", ("refuse", "drop"), "refuse") == "drop" else "refuse",
        test=float(test),
        seed=table.whole("seed", 43, _LARGEST_SEED),
        rows=table.whole("rows", 0, 2**53),
        claims=table.texts("claims", ("record",)),
        filter=FilterKind(kind) if kind else None,
        epsilon=epsilon or None,
    )
    if not 0 < settings.test < 1:
        raise table.error("test", f"must be above 0 and below 1, not {test}")
    if epsilon < 0:
        raise table.error("epsilon", f"must be above 0, not {epsilon}")
    for claim in settings.claims:
        if claim not in CLAIMS:
            raise table.error("claims", f"{claim!r} is not one of: {', '.join(CLAIMS)}")
    table.close()
    return settings


def _channel(table: "_Table") -> ChannelSettings | None:
    if "channel" not in table.names():
        return None
    own = table.table("channel")
    listed = own.table("peers")
    listen = own.text("listen", "")
    if listen and _address(f"https://{listen}") is None:
        raise own.error("listen", f"{listen!r} is not host:port")
    peers = {name: listed.text(name) for name in listed.names()}
    for name, peer in peers.items():
        address = _address(f"https://{peer}")
        if address is None or not address[1]:
            raise listed.error(name, f"{peer!r} is not host:port")
    own.close()
    return ChannelSettings(listen, MappingProxyType(peers))


def _columns(table: "_Table") -> Mapping[str, str]:
    columns = {name: table.text(name) for name in table.names()}
    for name, column in columns.items():
        if list(columns.values()).count(column) > 1:
            raise table.error(name, f"{column!r} is there twice")
    return MappingProxyType(columns)


def _name(table: "_Table", key: str, default: str) -> str:
    """Takes the name of a file in the folder itself: only there nobody else can put another one."""
    name = table.text(key, default)
    if Path(name).name != name or name.startswith("."):
        raise table.error(key, f"{name!r} is not the name of a file in this folder")
    return name


def _address(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment and "@" not in parts.netloc
    return (host, port) if parts.scheme == "https" and host and port is not None and plain else None


def _document(text: str, where: str) -> "_Table":
    return _Table(parse_toml(text, where, decimals=True, hint=_HINT), where, "")


class _Table:
    """One table while it is read; ``close`` refuses the keys that nobody took."""

    def __init__(self, data: object, where: str, place: str) -> None:
        self._where, self._place = where, place
        if not isinstance(data, dict):
            raise self.error("", "must be a table")
        self._left: dict[str, Any] = dict(data)
        self._known: list[str] = []

    def error(self, key: str, problem: str, hint: str = _HINT) -> ConfigError:
        place = ".".join(part for part in (self._place, key) if part)
        return ConfigError(f"{self._where}: {place}: {problem}", hint=hint)

    def names(self) -> list[str]:
        return list(self._left)

    def close(self) -> None:
        for key in self._left:
            close = difflib.get_close_matches(key, self._known, n=1)
            known = f"Known here: {', '.join(sorted(self._known))}."
            raise self.error(key, "unknown key", f"Did you mean {close[0]!r}?" if close else known)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or (not value.strip() and default != ""):
            raise self.error(key, "must be text that is not empty")
        return value.strip()

    def choice(self, key: str, options: Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value not in options:
            raise self.error(key, f"{value!r} is not one of: {', '.join(filter(None, options))}")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = self._take(key, default)
        if not isinstance(values, list | tuple) or not values:
            raise self.error(key, "must be a list with at least one entry")
        if not all(isinstance(value, str) and value.strip() for value in values) or len(set(values)) < len(values):
            raise self.error(key, "must list different texts, none empty")
        return tuple(values)

    def number(self, key: str, default: str) -> Decimal:
        value = self._take(key, Decimal(default))
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self.error(key, "must be a number")
        if not Decimal(value).is_finite():
            raise self.error(key, "must be a finite number")
        return Decimal(value)

    def whole(self, key: str, default: int, most: int) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.error(key, f"must be a whole number from 0 to {most}")
        return value

    def table(self, key: str) -> "_Table":
        """Takes a table; an absent one is empty."""
        return _Table(self._take(key, {}), self._where, ".".join(part for part in (self._place, key) if part))

    def _take(self, key: str, default: object) -> Any:
        self._known.append(key)
        if key not in self._left and default is None:
            raise self.error(key, "is missing")
        return self._left.pop(key, default)
