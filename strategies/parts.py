"""Who trains what and how: which part of the model each site holds, and its own training code and settings.

Public, and read before any private row. A part is named by shares and counts alone; the index sets that follow from it
are `strategies.sub_models`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from strategies.task import SiteId, Training
from strategies.task_file import StrictTable

Kind = Literal["torch", "scikit-learn"]

AGENTS: tuple[Kind, ...] = ("torch", "scikit-learn")
"""The training codes that a site can choose from."""

WHOLE = "whole"
"""Name of the part of every site that is in none."""


@dataclass(frozen=True)
class PartSpec:
    """A part of the model, and who holds it.

    Attributes:
      width: Share of every hidden size, in (0, 1].
      depth: Number of hidden layers or blocks, from the input; 0: all.
    """

    name: str
    sites: tuple[SiteId, ...]
    width: float = 1.0
    depth: int = 0


@dataclass(frozen=True)
class Division:
    """How a model is divided among sites; those in no part hold all of it.

    Attributes:
      private: Glob patterns of the names of parameters that every site keeps to itself.
    """

    parts: tuple[PartSpec, ...] = ()
    private: tuple[str, ...] = ()

    def part_of(self, site: SiteId) -> PartSpec:
        """Returns the part that a site holds."""
        return next((part for part in self.parts if site in part.sites), PartSpec(WHOLE, ()))


@dataclass(frozen=True)
class AgentSpec:
    """The training code of one site.

    Attributes:
      settings: Of `Training`, those that differ at this site.
    """

    kind: Kind = "torch"
    settings: Mapping[str, int | float | str] = field(default_factory=dict)

    def training(self, common: Training) -> Training:
        """Returns the common training settings with this site's own in their place."""
        return replace(common, **dict[str, Any](self.settings))


def parse_division(table: StrictTable, sites: Collection[SiteId]) -> Division:
    """Reads the ``submodels`` table of a document.

    Args:
      table: Read to its end; may be empty. Public.
      sites: Those there are.

    Raises: ConfigError: Unknown keys or sites, a site in two parts, a width or depth that no part can have.
    """
    private = table.texts("private")
    parts: list[PartSpec] = []
    taken: set[SiteId] = set()
    for entry in table.tables("parts", optional=True):
        part = _part(entry, sites)
        if part.name in {WHOLE, *(other.name for other in parts)}:
            raise entry.error(
                "name", f"{part.name!r} is taken", hint=f"{WHOLE!r} is the part of every site not listed."
            )
        twice = taken.intersection(part.sites)
        if twice:
            raise entry.error("sites", f"{min(twice)!r} is in another part too", hint="A site holds one part.")
        taken.update(part.sites)
        parts.append(part)
    table.close()
    return Division(tuple(parts), private)


def parse_agents(table: StrictTable, sites: Collection[SiteId]) -> Mapping[SiteId, AgentSpec]:
    """Reads the ``agents`` table of a document, a table for each site whose training differs.

    Args:
      table: Read to its end; may be empty. Public.
      sites: Those there are.

    Raises: ConfigError: Unknown sites, kinds of agent or settings, or a setting out of range.
    """
    return {_known(table, name, name, sites): _agent(entry) for name, entry in table.rest().items()}


def _part(table: StrictTable, sites: Collection[SiteId]) -> PartSpec:
    name = table.text("name")
    held = tuple(_known(table, "sites", site, sites) for site in table.texts("sites"))
    if not held:
        raise table.error("sites", "must have at least one entry")
    width = table.number("width", 1.0, above=0.0)
    if width > 1:
        raise table.error("width", f"must be at most 1, not {width:g}", hint="It is a share of every hidden size.")
    part = PartSpec(name, held, width, table.whole("depth", 0))
    table.close()
    return part


def _known(table: StrictTable, key: str, name: str, sites: Collection[SiteId]) -> SiteId:
    if name not in sites:
        raise table.error(key, f"there is no site {name!r}", hint=f"Sites: {', '.join(sites)}.")
    return SiteId(name)


def _agent(table: StrictTable) -> AgentSpec:
    kind: Kind = "torch" if table.choice("kind", AGENTS, "torch") == "torch" else "scikit-learn"
    settings: dict[str, int | float | str] = {}
    if "local_steps" in table:
        settings["local_steps"] = table.whole("local_steps", least=1)
    if "batch" in table:
        settings["batch"] = table.whole("batch")
    if "learning_rate" in table:
        settings["learning_rate"] = table.number("learning_rate", above=0.0)
    if "optimizer" in table:
        settings["optimizer"] = table.choice("optimizer", ("sgd", "adam"))
    table.close()
    return AgentSpec(kind, settings)
