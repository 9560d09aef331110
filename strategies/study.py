"""A study: what is learnt together, apart from anybody's rows. Every party has the same file, and a charter names it.

Features, target, model and training settings, who holds which part, whose training code runs where. A scenario file
of the simulation is a study too: what it says about rows is not read here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import rfc8785

from privacy.errors import ConfigError
from privacy.secagg.context import MIN_SITES
from privacy.toml_document import parse_toml
from strategies.chain_spec import ChainSpec, parse_chain
from strategies.parts import AgentSpec, Division, parse_agents, parse_division
from strategies.task import SiteId, Task
from strategies.task_file import TASK_KEYS, StrictTable, parse_task

SCHEMA = "collegium/study/v1"

_OF_ROWS = ("charter", "data", "split", "licence", "owner", "source", "notes", "record_privacy_refused")
"""What a scenario file says beside its study."""


@dataclass(frozen=True)
class Study:
    """What is learnt; all public, fixed before any row is read.

    Attributes:
      sites: Who could take part, in the order in which everything is listed and summed.
      division: Which part of the model each site holds.
      agents: Sites whose training code or settings are their own.
      chain: Where the model is cut and who holds the piece in between; ``None``: every site trains its part itself.
    """

    name: str
    title: str
    task: Task
    sites: tuple[SiteId, ...]
    division: Division = field(default_factory=Division)
    agents: Mapping[SiteId, AgentSpec] = field(default_factory=dict)
    chain: ChainSpec | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, of what the file says; another spelling of the same study has the same."""
        body = {
            "schema": SCHEMA,
            "name": self.name,
            "task": plain(asdict(self.task)),
            "sites": list(self.sites),
            "division": plain(asdict(self.division)),
            "agents": {site: plain(asdict(agent)) for site, agent in self.agents.items()},
            **({} if self.chain is None else {"chain": self.chain.to_json()}),
        }
        return hashlib.sha256(rfc8785.dumps(body)).hexdigest()


def read_study(text: str, *, where: str) -> Study:
    """Reads a study, or the study of a scenario file.

    Args:
      text: TOML. ``sites`` lists ids, or tables that have one.
      where: Name of the file, for messages.

    Raises: ConfigError: Anything missing, misspelt, of a wrong type or contradictory.
    """
    document = parse_toml(text, where)
    if "based_on" in document:
        raise ConfigError(f"{where}: a study says everything itself", hint="Copy in what it was based on.")
    return parse_study(document, where=f"{where}: ")


def parse_study(document: Mapping[str, object], *, where: str) -> Study:
    """Reads a study out of a TOML document. Raises: ConfigError: As ``read_study``."""
    task = parse_task({key: value for key, value in document.items() if key in TASK_KEYS}, where=where)
    kept = {key: value for key, value in document.items() if key not in TASK_KEYS and key not in _OF_ROWS}
    named = kept.get("sites")
    if isinstance(named, list):
        kept["sites"] = [entry.get("id") if isinstance(entry, Mapping) else entry for entry in named]
    table = StrictTable(kept, where)
    sites = tuple(SiteId(site) for site in table.texts("sites"))
    if len(sites) < MIN_SITES:
        raise table.error("sites", f"must name at least {MIN_SITES}", hint="Below three, no sum is ever opened.")
    division = parse_division(table.table("submodels", optional=True), sites)
    study = Study(
        name=table.text("name"),
        title=table.text("title"),
        task=task,
        sites=sites,
        division=division,
        agents=parse_agents(table.table("agents", optional=True), sites),
        chain=parse_chain(table, division),
    )
    table.close()
    return study


def plain(value: Any) -> Any:
    """Returns a value as canonical JSON can say it: fractions by their shortest decimal, as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    return repr(value) if isinstance(value, float) else value  # canonical JSON knows no infinity
