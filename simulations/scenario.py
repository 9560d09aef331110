"""A scenario: a task, the sites that share it, and where their rows come from. Read from TOML, ours or anybody's.

The built-in ones are the TOML files beside this module; they are also the examples of what a file may say.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from privacy.errors import ConfigError
from simulations.split import Split
from strategies.task import SiteId, Task
from strategies.task_file import TASK_KEYS, StrictTable, parse_task

_HINT = "How to write a scenario: docs/how-to-own-data.md."
_FEWEST_SITES = 3
_SITE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Origin = Literal["files", "uci-heart-disease", "uci-credit-default"]
_BUILT_IN_ORIGINS = ("uci-heart-disease", "uci-credit-default")


@dataclass(frozen=True)
class RowRule:
    """A public rule that decides from one cell of a row whether the row belongs to a site.

    The row belongs if ``over < cell <= up_to``, the cell is ``equal_to`` if that is set, and not ``other_than``.
    """

    column: str
    over: float = -math.inf
    up_to: float = math.inf
    equal_to: float | None = None
    other_than: float | None = None


@dataclass(frozen=True)
class SiteSource:
    """Where one site's rows come from; all public.

    Attributes:
      file: Relative to the scenario's folder (own data) or to the data home (built-in).
      sha256: Digest of the file in hex, or ``None``: not checked.
      rows: How many rows the site must have, or ``None``: not checked.
      only: Rules that all must hold for a row of the file to belong to this site.
    """

    id: SiteId
    title: str
    file: str
    sha256: str | None = None
    rows: int | None = None
    only: tuple[RowRule, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """What a run is about; all public, fixed before any row is read.

    Attributes:
      owner: Whose data it is.
      source: Address or DOI.
      origin: How the rows are obtained: the sites' own files, or a data set this package knows.
      folder: What own files are relative to; ``None`` for a built-in scenario.
      incomplete: What to do with a row that has a blank where the task expects a value.
      rows_per_site: At most this many training records a site; 0 means all. Test records stay all.
      record_privacy_refused: Why record-level privacy cannot be had here; empty: it can.
    """

    name: str
    title: str
    licence: str
    owner: str
    source: str
    task: Task
    sites: tuple[SiteSource, ...]
    split: Split = field(default_factory=Split)
    origin: Origin = "files"
    folder: Path | None = None
    incomplete: Literal["refuse", "drop"] = "refuse"
    rows_per_site: int = 0
    record_privacy_refused: str = ""
    notes: str = ""

    @property
    def scaling(self) -> Literal["public", "own"]:
        """Whether inputs are scaled by public constants or by each site's own statistics."""
        return self.task.scaling


