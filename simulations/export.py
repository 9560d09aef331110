"""Writes a scenario as real sites would hold it: a table for each of them, and the study that they share.

A site that reads its table through ``clients.assets``, with the scenario's split, has the records that the simulation
gives it, bit for bit: rows stay in their order, and every file is read back and compared before the export ends.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.records import Records, encode, read_table
from privacy.errors import ConfigError
from privacy.store.key_files import new_folder, write_new
from simulations.based_on import merged
from simulations.data.datasets import site_frames
from simulations.scenario import Scenario, load, names
from strategies.study import read_study
from strategies.task import SiteId
from strategies.task_file import TASK_KEYS

if TYPE_CHECKING:
    import pandas as pd

STUDY_FILE = "study.toml"
_OF_STUDY = ("name", "title", "submodels", "agents", "chain")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
      study: Path of the study.
      tables: Path of each site's table, in the scenario's order.
      settings: What ``[asset.NAME]`` of every site must say for the same records: ``test``, ``seed`` and ``rows``.
    """

    study: Path
    tables: Mapping[SiteId, Path]
    settings: Mapping[str, int | float]


def export(name: str, out: Path, data_home: Path | None) -> Exported:
    """Writes ``SITE.csv`` for every site, and ``study.toml``, into a new folder that others cannot enter, or nothing.

    Args:
      name: Of a built-in scenario, or the path of a file.
      out: Must be new or empty.
      data_home: Folder with public data sets, or ``None``.

    Raises: ConfigError: Unusable scenario, data that is not at hand, a folder that is not new, or a scenario whose
      sites have no rows of their own.
    """
    scenario = load(name)
    if scenario.deal is not None:
        raise ConfigError(
            f"{scenario.name} deals one table to its sites, so none has rows of its own",
            hint="Export a scenario whose sites have, such as hospitals.",
        )
    study = _study(name, scenario)
    frames = site_frames(scenario, data_home)
    with new_folder(out) as draft:
        for site, frame in frames.items():
            path = draft / f"{site}.csv"
            write_new(path, _csv(frame))
            _check_same(path, frame, scenario)
        write_new(draft / STUDY_FILE, study)
    split = scenario.split
    settings = {"test": split.test, "seed": split.seed, "rows": scenario.rows_per_site}
    return Exported(out / STUDY_FILE, {site: out / f"{site}.csv" for site in frames}, settings)


def _csv(frame: "pd.DataFrame") -> bytes:
    # Fractions are written as the shortest text that reads back as the same number.
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _check_same(path: Path, frame: "pd.DataFrame", scenario: Scenario) -> None:
    where = str(path)
    written = encode(read_table(path), scenario.task, where=where)
    if not _same(written, encode(frame, scenario.task, where=where)):
        raise ConfigError(f"{path}: the table cannot be written as text without a change")


def _same(one: Records, other: Records) -> bool:
    pairs = ((one.x, other.x), (one.y, other.y), (one.patient, other.patient))
    return all(np.array_equal(left, right) for left, right in pairs)  # type: ignore[arg-type] # None equals None


def _study(name: str, scenario: Scenario) -> bytes:
    """Returns the study as TOML. Raises: ConfigError: It does not say what the scenario says."""
    document = {key: value for key, value in _document(name).items() if key in {*TASK_KEYS, *_OF_STUDY}}
    text = _toml({**document, "sites": list(scenario.study.sites)})
    if read_study(text, where=STUDY_FILE).digest != scenario.study.digest:
        raise ConfigError(f"the study of {scenario.name} cannot be written as a file of its own")
    return text.encode()


def _document(name: str) -> Mapping[str, object]:
    """Returns what a scenario that could be loaded says, with what it is based on."""
    path = Path(name)
    built_in = resources.files("simulations").joinpath("scenarios", f"{name}.toml")
    text = (path if name.endswith(".toml") else built_in).read_text("utf-8")
    document = tomllib.loads(text)
    base = document.pop("based_on", None)
    if base is None:
        return document
    return merged(dict(_document(base if base in names() else str(path.parent / base))), document, where=f"{name}: ")


def _toml(document: Mapping[str, object]) -> str:
    """Writes a document as TOML: tables at the top level as sections, everything below them in one line."""
    flat = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value, split=True)}" for key, value in flat.items()]
    for name, table in document.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: object, *, split: bool = False) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        entries = [_value(entry) for entry in value]
        long = split and any(isinstance(entry, Mapping) for entry in value)
        return "[\n" + "".join(f"  {entry},\n" for entry in entries) + "]" if long else f"[{', '.join(entries)}]"
    return _key_text(value) if isinstance(value, str) else repr(value)


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "")
    return key if plain.isascii() and plain.isalnum() else _key_text(key)


def _key_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML basic string
