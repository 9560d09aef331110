"""A scenario: a task, the sites that share it, and where their rows come from. Read from TOML, ours or anybody's.

The built-in ones are the TOML files beside this module; they are also the examples of what a file may say. A file may
be based on another one and say only what differs.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from clients.split import Split
from privacy.errors import ConfigError
from privacy.toml_document import parse_toml
from simulations.based_on import merged
from simulations.data.deal import Deal, parse_deal
from strategies.chain_spec import ChainSpec, parse_chain
from strategies.parts import AgentSpec, Division, parse_agents, parse_division
from strategies.refusals import OWN_SCALING
from strategies.registry import ALGORITHMS
from strategies.study import Study
from strategies.task import SiteId, Task
from strategies.task_file import TASK_KEYS, StrictTable, parse_task

_HINT = "How to write a scenario: docs/how-to-own-data.md."
_FEWEST_SITES = 3
_LARGEST_SEED = 2**32 - 1  # of what cuts the rows
_SITE_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

Origin = Literal["files", "uci-heart-disease", "uci-credit-default", "sklearn-digits", "fashion-mnist"]
_BUILT_IN_ORIGINS: tuple[Origin, ...] = ("uci-heart-disease", "uci-credit-default", "sklearn-digits", "fashion-mnist")

_ONE_TABLE: Mapping[Origin, str] = {
    "sklearn-digits": "scikit-learn's digits",
    "fashion-mnist": "images/fashion_mnist_first5000_1000.npz",
}
"""What stands in the place of the sites' files where an origin is one table; its rows have to be dealt."""


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
      deal: How the rows of one table become those of the sites; ``None``: each site has rows of its own.
      table_rows: How many rows that table must have, or ``None``: not checked.
      division: Which part of the model each site holds.
      agents: Sites whose training code or settings are their own.
      chain: Where the model is cut for split training, if it is.
      rows_per_site: At most this many training records a site; 0 means all. Test records stay all.
      allowed: Strategies that the demo charter lists; empty: all there are.
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
    deal: Deal | None = None
    table_rows: int | None = None
    division: Division = field(default_factory=Division)
    agents: Mapping[SiteId, AgentSpec] = field(default_factory=dict)
    chain: ChainSpec | None = None
    rows_per_site: int = 0
    allowed: tuple[str, ...] = ()
    record_privacy_refused: str = ""
    notes: str = ""

    @property
    def scaling(self) -> Literal["public", "own"]:
        """Whether inputs are scaled by public constants or by each site's own statistics."""
        return self.task.scaling

    @property
    def study(self) -> Study:
        """What is learnt, apart from whose rows it is learnt from."""
        sites = tuple(site.id for site in self.sites)
        return Study(self.name, self.title, self.task, sites, self.division, self.agents, self.chain)

    @property
    def n_rows(self) -> int:
        """Number of rows that the scenario declares; 0 if it does not."""
        return self.table_rows or sum(site.rows or 0 for site in self.sites)


def names() -> tuple[str, ...]:
    """Returns the names of the built-in scenarios."""
    folder = resources.files("simulations").joinpath("scenarios")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load(name_or_path: str) -> Scenario:
    """Loads a built-in scenario by name, or any by the path of its ``.toml`` file.

    Raises: ConfigError: No such scenario or file, or its content is not usable.
    """
    document, folder, where = *_document(name_or_path), f"{name_or_path}: "
    if "based_on" in document:
        base, folder = _base(document.pop("based_on"), folder, where)
        document = merged(base, document, where=where)
    return parse_scenario(document, where=where, folder=folder)