def names() -> tuple[str, ...]:
    """Returns the names of the built-in scenarios."""
    folder = resources.files("simulations").joinpath("scenarios")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load(name_or_path: str) -> Scenario:
    """Loads a built-in scenario by name, or any by the path of its ``.toml`` file.

    Raises: ConfigError: No such scenario or file, or its content is not usable.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return parse_scenario(_toml(_file_text(path), str(path)), where=f"{path}: ", folder=path.parent)
    known = names()
    if name_or_path in known:
        text = resources.files("simulations").joinpath("scenarios", f"{name_or_path}.toml").read_text("utf-8")
        return parse_scenario(_toml(text, name_or_path), where=f"{name_or_path}: ", folder=None)
    close = difflib.get_close_matches(name_or_path, known, n=1)
    raise ConfigError(
        f"unknown scenario {name_or_path!r}" + (f": is {close[0]!r} meant?" if close else ""),
        hint=f"There are: {', '.join(known)}; or give the path of a .toml file of your own.",
    )


def parse_scenario(data: Mapping[str, object], *, where: str, folder: Path | None) -> Scenario:
    """Reads a scenario out of a TOML document.

    Args:
      data: The document. Public.
      where: Prefix of messages, such as ``"clinics.toml: "``.
      folder: What the sites' files are relative to; ``None`` for a built-in scenario.

    Raises: ConfigError: Anything missing, misspelt, of a wrong type or contradictory.
    """
    task = parse_task({key: value for key, value in data.items() if key in TASK_KEYS}, where=where)
    table = StrictTable({key: value for key, value in data.items() if key not in TASK_KEYS}, where)
    reading = table.table("data", optional=True)
    refused = table.text("record_privacy_refused", "")
    if task.scaling == "own" and not refused:
        refused = "inputs are scaled by each site's own statistics, so one record moves the scaling of all others"
    scenario = Scenario(
        name=_identifier(table, "name"),
        title=table.text("title"),
        licence=table.text("licence", "not stated"),
        owner=table.text("owner", "not stated"),
        source=table.text("source", ""),
        task=task,
        sites=_sites(table),
        split=_split(table.table("split", optional=True)),
        origin=_origin(reading) if folder is None else "files",
        folder=folder,
        incomplete="drop" if reading.choice("incomplete", ("refuse", "drop"), "refuse") == "drop" else "refuse",
        rows_per_site=reading.whole("rows_per_site", 0),
        record_privacy_refused=refused,
        notes=table.text("notes", ""),
    )
    reading.close()
    table.close()
    return scenario


def _sites(table: StrictTable) -> tuple[SiteSource, ...]:
    entries = table.tables("sites")
    sites = tuple(_site(entry) for entry in entries)
    if len(sites) < _FEWEST_SITES:
        raise table.error(
            "sites",
            "must have at least three entries: of two, each could tell the other's part from the sum",
            hint=_HINT,
        )
    for index, site in enumerate(sites):
        if any(site.id == other.id for other in sites[:index]):
            raise table.error(f"sites[{index}].id", f"{site.id!r} is there twice", hint=_HINT)
    return sites


def _site(table: StrictTable) -> SiteSource:
    site_id = SiteId(_identifier(table, "id"))
    sha256 = table.text("sha256", "").lower() or None
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise table.error("sha256", "must be 64 hexadecimal digits", hint="sha256sum FILE prints them.")
    site = SiteSource(
        id=site_id,
        title=table.text("title", site_id),
        file=table.text("file"),
        sha256=sha256,
        rows=table.whole("rows", least=1) if "rows" in table else None,
        only=tuple(_rule(entry) for entry in table.tables("only", optional=True)),
    )
    table.close()
    return site


def _rule(table: StrictTable) -> RowRule:
    rule = RowRule(
        column=table.text("column"),
        over=table.number("over") if "over" in table else -math.inf,
        up_to=table.number("up_to") if "up_to" in table else math.inf,
        equal_to=table.number("equal_to") if "equal_to" in table else None,
        other_than=table.number("other_than") if "other_than" in table else None,
    )
    if rule.over >= rule.up_to:
        raise table.error("up_to", "must be greater than over")
    table.close()
    return rule


def _split(table: StrictTable) -> Split:
    split = Split(test=table.number("test", Split.test, above=0.0), seed=table.whole("seed", Split.seed))
    if split.test >= 1.0:
        raise table.error("test", f"must be less than 1, not {split.test:g}", hint="It is the fraction that tests.")
    table.close()
    return split


def _origin(table: StrictTable) -> Origin:
    origin = table.choice("origin", _BUILT_IN_ORIGINS)
    return "uci-heart-disease" if origin == "uci-heart-disease" else "uci-credit-default"


def _identifier(table: StrictTable, key: str) -> str:
    value = table.text(key)
    if not _SITE_ID.fullmatch(value):
        raise table.error(key, f"{value!r} may only have letters, digits, dots, hyphens and underscores", hint=_HINT)
    return value


def _file_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=f"Built-in scenarios: {', '.join(names())}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text in UTF-8", hint=_HINT) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _toml(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}", hint=_HINT) from None