def _document(name_or_path: str) -> tuple[dict[str, object], Path | None]:
    """Returns a scenario's document, and what its files are relative to (``None``: built-in)."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return parse_toml(_file_text(path), str(path), hint=_HINT), path.parent
    known = names()
    if name_or_path in known:
        text = resources.files("simulations").joinpath("scenarios", f"{name_or_path}.toml").read_text("utf-8")
        return parse_toml(text, name_or_path, hint=_HINT), None
    close = difflib.get_close_matches(name_or_path, known, n=1)
    raise ConfigError(
        f"unknown scenario {name_or_path!r}" + (f": is {close[0]!r} meant?" if close else ""),
        hint=f"There are: {', '.join(known)}; or give the path of a .toml file of your own.",
    )


def _base(named: object, beside: Path | None, where: str) -> tuple[dict[str, object], Path | None]:
    """Returns the document that another one is based on, and what the files of both are relative to."""
    hint = f"Name a file beside this one, or one of: {', '.join(names())}."
    if not isinstance(named, str) or Path(named).name != named:
        raise ConfigError(f"{where}based_on: must be a scenario's name or a .toml beside this file", hint=hint)
    own = beside is not None and named.endswith(".toml")
    if not own and named not in names():
        raise ConfigError(f"{where}based_on: there is no scenario {named!r}", hint=hint)
    document, folder = _document(str(beside / named) if own and beside is not None else named)
    if "based_on" in document:
        raise ConfigError(
            f"{where}based_on: {named} is itself based on {document['based_on']}", hint="One step is all there is."
        )
    return document, folder


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
        refused = OWN_SCALING
    origin = _origin(reading) if folder is None else "files"
    entries = table.tables("sites")
    shares = {index: entry.number("share") for index, entry in enumerate(entries) if "share" in entry}
    sites = _sites(table, entries, _ONE_TABLE.get(origin))
    ids = tuple(site.id for site in sites)
    division = parse_division(table.table("submodels", optional=True), ids)
    scenario = Scenario(
        name=_identifier(table, "name"),
        title=table.text("title"),
        licence=table.text("licence", "not stated"),
        owner=table.text("owner", "not stated"),
        source=table.text("source", ""),
        task=task,
        sites=sites,
        split=_split(table.table("split", optional=True)),
        origin=origin,
        folder=folder,
        incomplete="drop" if reading.choice("incomplete", ("refuse", "drop"), "refuse") == "drop" else "refuse",
        deal=_deal(reading, {ids[index]: share for index, share in shares.items()}, sites, task, origin),
        table_rows=reading.whole("rows", least=1) if "rows" in reading else None,
        division=division,
        agents=parse_agents(table.table("agents", optional=True), ids),
        chain=parse_chain(table, division),
        rows_per_site=reading.whole("rows_per_site", 0),
        allowed=_allowed(table.table("charter", optional=True)),
        record_privacy_refused=refused,
        notes=table.text("notes", ""),
    )
    if scenario.table_rows is not None and scenario.deal is None:
        raise reading.error("rows", "goes with deal; where sites have rows of their own, each says how many")
    reading.close()
    table.close()
    return scenario


def _deal(
    reading: StrictTable, shares: Mapping[SiteId, float], sites: Sequence[SiteSource], task: Task, origin: Origin
) -> Deal | None:
    """Reads how one table is dealt, and refuses what contradicts that it is one."""
    if "deal" not in reading:
        if origin in _ONE_TABLE:
            raise reading.error("deal", "is missing: the rows of this origin are one table", hint=_HINT)
        if shares:
            raise reading.error("deal", "is missing: sites have a share of a table that is dealt", hint=_HINT)
        return None
    table = reading.table("deal")
    if any(site.only or site.rows for site in sites) or len({(site.file, site.sha256) for site in sites}) > 1:
        raise table.error("", "deals one table: the sites must share a file and have no rows or rules of their own")
    if task.patient:
        raise table.error("", "deals single rows: the records of a patient could go to several sites")
    return parse_deal(table, [site.id for site in sites], at_sites=shares, n_classes=task.target.classes)


def _sites(table: StrictTable, entries: Sequence[StrictTable], one_file: str | None) -> tuple[SiteSource, ...]:
    sites = tuple(_site(entry, one_file) for entry in entries)
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


def _site(table: StrictTable, one_file: str | None) -> SiteSource:
    site_id = SiteId(_identifier(table, "id"))
    sha256 = table.text("sha256", "").lower() or None
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise table.error("sha256", "must be 64 hexadecimal digits", hint="sha256sum FILE prints them.")
    site = SiteSource(
        id=site_id,
        title=table.text("title", site_id),
        file=one_file or table.text("file"),
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
    split = Split(
        test=table.number("test", Split.test, above=0.0), seed=table.whole("seed", Split.seed, most=_LARGEST_SEED)
    )
    if split.test >= 1.0:
        raise table.error("test", f"must be less than 1, not {split.test:g}", hint="It is the fraction that tests.")
    table.close()
    return split


def _allowed(table: StrictTable) -> tuple[str, ...]:
    allowed = table.texts("strategies")
    for name in allowed:
        if name not in ALGORITHMS:
            raise table.error(
                "strategies", f"there is no strategy {name!r}", hint=f"There are: {', '.join(ALGORITHMS)}."
            )
    table.close()
    return allowed


def _origin(table: StrictTable) -> Origin:
    chosen = table.choice("origin", _BUILT_IN_ORIGINS)
    return next(origin for origin in _BUILT_IN_ORIGINS if origin == chosen)


def _identifier(table: StrictTable, key: str) -> str:
    value = table.text(key)
    if not _SITE_ID.fullmatch(value):
        raise table.error(key, f"{value!r} may only have a-z, digits, dots, hyphens and underscores", hint=_HINT)
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
